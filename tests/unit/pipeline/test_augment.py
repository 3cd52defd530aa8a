"""Settings of augmentation: what each value means, which are refused, and what normalizing is told."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.pipeline.augment import AugmentSettings, Mean, Scale, centre, describe_lighting, draw, ten_views
from alexnet.pipeline.lighting import KRIZHEVSKY, TORCH, Lighting, channel_noise, lighting_axes, normal_quantiles
from alexnet.pipeline.normalize import normalization_of, normalized
from alexnet.shards.colour import ColourStatistics, principal_axes
from alexnet.shards.errors import InputError
from tests.bundled import normal_table

IDS: npt.NDArray[np.int64] = np.arange(20_000)


def test_mirror_and_lighting_can_be_left_out(colour: ColourStatistics) -> None:
    draws = draw(AugmentSettings(mirror=False, lighting="off"), colour, 256, 1, 0, IDS, IDS)
    assert not draws.mirror.any()
    assert not draws.colour_offset.any()
    assert draws.crop_yx.tolist() == draw(AugmentSettings(), colour, 256, 1, 0, IDS, IDS).crop_yx.tolist()
    whole = draw(AugmentSettings(crop_px=256), colour, 256, 1, 0, IDS, IDS)
    assert not whole.crop_yx.any(), "a window as large as the image has one place"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AugmentSettings(crop_px=257), r"^crop_px=257: must be between 1 and the shards' 256; .*--size 257"),
        (AugmentSettings(crop_px=0), "^crop_px=0: must be between 1"),
        (AugmentSettings(lighting_std=-1.0), r"^lighting_std=-1\.0: must be between 0 and 10"),
        (AugmentSettings(lighting_std=math.nan), "^lighting_std=nan: must be between 0 and 10"),
        (AugmentSettings(lighting="pca"), "^lighting='pca': must be one of measured, krizhevsky, torch, off$"),  # type: ignore[arg-type]
        (AugmentSettings(crop_per="batch"), "^crop_per='batch': must be one of image, 32-images$"),  # type: ignore[arg-type]
        (AugmentSettings(mean="none"), "^mean='none': must be one of channel, image$"),  # type: ignore[arg-type]
        (AugmentSettings(scale="0-1"), "^scale='0-1': must be one of pixel, unit-variance$"),  # type: ignore[arg-type]
        (
            AugmentSettings(lighting="off", lighting_division=True),
            "^lighting_division=True: .*lighting must not be off; set lighting_division=False",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(settings: AugmentSettings, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        settings.check(256)
    assert "\n" not in str(error.value)


def test_the_committed_normal_table_is_what_its_script_makes() -> None:
    np.testing.assert_allclose(normal_quantiles(), normal_table(), rtol=1e-6)
    assert normal_quantiles().var() + normal_quantiles().mean() ** 2 == pytest.approx(1.0, abs=1e-4)


def test_krizhevskys_axes_are_orthonormal_and_belong_to_a_covariance() -> None:
    axes, spread = np.array(KRIZHEVSKY.directions), np.array(KRIZHEVSKY.standard_deviations)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-6)  # seven digits were published
    covariance = (axes.T * spread**2) @ axes
    values, vectors = principal_axes(covariance.tolist())
    np.testing.assert_allclose(np.sqrt(values), spread, rtol=1e-6)
    # The rows come back up to their sign. An error of 1e-6 in one is divided by the gap between eigenvalues.
    np.testing.assert_allclose(np.abs(np.array(vectors)), np.abs(axes), atol=1e-5)
    # Natural pixels: the channels spread alike, and rise and fall together.
    channels = np.sqrt(np.diag(covariance))
    assert channels.max() / channels.min() < 1.1
    assert (covariance / np.outer(channels, channels) > 0.7).all()


def test_two_publications_of_imagenets_axes_agree() -> None:
    """Torch's figures were measured by others, on other pixels: same directions, and deviations within 14%."""
    torch_variances, axes = np.array([0.2175, 0.0188, 0.0045]), np.array(TORCH.directions)
    cosines = np.abs((axes * np.array(KRIZHEVSKY.directions)).sum(axis=1))
    assert (cosines > 0.999).all()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=2e-4)  # four digits were published
    np.testing.assert_allclose(255 * np.sqrt(torch_variances), KRIZHEVSKY.standard_deviations, rtol=0.14)
    # What scripts multiply with is the variance: the factors by which their noise is too weak.
    factors = np.array(KRIZHEVSKY.standard_deviations) / TORCH.standard_deviations
    assert [round(f, 1) for f in factors.tolist()] == [2.2, 7.7, 17.2]


@pytest.mark.parametrize("lighting", ["measured", "krizhevsky", "torch", "off"])
@pytest.mark.parametrize("lighting_std", [0.1, 0.5])
def test_the_stated_noise_is_that_of_the_draws(
    colour: ColourStatistics, lighting: Lighting, lighting_std: float
) -> None:
    settings = AugmentSettings(lighting=lighting, lighting_std=lighting_std)
    stated = channel_noise(lighting_axes(lighting, colour), lighting_std)
    measured = draw(settings, colour, 256, 0, 0, IDS, IDS).colour_offset.astype(np.float64).std(axis=0)
    np.testing.assert_allclose(measured, stated, rtol=5 / (2 * len(IDS)) ** 0.5)  # five standard errors


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            AugmentSettings(lighting="krizhevsky", lighting_division=True),
            "lighting krizhevsky: colour noise of standard deviation 7.40, 7.20, 7.70 on R, G, B of 0-255 "
            "(12.18, 3.71, 1.97 along the principal axes); pixels then divided by 1.1",
        ),
        (
            AugmentSettings(lighting="torch"),
            "lighting torch: colour noise of standard deviation 3.17, 3.22, 3.25 on R, G, B of 0-255 (5.55, 0.48, 0.11 "
            "along the principal axes); Torch's variances used as deviations: 2.2, 7.7 and 17 times weaker along the "
            "axes than krizhevsky",
        ),
        (
            AugmentSettings(),
            "lighting measured: colour noise of standard deviation 6.37, 6.05, 5.71 on R, G, B of 0-255 "
            "(10.00, 3.00, 1.00 along the principal axes)",
        ),
        (AugmentSettings(lighting="off"), "lighting off: no colour noise"),
    ],
)
def test_one_line_says_how_strong_the_noise_is(colour: ColourStatistics, settings: AugmentSettings, line: str) -> None:
    assert describe_lighting(settings, colour) == line


def test_ten_views_are_corners_and_centre_and_their_mirrors() -> None:
    for size_px, crop_px in [(256, 224), (256, 227), (40, 40), (9, 1)]:
        views = ten_views(size_px, crop_px)
        assert [mirror for *_, mirror in views] == [False] * 5 + [True] * 5
        places = [(y, x) for y, x, _ in views]
        assert places[:5] == places[5:]
        place = np.arange(size_px * size_px).reshape(size_px, size_px)
        cut = [place[y : y + crop_px, x : x + crop_px] for y, x in places[:5]]
        assert all(window.shape == (crop_px, crop_px) for window in cut)
        corners = (cut[0][0, 0], cut[1][0, -1], cut[2][-1, 0], cut[3][-1, -1])
        assert corners == (place[0, 0], place[0, -1], place[-1, 0], place[-1, -1])
        middle = centre(AugmentSettings(crop_px=crop_px), size_px, IDS[:1], IDS[:1]).crop_yx[0]
        assert places[4] == tuple(middle.tolist())


def mean_image(size_px: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(80, 140, (size_px, size_px, 3)).astype(np.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mean", ["channel", "image"])
@pytest.mark.parametrize("scale", ["pixel", "unit-variance"])
@pytest.mark.parametrize("division", [True, False])
def test_the_finishing_pass_equals_its_formula_in_float64(
    colour: ColourStatistics, training: bool, mean: Mean, scale: Scale, division: bool
) -> None:
    settings = AugmentSettings(crop_px=31, lighting_std=0.2, mean=mean, scale=scale, lighting_division=division)
    image = mean_image(40)
    finish = normalization_of(settings, colour, image, training=training)
    assert finish.mean.dtype == finish.scale.dtype == np.float32
    assert finish.mean.shape == ((31, 31, 3) if mean == "image" else (3,))
    assert finish.scale.shape == (3,)

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 31, 31, 3), dtype=np.uint8)
    offsets = rng.normal(0, 8, (4, 3)).astype(np.float32)
    subtracted = image[4:35, 4:35].astype(np.float64) if mean == "image" else np.array(colour.mean)
    expected = pixels.astype(np.float64) - subtracted + offsets[:, None, None, :].astype(np.float64)
    if scale == "unit-variance":
        expected /= [50.0, 40.0, 30.0]  # the roots of the fixture's variances
    if division and training:
        expected /= 1.2
    # Three roundings of values below 512, each at most 2^-16.
    np.testing.assert_allclose(normalized(pixels, offsets, finish), expected, rtol=0, atol=3 * 2.0**-16)


def test_a_finish_that_cannot_be_is_refused(colour: ColourStatistics) -> None:
    flat = dataclasses.replace(colour, covariance=((0.0, 0.0, 0.0),) * 3)
    with pytest.raises(InputError, match="a channel of this data set has one value only; use scale=pixel"):
        normalization_of(AugmentSettings(scale="unit-variance"), flat, training=True)
    by_image = AugmentSettings(mean="image", crop_px=32)
    with pytest.raises(ValueError, match="needs the data set's mean image"):
        normalization_of(by_image, colour, training=True)
    for shape, message in [((40, 40), r"shape \(40, 40\), not"), ((31, 31, 3), "31 px, less than crop_px=32")]:
        with pytest.raises(InputError, match=message):
            normalization_of(by_image, colour, np.zeros(shape, np.float32), training=True)


def test_lighting_ends_after_its_epochs_and_the_division_with_it(colour: ColourStatistics) -> None:
    """Windows and mirrors go on as they were: nothing else is drawn otherwise."""
    ids = np.arange(50)
    for division in (False, True):
        always = AugmentSettings(crop_px=31, lighting_std=0.2, lighting_division=division)
        ending = dataclasses.replace(always, lighting_epochs=3)
        for epoch in range(6):
            a, b = (draw(settings, colour, 40, 1, epoch, ids, ids) for settings in (always, ending))
            assert np.array_equal(a.crop_yx, b.crop_yx)
            assert np.array_equal(a.mirror, b.mirror)
            assert np.array_equal(b.colour_offset, a.colour_offset if epoch < 3 else np.zeros((50, 3)))
            finish = normalization_of(ending, colour, training=True, epoch=epoch)
            expected = 1 / 1.2 if division and epoch < 3 else 1.0
            assert finish.scale.tolist() == [np.float32(expected)] * 3
    with pytest.raises(InputError, match=r"lighting_epochs=-1: must be at least 1, or 0"):
        AugmentSettings(lighting_epochs=-1).check(256)
