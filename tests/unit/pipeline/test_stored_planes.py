"""Crops of images that are stored as planes: the bits of those that the host decoder makes of the JPEG."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.pipeline.host import JpegPool, available
from alexnet.pipeline.host.pool import DTYPES, StoredPlanes
from alexnet.shards.planes import rgb_of_planes
from tests.unit.pipeline.photographs import all_places, in_tar, photograph, stored_planes

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def repeated(planes: StoredPlanes, n: int) -> StoredPlanes:
    return StoredPlanes(np.repeat(planes.descriptors, n), np.repeat(planes.offsets, n), np.repeat(planes.keys, n))


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_one_of_the_33_by_33_crops(mirrored: bool) -> None:
    jpeg, places = photograph(3), all_places(256, 256, 224)
    n = len(places) // 33
    with stored_planes([jpeg], (256, 256)) as planes, JpegPool(2) as pool:
        for rows in places.reshape(33, n, 2):
            how: dict[str, Any] = {"size": (256, 256), "crop_yx": rows, "mirror": np.full(n, mirrored)}
            expected, found = (np.empty((n, 224, 224, 3), np.uint8) for _ in range(2))
            assert pool.decode([jpeg] * n, out=expected, **how) == {}
            assert pool.decode(repeated(planes, n), out=found, **how) == {}
            assert np.array_equal(found, expected)


def test_every_pair_of_chroma() -> None:
    """Even and odd values of both, each pair beside each; luma of every value, so that all clamps are met."""
    across, down = np.meshgrid(np.arange(0, 256, 2), np.arange(0, 256, 2))
    luma = np.random.default_rng(0).integers(0, 256, (4, 256 * 256), np.uint8)
    chroma = [np.concatenate([(across + k % 2).flat, (down + k // 2).flat]) for k in range(4)]
    planes = np.concatenate([luma, np.array(chroma, np.uint8)], axis=1)
    out = np.empty((4, 256, 256, 3), np.uint8)
    with in_tar(planes) as stored, JpegPool(2) as pool:
        whole: dict[str, Any] = {"crop_yx": np.zeros((4, 2), np.int32), "mirror": np.zeros(4, np.bool_)}
        assert pool.decode(stored, size=(256, 256), out=out, **whole) == {}
    assert np.array_equal(out, [rgb_of_planes(one, 256, 256) for one in planes])


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
    with stored_planes(jpegs, (height, width)) as planes, JpegPool(2) as pool:
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


def test_what_cannot_be_read_or_is_another_is_told_by_row_and_leaves_zeros() -> None:
    with stored_planes([photograph(0)], (256, 256)) as planes, JpegPool(2) as pool:
        rows = repeated(planes, 10)
        rows.offsets[1] += 1
        rows.offsets[2] = 1 << 40
        rows.offsets[3] = 0
        rows.descriptors[4] = -1
        rows.keys[5] += 1  # it is another sample's
        out = np.ones((10, 224, 224, 3), np.uint8)
        crop_yx = np.zeros((10, 2), np.int32)
        crop_yx[6:] = (33, 0), (0, 33), (-1, 0), (0, -1)
        how: dict[str, Any] = {"crop_yx": crop_yx, "mirror": np.zeros(10, np.bool_), "out": out}
        errors = pool.decode(rows, size=(256, 256), **how)
        wrong = {**dict.fromkeys(range(1, 6), "cannot be read"), **dict.fromkeys(range(6, 10), "has no such window")}
        assert errors == wrong
        assert len(pool.decode(rows, size=(256, 254), **how)) == 10  # of another length than the tar says
    assert not out.any()


def test_arguments_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    out = np.empty((2, 224, 224, 3), np.uint8)
    how: dict[str, Any] = {"size": (256, 256), "crop_yx": np.zeros((2, 2), np.int32), "mirror": np.zeros(2, np.bool_)}
    fit = StoredPlanes(np.zeros(2, np.int32), np.zeros(2, np.int64), np.zeros(2, np.int32))
    wrong: dict[str, Any] = {"descriptors": fit.descriptors[:1], "offsets": fit.keys, "keys": fit.offsets}
    with JpegPool(1) as pool:
        for name, value in wrong.items():
            with pytest.raises(ValueError, match=rf"^{name}: is "):
                pool.decode(fit._replace(**{name: value}), out=out, **how)
