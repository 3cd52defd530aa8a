"""Windows of JPEGs with a restart marker after each row of MCUs: what lies above a window is left out, bits and all.

Entropy decoding goes from front to back, and only a restart marker lets a decoder begin further down. With one after
each row, a row is a piece of bytes by itself: those above the window are cut out, the header is told the smaller
height, the markers are numbered anew. What lies below the window the decoder does not read anyway.

Where a window begins with a row's first line, the row above is kept: the smooth upsampling of chroma looks one line
up. So the pixels are those of the whole file, bit for bit.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alexnet.shards.errors import InputError
from alexnet.tools.bench.converter.one_thread import OneThread, Windows

MCU_PX = 16
"""Height of an MCU in 4:2:0."""

_FRAME, _SCAN, _RESTART, _RESTARTS = 0xC0, 0xDA, 0xD0, 8  # SOF0, SOS, RST0, and how many numbers there are
_HEIGHT_AT = 5  # in a frame header, after marker, length and precision


@dataclass(frozen=True, kw_only=True)
class CutPart:
    """Hold the images of a batch that are cut alike: JPEGs of one height, and where their windows now lie."""

    jpegs: Sequence[bytes]
    windows: Windows
    height_px: int


def cut_rate(thread: OneThread, jpegs: Sequence[bytes], windows: Windows, *, scanned: bool) -> float:
    """Return images/s of CPU time. `scanned`: finding the markers and cutting count, too, as they would in training."""
    begin = time.process_time()
    parts = cut(jpegs, windows, thread.size_px)
    if not scanned:
        begin = time.process_time()
    for part in parts:
        thread.decode(part.jpegs, part.windows, part.height_px)
    return len(jpegs) / (time.process_time() - begin)


def cut(jpegs: Sequence[bytes], windows: Windows, size_px: int) -> list[CutPart]:
    """Cut what lies above each window; one part for each number of rows that go."""
    above = np.maximum(0, (windows.places[:, 0] - 1) // MCU_PX)
    parts = []
    for rows in np.unique(above).tolist():
        chosen = np.flatnonzero(above == rows)
        moved = windows.places[chosen] - np.array([rows * MCU_PX, 0], np.int32)
        parts.append(
            CutPart(
                jpegs=[without_rows(jpegs[k], rows) for k in chosen.tolist()],
                windows=Windows(places=moved, mirror=windows.mirror[chosen], crop_px=windows.crop_px),
                height_px=size_px - rows * MCU_PX,
            )
        )
    return parts


def without_rows(jpeg: bytes, rows: int) -> bytes:
    """Return a JPEG without its first rows of MCUs. Raises InputError if it has no restart marker after each."""
    if not rows:
        return jpeg
    frame, scan = _headers(jpeg)
    height_at = frame + _HEIGHT_AT
    height_px = int.from_bytes(jpeg[height_at : height_at + 2], "big")
    bits = np.frombuffer(jpeg, np.uint8)[scan:]
    maybe = np.flatnonzero(bits[:-1] == 0xFF)  # before a zero it is data
    markers = maybe[(bits[maybe + 1] >= _RESTART) & (bits[maybe + 1] < _RESTART + _RESTARTS)]
    if len(markers) != -(-height_px // MCU_PX) - 1:
        raise InputError(f"the JPEG has {len(markers)} restart markers, not one after each row of MCUs")
    begin = markers[rows - 1] + 2
    kept, later = bits[begin:].copy(), markers[rows:] - begin
    kept[later + 1] = _RESTART + np.arange(len(later)) % _RESTARTS
    height = (height_px - rows * MCU_PX).to_bytes(2, "big")
    return b"".join((jpeg[:height_at], height, jpeg[height_at + 2 : scan], kept.data))


def _headers(jpeg: bytes) -> tuple[int, int]:
    """Return where the frame header begins, and where the bits of the scan do."""
    frame, at = 0, 2
    while True:
        marker, end = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == _FRAME:
            frame = at
        if marker == _SCAN:
            return frame, end
        at = end
