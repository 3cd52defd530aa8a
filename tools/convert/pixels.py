"""Look at Pillow's pixels where they lie.

Pillow shares an image's memory through the Arrow C data interface, which NumPy does not speak; a copy takes 0.03 to
0.05 ms an image and drives the next image's data out of the cache. Of that interface one C struct is needed.
"""

import ctypes

import numpy as np
import numpy.typing as npt
from PIL import Image

_STORED_WITH_FILLER = ("RGB", "RGBX")  # four bytes a pixel, both


class _ArrowArray(ctypes.Structure):
    """The beginning of `struct ArrowArray`, as its specification lays it out."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]

_struct_in = ctypes.pythonapi.PyCapsule_GetPointer
_struct_in.restype, _struct_in.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class _Shared:
    """Offer memory to NumPy; arrays made of it keep this, and so its owner, alive."""

    def __init__(self, owner: object, address: int, shape: tuple[int, int, int]) -> None:
        self.owner = owner
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (address, True)}


def pixels_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an image's pixels, uint8 (height, width, 3), or 4 of which the last means nothing; never writeable.

    The image must not be changed as long as the pixels are used.
    """
    if image.mode not in _STORED_WITH_FILLER:
        image = image.convert("RGB")
    if image.readonly:  # it lies in memory that is not Pillow's; asked for that, Pillow 12 crashes
        return np.asarray(image)
    try:
        _, capsule = image.__arrow_c_array__()
    except (AttributeError, ValueError):  # an older Pillow; a large image in several pieces
        return np.asarray(image)
    outer = _ArrowArray.from_address(_struct_in(capsule, b"arrow_array"))
    values = outer.children[0].contents  # a list for each pixel, and in it the bytes
    shape = (image.height, image.width, 4)
    if values.length != image.height * image.width * 4 or values.offset or not values.buffers[1]:
        return np.asarray(image)
    return np.asarray(_Shared(capsule, values.buffers[1], shape))
