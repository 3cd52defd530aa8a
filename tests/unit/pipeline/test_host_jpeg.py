"""One JPEG at a time: its header, and windows of pictures of any size."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import DecodeError, JpegHeader, available, decode_rows, read_header
from tests.unit.pipeline.photographs import ENCODINGS, claiming, encoded, photograph, pixels_of, scans_of

FOUND = sorted((Path(__file__).parents[2] / "fuzz" / "found").iterdir())

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.mark.parametrize("size", [(60, 41), (1, 1), (65_000, 3), (300, 2_000)])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_header_is_read_from_any_encoding(encoding: str, size: tuple[int, int]) -> None:
    image = Image.new("L" if encoding == "grey" else "RGB", size, 77)
    extra: dict[str, Any] = {
        "exif": b"Exif\0\0" + photograph(0, 8, 8),
        "comment": b"\xff\xc0" * 20,
    }  # images and markers within
    header = JpegHeader(*size, 1 if encoding == "grey" else 3, progressive="progressive" in encoding, bytes=0)
    assert read_header(encoded(image, **ENCODINGS[encoding], **extra))[:4] == header[:4]
    jpeg = photograph(0, encoding=encoding)
    assert read_header(jpeg).bytes == jpeg.index(b"\xff\xda") + 2 + jpeg[jpeg.index(b"\xff\xda") + 3]


def test_the_header_of_what_cannot_be_decoded_is_read_too() -> None:
    assert read_header(encoded(Image.new("CMYK", (5, 4)))).components == 4
    assert read_header(claiming(photograph(0), 65_500, 65_000)).height_px == 65_000


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"GIF89a", b"\xff\xd8", bytes(1000), b"\xff\xd8\xff\xda\0\x02", b"\xff\xd8\xff\xe0\0\0"],
)
def test_what_has_no_header_says_so(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"not a JPEG|headers"):
        read_header(data)


def test_cut_and_altered_headers_are_refused_or_have_a_size() -> None:
    jpeg = photograph(0, 90, 60)
    for end in range(jpeg.index(b"\xff\xda") + 4):
        with pytest.raises(DecodeError):
            read_header(jpeg[:end])
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        damaged = bytearray(jpeg[:700])
        for at in rng.integers(0, 700, 3):
            damaged[at] = rng.integers(0, 256)
        with suppress(DecodeError):
            assert min(read_header(damaged)[:2]) > 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_windows_equal_the_whole_decode(encoding: str) -> None:
    rng = np.random.default_rng(5)
    for width, height in ((333, 250), (17, 400), (1, 1), (2, 90)):
        jpeg = photograph(6, width, height, encoding)
        whole = pixels_of(jpeg)
        assert np.array_equal(decode_rows(jpeg, y=0, x=0, shape=(height, width, 3)), whole)
        for _ in range(20):
            rows, columns = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
            y, x = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
            expected = whole[y : y + rows, x : x + columns]
            assert np.array_equal(decode_rows(jpeg, y=y, x=x, shape=(rows, columns, 3)), expected)
            with_filler = decode_rows(jpeg, y=y, x=x, shape=(rows, columns, 4))
            assert np.array_equal(with_filler[..., :3], expected)
            assert set(with_filler[..., 3].ravel()) == {255}


@pytest.mark.parametrize(
    ("y", "x", "height", "width"), [(0, 0, 257, 256), (250, 0, 7, 1), (-1, 0, 5, 5), (0, 256, 1, 1)]
)
def test_a_window_that_is_not_inside_is_refused(y: int, x: int, height: int, width: int) -> None:
    with pytest.raises(DecodeError, match="256 pixels wide and 256 high: too small"):
        decode_rows(photograph(0), y=y, x=x, shape=(height, width, 3))


@pytest.mark.parametrize("encoding", ["4:2:0", "progressive"])
def test_a_bomb_is_refused_by_its_header(encoding: str) -> None:
    bomb = claiming(photograph(0, encoding=encoding), 65_500, 65_500)
    with pytest.raises(DecodeError, match="has 65500 x 65500 pixels, more than the 178956970 allowed"):
        decode_rows(bomb, y=0, x=0, shape=(8, 8, 3))


def test_a_file_of_very_many_scans_is_refused() -> None:
    """Each costs the time of a whole picture, for a few bytes."""
    jpeg = photograph(0, 64, 64, "progressive")
    first, second = scans_of(jpeg)[:2]
    header = first + 2 + int.from_bytes(jpeg[first + 2 : first + 4], "big")
    scan = jpeg[first : header - 1] + b"\0" + jpeg[header:second]  # the means of blocks, in full: may come repeatedly
    few, many = (jpeg[:-2] + scan * n + b"\xff\xd9" for n in (400, 600))
    assert np.array_equal(decode_rows(few, y=0, x=0, shape=(64, 64, 3)), pixels_of(few))
    with pytest.raises(DecodeError, match="has more than 500 scans"):
        decode_rows(many, y=0, x=0, shape=(64, 64, 3))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damage_outside_the_window_is_found(encoding: str) -> None:
    jpeg = photograph(8, encoding=encoding)
    rest = len(jpeg) * 9 // 10
    for damaged in (jpeg[:rest], jpeg[:rest] + b"\xff\xd9", jpeg[:-2], jpeg[:rest] + b"\xff\xc0" + jpeg[rest:]):
        with pytest.raises(DecodeError):
            decode_rows(damaged, y=0, x=0, shape=(8, 8, 3))


@pytest.mark.parametrize("given", [{"shape": (5, 5, 2)}, {"shape": (0, 5, 3)}, {"reduced_by": 3}])
def test_what_cannot_be_asked_for_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shape|size"):
        decode_rows(photograph(0), **{"y": 0, "x": 0, "shape": (5, 5, 3), **given})
    with pytest.raises(TypeError):
        decode_rows("text", y=0, x=0, shape=(5, 5, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_fuzzing_found_stays_mended(path: Path) -> None:
    """Every window of it has the pixels of the whole, or it is refused."""
    jpeg = path.read_bytes()
    try:
        width, height = Image.open(io.BytesIO(jpeg)).size
        whole = decode_rows(jpeg, y=0, x=0, shape=(height, width, 3))
    except (DecodeError, OSError):
        return
    assert np.array_equal(whole, pixels_of(jpeg))
    for x in range(width):
        for y in range(0, height, 5):
            for columns in {1, 2, width - x}:
                if x + columns <= width:
                    window = decode_rows(jpeg, y=y, x=x, shape=(height - y, columns, 3))
                    assert np.array_equal(window, whole[y:, x : x + columns])
