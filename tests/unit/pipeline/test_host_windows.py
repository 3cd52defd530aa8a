"""Every window that the host decoder cuts has the pixels of Pillow's whole decode, to the bit."""

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.pipeline.host import Decoder, available
from tests.fuzz.seeds import UNWRITTEN, resampled
from tests.unit.pipeline.photographs import ENCODINGS, all_places, photograph, pixels_of, scans_of, window_of

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def check_windows(jpeg: bytes, places: npt.NDArray[np.int32], crop_px: int, planar: bool = False) -> None:
    """Compare windows at places, half of them mirrored, then the other half, with those of the whole decode."""
    whole = pixels_of(jpeg)
    n = len(places)
    out = np.empty((n, 3, crop_px, crop_px) if planar else (n, crop_px, crop_px, 3), np.uint8)
    with Decoder(2) as decoder:
        for odd in (0, 1):
            mirror = np.arange(n) % 2 == odd
            size = (whole.shape[0], whole.shape[1])
            assert not decoder.decode(
                [jpeg] * n,
                crop_yx=places,
                mirror=mirror,
                size=size,
                crop_px=crop_px,
                out=out,
                kind="uint8",
                planar=planar,
            )
            for row in range(n):
                expected = window_of(whole, places[row], crop_px, bool(mirror[row]))
                got = out[row].transpose(1, 2, 0) if planar else out[row]
                assert np.array_equal(got, expected), (places[row], mirror[row])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_window_of_every_place_equals_the_whole_decode(encoding: str) -> None:
    size = 256 if encoding == "4:2:0" else 104  # what is stored at its size; the others small, to be quick
    check_windows(photograph(1, size, size, encoding), all_places(size, size, size - 32), size - 32)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("width", "height", "crop_px"), [(101, 83, 67), (50, 41, 5), (50, 41, 41), (37, 37, 1)])
def test_odd_sizes_and_narrow_windows_equal_it_too(encoding: str, width: int, height: int, crop_px: int) -> None:
    """Left to itself libjpeg upsamples chroma in another way where two columns or fewer are asked for."""
    jpeg = photograph(2, width, height, encoding)
    check_windows(jpeg, all_places(height, width, crop_px), crop_px, planar=crop_px % 2 == 0 or crop_px == 67)


@pytest.mark.parametrize("name", UNWRITTEN)
@pytest.mark.parametrize("crop_px", [3, 40])
def test_sampling_that_pillow_does_not_write_equals_it_too(name: str, crop_px: int) -> None:
    written, factors = UNWRITTEN[name]
    check_windows(resampled(photograph(4, 64, 64, written), factors), all_places(64, 64, crop_px), crop_px)


def test_a_progressive_file_that_lacks_scans_equals_it_too() -> None:
    """Such a picture is smoothed over neighbouring blocks, further than the window's margin reaches."""
    jpeg = photograph(3, 96, 80, "progressive")
    for end in scans_of(jpeg)[1:]:
        check_windows(jpeg[:end] + b"\xff\xd9", all_places(80, 96, 64), 64)
