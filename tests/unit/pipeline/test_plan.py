"""What a batch is made of: pure functions of (seed, epoch, sample), provable without reading an image."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet.pipeline import AugmentSettings, BatchPlan, ImageStream
from alexnet.pipeline.augment import draw, normal_quantiles
from alexnet.pipeline.order import rank_part
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError
from alexnet.tools.samples.normal_table import normal_table

COLOUR = ColourStatistics(
    mean=(120.0, 110.0, 100.0),
    covariance=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    eigenvalues=(10_000.0, 900.0, 100.0),
    eigenvectors=((0.6, 0.6, 0.53), (0.7, 0.0, -0.7), (0.4, -0.8, 0.4)),
    standard_deviations=(100.0, 30.0, 10.0),
)


def joined(parts: list[BatchPlan]) -> list[list[float]]:
    columns = [(p.sample_ids[:, None], p.crop_yx, p.mirror[:, None], p.colour_offset) for p in parts]
    rows: list[list[float]] = np.concatenate([np.concatenate(c, axis=1) for c in columns]).tolist()
    return rows


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("batch_images", [32, 7, 100])
def test_any_number_of_ranks_shares_the_same_global_batches(ci_100: Path, ranks: int, batch_images: int) -> None:
    def stream(rank: int, of: int) -> ImageStream:
        return ImageStream(ci_100 / "train", batch_images=batch_images, seed=5, rank=rank, ranks=of, drop_last=False)

    whole = stream(0, 1)
    shares = [stream(rank, ranks) for rank in range(ranks)]
    assert {len(s) for s in shares} == {len(whole)}
    for epoch in (0, 3):
        for step in range(len(whole)):
            assert joined([s.plan(epoch, step) for s in shares]) == joined([whole.plan(epoch, step)])


def test_every_sample_comes_exactly_once_an_epoch(ci_100: Path) -> None:
    stream = ImageStream(ci_100 / "train", batch_images=30, drop_last=False)
    for epoch in range(4):
        ids = np.concatenate([stream.plan(epoch, step).sample_ids for step in range(len(stream))])
        assert sorted(ids.tolist()) == list(range(100))
    assert len(ImageStream(ci_100 / "train", batch_images=30)) == 3, "training leaves the partial batch out"


def test_epochs_and_seeds_differ(ci_100: Path) -> None:
    plans = [
        joined([ImageStream(ci_100 / "train", batch_images=100, seed=seed).plan(epoch, 0)])
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert all(a != b for i, a in enumerate(plans) for b in plans[:i])


def test_evaluation_is_every_centre_in_order(ci_100: Path) -> None:
    plan = ImageStream(ci_100 / "val", batch_images=20, augment=False).plan(0, 0)
    assert plan.sample_ids.tolist() == list(range(20))
    assert plan.crop_yx.tolist() == [[16, 16]] * 20
    assert not plan.mirror.any()
    assert not plan.colour_offset.any()


def test_rank_parts_are_contiguous_and_even() -> None:
    for n in range(20):
        for ranks in range(1, 9):
            parts = [rank_part(range(100, 100 + n), rank, ranks) for rank in range(ranks)]
            assert [i for part in parts for i in part] == list(range(100, 100 + n))
            assert {len(part) for part in parts} <= {n // ranks, -(-n // ranks)}


PINNED = """
import numpy as np
from tests.unit.pipeline.test_plan import COLOUR
from alexnet.pipeline.augment import AugmentSettings, draw
d = draw(AugmentSettings(), COLOUR, 256, 2012, 7, np.arange(4, dtype=np.int64))
print(d.crop_yx.tolist(), d.mirror.tolist(), [v.hex() for v in d.colour_offset.ravel().tolist()])
"""


def test_draws_are_the_same_bits_on_a_cpu_without_vector_units() -> None:
    root = Path(__file__).parents[3]
    plain = {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX", "OPENBLAS_CORETYPE": "Prescott"}
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PINNED],
            env={**os.environ, "PYTHONPATH": str(root), **env},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for env in ({}, plain)
    ]
    assert outputs[0] == outputs[1] != ""


def test_draws_have_the_right_distributions() -> None:
    """100,000 images: each bound is about five standard errors wide."""
    n = 100_000
    draws = draw(AugmentSettings(), COLOUR, 256, 1, 0, np.arange(n))
    for axis in range(2):
        counts = np.bincount(draws.crop_yx[:, axis], minlength=33)
        assert len(counts) == 33, "offsets run from 0 to 32"
        chi_square = float(((counts - n / 33) ** 2 / (n / 33)).sum())
        assert 32 - 5 * 8 < chi_square < 32 + 5 * 8  # 32 degrees of freedom, standard deviation 8
    assert abs(draws.mirror.mean() - 0.5) < 5 * 0.5 / n**0.5
    axes, spread = np.array(COLOUR.eigenvectors), np.array(COLOUR.standard_deviations)
    coefficients = draws.colour_offset @ np.linalg.inv(axes) / spread
    np.testing.assert_allclose(coefficients.mean(axis=0), 0.0, atol=5 * 0.1 / n**0.5)
    np.testing.assert_allclose(coefficients.std(axis=0), 0.1, rtol=5 / (2 * n) ** 0.5)
    everything = np.column_stack([draws.crop_yx, draws.mirror, coefficients])
    correlations = np.corrcoef(everything.T) - np.eye(6)
    assert np.abs(correlations).max() < 5 / n**0.5, "one draw tells something about another"


def test_the_committed_normal_table_is_what_its_script_makes() -> None:
    np.testing.assert_allclose(normal_quantiles(), normal_table(), rtol=1e-6)
    assert normal_quantiles().var() + normal_quantiles().mean() ** 2 == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AugmentSettings(crop_px=257), r"crop_px=257: must be between 1 and the shards' 256; .*--size 257"),
        (AugmentSettings(crop_px=0), "crop_px=0"),
        (AugmentSettings(lighting_std=-1.0), r"lighting_std=-1\.0"),
    ],
)
def test_settings_that_cannot_work_are_named(ci_100: Path, settings: AugmentSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageStream(ci_100 / "train", batch_images=10, augmentation=settings)


def test_batches_larger_than_the_data_are_refused(ci_100: Path) -> None:
    with pytest.raises(InputError, match="batch_images=101: the data set has only 100 images"):
        ImageStream(ci_100 / "train", batch_images=101)
    assert len(ImageStream(ci_100 / "train", batch_images=101, drop_last=False)) == 1


def test_planning_loads_neither_torch_nor_dali(ci_100: Path) -> None:
    code = (
        "import sys; from alexnet.pipeline import ImageStream\n"
        f"s = ImageStream({str(ci_100 / 'train')!r}, batch_images=10); s.plan(0, 0); s.sample(3)\n"
        "assert not {'torch', 'nvidia.dali'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
