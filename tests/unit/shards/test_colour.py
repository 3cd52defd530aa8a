"""Colour statistics are exact: equal to a float64 computation, and the same bits for every order of work."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.shards import colour
from alexnet.shards.colour import ColourSums, principal_axes, products_with_numpy, statistics_of

Images = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def images() -> Images:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (600, 8, 8, 1))
    pixels: Images = np.clip(base + rng.integers(-40, 40, (600, 8, 8, 3)), 0, 255).astype(np.uint8)
    return pixels


def sums_of(images: Images) -> ColourSums:
    sums = ColourSums(images.shape[1])
    for image in images:
        sums.add(image)
    return sums


def test_equals_a_float64_computation_over_all_pixels(images: Images) -> None:
    statistics = statistics_of(sums_of(images))
    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0), rtol=1e-11)
    np.testing.assert_allclose(statistics.covariance, np.cov(pixels.T, bias=True), rtol=1e-11)
    values, vectors = np.linalg.eigh(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(statistics.eigenvalues, values[::-1], rtol=1e-11)
    np.testing.assert_allclose(np.abs(statistics.eigenvectors), np.abs(vectors.T[::-1]), atol=1e-11)
    np.testing.assert_allclose(np.square(statistics.standard_deviations), values[::-1], rtol=1e-11)


@pytest.mark.parametrize("size_px", [1, 2, 5, 6, 31, 32, 33, 100, 256])
@pytest.mark.parametrize("value", [None, 255])
@pytest.mark.parametrize("channels", [3, 4])
def test_c_and_numpy_give_the_same_integers(size_px: int, channels: int, value: int | None) -> None:
    compiled = pytest.importorskip("alexnet.shards._colour", reason="the C extension was not built")
    rng = np.random.default_rng(size_px)
    images = rng.integers(0 if value is None else value, 256, (4, size_px, size_px, channels)).astype(np.uint8)
    for pixels in images:
        assert compiled.products(pixels, channels) == products_with_numpy(pixels)
    recent = np.full(images.shape[1:], 1000, np.uint16)
    compiled.add_four(*images, recent)
    assert np.array_equal(recent, 1000 + images.sum(axis=0))


def frozen(images: Images) -> ColourSums:
    frozen = images.copy()
    frozen.flags.writeable = False
    return sums_of(frozen)


def mixed(images: Images) -> ColourSums:
    """Some may change after they were added, some have a fourth channel, which is not looked at."""
    sums, buffer = ColourSums(8), np.empty((8, 8, 3), np.uint8)
    for i, (image, still) in enumerate(zip(np.pad(images, [(0, 0)] * 3 + [(0, 1)], "edge"), images, strict=True)):
        buffer[:] = still
        sums.add((image, buffer, still)[i % 3])
    return sums


def merged(images: Images) -> ColourSums:
    sums = ColourSums(8)
    for part in (images[400:], images[:7], images[7:400]):
        sums.merge(ColourSums.from_arrays(sums_of(part).to_arrays()))
    return sums


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("way", [sums_of, frozen, mixed, merged])
def test_every_way_of_work_gives_the_same_bits(
    images: Images, way: Callable[[Images], ColourSums], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sums_of(images)
    if not compiled:
        monkeypatch.setattr(colour, "_compiled", None)
    sums = way(images)
    assert statistics_of(sums) == statistics_of(whole)
    assert np.array_equal(sums.mean_image(), whole.mean_image())


def test_an_image_of_another_size_or_type_is_refused(images: Images) -> None:
    for wrong in (images[0, :4], images[0].astype(np.uint16), images[0, :, :, :1]):
        with pytest.raises(ValueError, match=r"uint8 \(8, 8, 3\) is summed here"):
            ColourSums(8).add(wrong)


def test_mean_image_survives_more_images_than_a_uint16_can_sum(images: Images) -> None:
    white = np.full((600, 8, 8, 3), 255, np.uint8)
    assert np.array_equal(sums_of(white).mean_image(), white[0].astype(np.float32))
    np.testing.assert_allclose(sums_of(images).mean_image(), images.mean(axis=0), rtol=1e-6)


def test_totals_far_beyond_64_bits_stay_exact() -> None:
    sums = ColourSums(1)
    n = 10**15  # pixels: n times the cross products is 1e34
    sums.images = n
    sums.mean_image_sums[:] = [n * 100, n * 100, n * 50]
    sums.products = [n * (100 * 100 + 9), n * 100 * 100, n * 5000, n * (10_000 + 4), n * 5000, n * (2500 + 1)]
    assert np.diag(statistics_of(sums).covariance).tolist() == [9.0, 4.0, 1.0]


def test_axes_are_ordered_signed_and_orthonormal() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        root = rng.normal(size=(3, 3)) * 10.0 ** rng.uniform(-6, 6)
        matrix = root @ root.T
        values, vectors = principal_axes(matrix.tolist())
        assert values == sorted(values, reverse=True)
        assert all(max(row, key=abs) > 0 for row in vectors)
        np.testing.assert_allclose(np.array(vectors) @ np.array(vectors).T, np.eye(3), atol=1e-14)
        rebuilt = np.array(vectors).T @ np.diag(values) @ np.array(vectors)
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-14 * np.trace(matrix))


def test_one_flat_colour_has_no_spread() -> None:
    statistics = statistics_of(sums_of(np.full((3, 4, 4, 3), 17, np.uint8)))
    assert statistics.mean == (17.0, 17.0, 17.0)
    assert statistics.standard_deviations == (0.0, 0.0, 0.0)


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        statistics_of(ColourSums(4))
