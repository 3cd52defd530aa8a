"""The size of a JPEG from its first markers: all that has to be known before the centre of it is decoded.

libjpeg says it, too, but wants a decompressor for it and reads every table: 0.04 ms an image, which will be read again
by the decoder a moment later.
"""

_START, _START_OF_SCAN = b"\xff\xd8", 0xDA
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
"""Baseline, extended and progressive Huffman-coded frames; the others exist on paper."""


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels; None if the data do not begin as an ordinary JPEG does."""
    if not data.startswith(_START):
        return None
    at = len(_START)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return (width, height) if width and height else None
        if marker == _START_OF_SCAN:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
