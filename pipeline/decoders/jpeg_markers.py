"""Walk through a JPEG's headers, to keep from DALI what its parser cannot stand.

With 32 images or more in a run, DALI 2.4 ends the process with a segmentation fault where a header cannot be parsed; it
raises an error, as it should, for damage that is found later, in the pixels' codes. The walk takes 3 us an image.
"""

import numpy as np
import numpy.typing as npt

_MOST_HEADERS_BYTES = 4096  # of a stored image; its headers have 623
_FRAMES = (0xC0, 0xC1, 0xC2)  # what libjpeg-turbo and nvJPEG decode: baseline, extended, progressive
_SCAN = 0xDA
_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDA, 0xFF)}


def header_damage(jpeg: npt.NDArray[np.uint8], size_px: int) -> str:
    """Return what is wrong with the headers of a square image, uint8 (bytes,), or nothing."""
    for count in (_MOST_HEADERS_BYTES, len(jpeg)):
        damage = _damage(jpeg[:count].tobytes(), size_px)
        if not damage:
            break
    return damage


def _damage(headers: bytes, size_px: int) -> str:
    if headers[:2] != b"\xff\xd8":
        return "is not a JPEG: it does not begin as one"
    place, frames = 2, 0
    while place + 4 <= len(headers):
        marker, end = headers[place + 1], place + 2 + (headers[place + 2] << 8 | headers[place + 3])
        if headers[place] != 0xFF or marker not in _SEGMENTS or not place + 4 <= end <= len(headers):
            return f"its headers are damaged at byte {place}"
        if marker == _SCAN:
            return "" if frames == 1 else f"its headers are damaged: they have {frames} frames, not one"
        if marker in _FRAMES:
            if damage := _frame_damage(headers[place + 4 : end], size_px):
                return damage
            frames += 1
        place = end
    return "its headers were cut short"


def _frame_damage(frame: bytes, size_px: int) -> str:
    """Look at bits a value, height, width, and each component's number, sampling factors and table."""
    if len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3) or len(frame) != 6 + 3 * frame[5]:
        return "its frame header is damaged, or is not that of 8 bits of grey or of three components"
    if not all(1 <= factors >> 4 <= 4 and 1 <= factors & 15 <= 4 for factors in frame[7::3]):
        return "its sampling factors are damaged"
    height, width = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4]
    if (height, width) != (size_px, size_px):
        return f"is {width} pixels wide and {height} high, not {size_px} and {size_px}"
    return ""
