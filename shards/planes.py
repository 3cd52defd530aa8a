"""Planes: an image as a JPEG decoder has it before upsampling, Y, then Cb, then Cr, a byte a sample, row after row.

Chroma planes have half the height and width of the image, rounded up (4:2:0). No plane is padded.
"""


def planes_bytes(height: int, width: int) -> int:
    """Return the bytes of an image's planes: 98,304 for 256 x 256."""
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
