"""A JPEG's size from its markers equals what libjpeg says, or is left to libjpeg."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.tools.convert.jpeg_size import jpeg_size


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 77).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"optimize": True}, {"comment": b"\xff\xc0" * 20}, {"restart_marker_rows": 1}],
)
@pytest.mark.parametrize("size", [(500, 375), (1, 1), (65_000, 3), (300, 2_000)])
def test_equals_the_size_that_was_written(size: tuple[int, int], options: dict[str, Any]) -> None:
    assert jpeg_size(jpeg(*size, **options)) == size
    assert jpeg_size(jpeg(*size, "L", **options)) == size


def test_a_preview_among_the_metadata_is_passed_over() -> None:
    exif = b"Exif\0\0" + jpeg(8, 8)
    assert jpeg_size(jpeg(90, 60, exif=exif)) == (90, 60)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"GIF89a", b"\x89PNG\r\n", b"\xff\xd8\xff\xda\0\x02"])
def test_anything_else_has_none(data: bytes) -> None:
    assert jpeg_size(data) is None


def test_cut_and_altered_headers_never_fail() -> None:
    whole = jpeg(90, 60)
    assert {jpeg_size(whole[:n]) for n in range(len(whole))} == {None, (90, 60)}
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        damaged = bytearray(whole[:300])
        for at in rng.integers(0, 300, 3):
            damaged[at] = rng.integers(0, 256)
        size = jpeg_size(bytes(damaged))
        assert size is None or min(size) > 0


def test_a_marker_of_no_length_does_not_hang() -> None:
    assert jpeg_size(b"\xff\xd8" + b"\xff\xe0\0\0" * 5) is None
