"""Plans are the same bits on every CPU, and stay so: whoever resumes a run sees the images it would have seen."""

import hashlib
from collections.abc import Callable

PINNED_DIGEST = "8afa8855a3c722cc025cbf4c065e96be96cfd622e3f0f44aeadc5dbed155f22a"
PINNED = """
import hashlib, json
import numpy as np
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.normalize import normalization_of
from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.shards.colour import ColourStatistics
colour = ColourStatistics(
    mean=(120.1, 110.2, 100.3),
    covariance=((2501.0, 0.0, 0.0), (0.0, 1601.0, 0.0), (0.0, 0.0, 901.0)),
    eigenvalues=(10_000.0, 900.0, 100.0),
    eigenvectors=((0.6, 0.6, 0.53), (0.7, 0.0, -0.7), (0.4, -0.8, 0.4)),
    standard_deviations=(100.0, 30.0, 10.0),
)
def digest(*arrays):
    return hashlib.sha256(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)).hexdigest()[:16]
for order in ("global", "blocks"):
    for crop_per in ("image", "32-images"):
        for lighting in ("measured", "krizhevsky", "torch", "off"):
            settings = PlanSettings(batch_images=4000, seed=2012, order=order, window_shards=3)
            augment = AugmentSettings(crop_per=crop_per, lighting=lighting)
            p = Planner(settings, augment, colour, 256, (1500,) * 6 + (1,)).plan(7, 1)
            print(order, crop_per, lighting, digest(p.sample_ids, p.positions, p.crop_yx, p.mirror, p.colour_offset))
image = np.arange(256 * 256 * 3).reshape(256, 256, 3).astype(np.float32) / 771
for augment in (
    AugmentSettings(scale="unit-variance"), AugmentSettings(mean="image", lighting_division=True, lighting_std=0.3)
):
    finish = normalization_of(augment, colour, image, training=True)
    print(augment.scale, augment.mean, digest(finish.mean, finish.scale))
"""


def test_plans_are_the_same_bits_on_any_cpu(on_two_kinds_of_cpu: Callable[[str], tuple[str, str]]) -> None:
    here, plain = on_two_kinds_of_cpu(PINNED)
    assert here == plain
    # For ever, too: a run that is resumed with a later version sees the same images.
    assert hashlib.sha256(here.encode()).hexdigest() == PINNED_DIGEST, here
