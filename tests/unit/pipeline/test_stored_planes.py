"""Crops of images that are stored as planes: the bits of those that the host decoder makes of the JPEG."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.pipeline.host import JpegPool, available
from alexnet.pipeline.host.pool import DTYPES, StoredPlanes
from alexnet.shards.planes import planes_bytes
from tests.unit.pipeline.photographs import all_places, photograph

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@contextmanager
def stored(jpegs: Sequence[bytes], size: tuple[int, int]) -> Iterator[StoredPlanes]:
    """Write the planes of JPEGs into a file, each after a few bytes of something else."""
    planes = np.empty((len(jpegs), planes_bytes(*size)), np.uint8)
    with JpegPool(1) as pool:
        assert pool.decode_planes(jpegs, size=size, out=planes) == {}
    with tempfile.TemporaryFile() as file:
        offsets = []
        for row in planes:
            file.write(b"between")
            offsets.append(file.tell())
            file.write(row.tobytes())
        file.flush()
        yield StoredPlanes(np.full(len(jpegs), file.fileno(), np.int32), np.array(offsets, np.int64))


def repeated(planes: StoredPlanes, n: int) -> StoredPlanes:
    return StoredPlanes(np.repeat(planes.descriptors, n), np.repeat(planes.offsets, n))


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_one_of_the_33_by_33_crops(mirrored: bool) -> None:
    jpeg, places = photograph(3), all_places(256, 256, 224)
    n = len(places) // 33
    with stored([jpeg], (256, 256)) as planes, JpegPool(2) as pool:
        for rows in places.reshape(33, n, 2):
            how: dict[str, Any] = {"size": (256, 256), "crop_yx": rows, "mirror": np.full(n, mirrored)}
            expected, found = (np.empty((n, 224, 224, 3), np.uint8) for _ in range(2))
            assert pool.decode([jpeg] * n, out=expected, **how) == {}
            assert pool.decode(repeated(planes, n), out=found, **how) == {}
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("height", "width", "crop_px"),
    [(256, 256, 224), (256, 256, 227), (256, 256, 256), (33, 33, 33), (33, 31, 1), (28, 28, 24), (40, 17, 16)],
)
@pytest.mark.parametrize("encoding", ["4:2:0", "grey", "progressive"])
def test_every_type_layout_and_mean(height: int, width: int, crop_px: int, encoding: str) -> None:
    n, rng = 7, np.random.default_rng(crop_px)
    jpegs = [photograph(seed, width, height, encoding) for seed in range(n)]
    places = all_places(height, width, crop_px)
    crop_yx = places[rng.integers(0, len(places), n)]
    crop_yx[0], crop_yx[1] = places[0], places[-1]  # the edges, where there is no neighbour
    mean, scale = rng.normal(120, 40, (n, 3)).astype(np.float32), np.array([1, 0.3, 1 / 58], np.float32)
    image = rng.normal(120, 40, (crop_px, crop_px, 3)).astype(np.float32)
    how: dict[str, Any] = {"size": (height, width), "crop_yx": crop_yx, "mean": mean, "scale": scale}
    with stored(jpegs, (height, width)) as planes, JpegPool(2) as pool:
        for dtype in DTYPES.values():
            for planar in (False, True):
                for mean_image in (None, image):
                    mirror = rng.random(n) < 0.5
                    shape = (n, 3, crop_px, crop_px) if planar else (n, crop_px, crop_px, 3)
                    outs: list[npt.NDArray[Any]] = [np.empty(shape, dtype) for _ in range(2)]
                    given = how | {"mirror": mirror, "planar": planar, "mean_image": mean_image}
                    assert pool.decode(jpegs, out=outs[0], **given) == {}
                    assert pool.decode(planes, out=outs[1], **given) == {}
                    assert outs[0].tobytes() == outs[1].tobytes(), (dtype, planar)


def test_what_cannot_be_read_is_told_by_row_and_leaves_zeros() -> None:
    with stored([photograph(0)], (256, 256)) as planes, JpegPool(2) as pool:
        rows = repeated(planes, 4)
        rows.offsets[1] += 1  # the file ends a byte too soon
        rows.descriptors[2] = -1
        out = np.ones((4, 224, 224, 3), np.uint8)
        crop_yx = np.array([[0, 0], [0, 0], [0, 0], [33, 0]], np.int32)
        errors = pool.decode(rows, size=(256, 256), crop_yx=crop_yx, mirror=np.zeros(4, np.bool_), out=out)
    assert errors == {1: "cannot be read", 2: "cannot be read", 3: "has no such window"}
    assert out[0].any()
    assert not out[1:].any()


def test_arguments_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    out = np.empty((2, 224, 224, 3), np.uint8)
    how: dict[str, Any] = {"size": (256, 256), "crop_yx": np.zeros((2, 2), np.int32), "mirror": np.zeros(2, np.bool_)}
    with JpegPool(1) as pool:
        for descriptors, offsets in ((np.zeros(1, np.int32), np.zeros(2)), (np.zeros(2, np.int32), np.zeros(2, "i4"))):
            with pytest.raises(ValueError, match=r"^(descriptors|offsets): is "):
                pool.decode(StoredPlanes(descriptors, offsets), out=out, **how)  # type: ignore[arg-type]
