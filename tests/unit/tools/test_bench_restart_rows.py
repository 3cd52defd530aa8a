"""JPEGs without the rows above a window: the window's pixels are those of the whole file, at every offset."""

import io

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError
from alexnet.tools.bench.converter.one_thread import OneThread, Windows, draw_windows
from alexnet.tools.bench.converter.restart_rows import cut, cut_rate, without_rows

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no host decoder: {available()}")


def jpeg(seed: int, size_px: int = 256, **options: object) -> bytes:
    """Encode coarse noise: chroma that changes from row to row shows a wrong neighbour."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size_px // 4, size_px // 4, 3), np.uint8)
    image = Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling="4:2:0", **{"restart_marker_rows": 1, **options})
    return buffer.getvalue()


@pytest.mark.parametrize(("size_px", "crop_px"), [(256, 224), (288, 224), (250, 200)])
def test_pixels_are_those_of_the_whole_file_at_every_line(size_px: int, crop_px: int) -> None:
    tops = np.arange(size_px - crop_px + 1, dtype=np.int32)
    files = [jpeg(k % 3, size_px) for k in tops.tolist()]
    drawn = draw_windows(len(tops), size_px, crop_px, seed=1)
    windows = Windows(places=np.stack([tops, drawn.places[:, 1]], 1), mirror=drawn.mirror, crop_px=crop_px)
    thread = OneThread(len(files), size_px)
    whole = thread.decode(files, windows, size_px).copy()
    parts = cut(files, windows, size_px)
    assert [part.height_px for part in parts] == [size_px - 16 * k for k in range((size_px - crop_px - 1) // 16 + 1)]
    at = 0
    for part in parts:  # the tops rise, so parts follow each other
        pixels = thread.decode(part.jpegs, part.windows, part.height_px)
        np.testing.assert_array_equal(pixels, whole[at : at + len(pixels)])
        at += len(pixels)
    assert at == len(files)
    assert cut_rate(thread, files, windows, scanned=True) > 0


def test_what_is_cut_is_an_ordinary_file() -> None:
    file = jpeg(0)
    less = without_rows(file, 3)
    assert len(less) < len(file)
    with Image.open(io.BytesIO(file)) as all_of_it, Image.open(io.BytesIO(less)) as rest:
        assert rest.size == (256, 256 - 48)
        np.testing.assert_array_equal(np.asarray(rest)[1:], np.asarray(all_of_it)[49:])
    assert without_rows(file, 0) is file


def test_a_file_without_restart_markers_is_refused() -> None:
    with pytest.raises(InputError, match="has 0 restart markers, not one after each row"):
        without_rows(jpeg(0, restart_marker_rows=0), 1)
