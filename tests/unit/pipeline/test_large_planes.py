"""A stream over as many planes as ImageNet has images."""

from pathlib import Path
from typing import Any

import pytest

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.host import available
from alexnet.pipeline.settings import Order
from tests.made_up import IMAGENET_IMAGES, SHARD_IMAGES, write_made_up

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.fixture(scope="module")
def made_up(ci_100: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_made_up(ci_100, tmp_path_factory.mktemp("large") / "set", IMAGENET_IMAGES)


@pytest.mark.parametrize("order", ["global", "blocks"])
def test_batches_are_the_planned_images_wherever_the_stream_begins(made_up: Path, order: Order) -> None:
    def check(images: Any, labels: Any, at: int) -> None:
        ids = stream.plan(0, at).sample_ids
        assert images.amin((1, 2, 3)).tolist() == images.amax((1, 2, 3)).tolist() == (ids % SHARD_IMAGES % 256).tolist()
        assert labels.tolist() == (ids % SHARD_IMAGES % 10).tolist()

    how: dict[str, Any] = {"batch_images": 16, "output": "uint8", "settings": StreamSettings(order=order)}
    with ImageStream(made_up / "train", **how) as stream:
        assert (stream.images, len(stream)) == (IMAGENET_IMAGES, IMAGENET_IMAGES // 16)
        check(*next(iter(stream)), at=0)
        stream.seek(0, len(stream) - 1)
        check(*next(iter(stream)), at=len(stream) - 1)
