"""A batch of JPEG windows, decoded on the CPU's cores into memory that the caller owns.

Each thread takes image after image. Of an image only the window's pixels are reconstructed; each row is mirrored,
shifted, scaled and cast while it is in the core's first cache, and written once. What goes wrong with one image is
reported for its row and concerns no other. The interpreter is free for the whole batch.
"""

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.extension import require

if TYPE_CHECKING:  # a name for type checkers only: the class came with Python 3.12
    from typing_extensions import Buffer

Kind = Literal["uint8", "float32", "bfloat16", "float16"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of the numbers in decode.h."""

DTYPES: dict[Kind, type[np.generic]] = {
    "uint8": np.uint8,
    "float32": np.float32,
    "bfloat16": np.uint16,  # NumPy has no bfloat16: its bits; torch takes them by `view(torch.bfloat16)`
    "float16": np.float16,
}


def planes_bytes(size: tuple[int, int]) -> int:
    """Return the bytes of the 4:2:0 planes of an image of (height, width): 98,304 for 256 x 256."""
    height, width = size
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


class Decoder:
    """Decode batches with a fixed number of threads, by default one a core; the calling thread is one of them.

    Threads start with the first batch and sleep between batches; `close()`, or leaving a `with`, joins them. Batches
    from several Python threads take turns. After a fork the child must make a decoder of its own: using this one there
    raises RuntimeError. Raises RuntimeError where there is no host decoder; `available()` says why.
    """

    def __init__(self, threads: int | None = None) -> None:
        require()
        from alexnet.pipeline.host import _host

        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self._pool = _host.Pool(self.threads)

    def decode(
        self,
        jpegs: "Sequence[Buffer]",
        *,
        crop_yx: npt.NDArray[np.int32],
        mirror: npt.NDArray[np.bool_] | npt.NDArray[np.uint8],
        size: tuple[int, int],
        crop_px: int,
        out: npt.NDArray[Any],
        kind: Kind,
        mean: npt.NDArray[np.float32] | None = None,
        scale: npt.NDArray[np.float32] | None = None,
        mean_image: npt.NDArray[np.float32] | None = None,
        planar: bool = False,
    ) -> list[tuple[int, str]]:
        """Fill `out` with a batch's windows; return (row, what is wrong) of each image that could not be decoded.

        `jpegs`: n buffers, each an image of `size` (height, width) px. `crop_yx`: int32 (n, 2), top left corners.
        `mirror`: bool or uint8 (n,). `out`: (n, crop, crop, 3), or (n, 3, crop, crop) if `planar`; contiguous, of the
        dtype in `DTYPES`. Rows with an error are filled with zeros.

        `uint8` gives the pixels. The other kinds need `mean`, float32 (n, 3), and `scale`, float32 (3,), and give
        (pixel - mean) * scale in float32, each operation rounded once, then rounded to nearest even for 16 bits. With
        `mean_image`, float32 (crop, crop, 3), (pixel - (mean_image + mean)) * scale; it belongs to the place in the
        output: it is not mirrored.

        Raises ValueError or TypeError for arguments that do not fit, before anything is decoded.
        """
        n = len(jpegs)
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
        _check("crop_yx", crop_yx, (n, 2), np.int32)
        _check("mirror", mirror, (n,), np.bool_, np.uint8)
        _check("out", out, (n, 3, crop_px, crop_px) if planar else (n, crop_px, crop_px, 3), DTYPES[kind])
        if kind != "uint8":
            _check("mean", mean, (n, 3), np.float32)
            _check("scale", scale, (3,), np.float32)
        if mean_image is not None:
            _check("mean_image", mean_image, (crop_px, crop_px, 3), np.float32)
            mean_image = np.ascontiguousarray(mean_image.transpose(0, 2, 1)) if planar else mean_image
        outside = np.flatnonzero(((crop_yx < 0) | (crop_yx > np.array(size) - crop_px)).any(axis=1))
        if outside.size:
            row = int(outside[0])
            raise ValueError(
                f"crop_yx: row {row} is {tuple(crop_yx[row].tolist())}; with crop_px={crop_px} the images of "
                f"{size[1]} x {size[0]} px have places from 0 to {(size[0] - crop_px, size[1] - crop_px)}"
            )
        return self._pool.decode(
            jpegs, crop_yx, mirror, mean, scale, mean_image, out, *size, crop_px, KINDS.index(kind), planar
        )

    def decode_planes(
        self, jpegs: "Sequence[Buffer]", *, size: tuple[int, int], out: npt.NDArray[np.uint8]
    ) -> list[tuple[int, str]]:
        """Fill `out` with whole images as the decoder has them before upsampling: Y, then Cb, then Cr, in 4:2:0.

        `out`: uint8 (n, `planes_bytes(size)`). Chroma planes have half the height and width, rounded up. Images must
        be stored as 4:2:0, or grey, which gives chroma of 128. Errors as in `decode`.
        """
        _check("out", out, (len(jpegs), planes_bytes(size)), np.uint8)
        return self._pool.decode_planes(jpegs, out, *size)

    def close(self) -> None:
        """Join the threads. Raises RuntimeError while another thread decodes. A closed decoder stays closed."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _check(name: str, array: object, shape: tuple[int, ...], *dtypes: type[np.generic]) -> None:
    kinds = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: is {type(array).__name__}; must be a NumPy array, {kinds} {shape}")
    if array.dtype not in [np.dtype(dtype) for dtype in dtypes] or array.shape != shape:
        raise ValueError(f"{name}: is {array.dtype} {array.shape}; must be {kinds} {shape}")
    if not array.flags.c_contiguous or (name == "out" and not array.flags.writeable):
        raise ValueError(f"{name}: must be contiguous{' and writeable' if name == 'out' else ''}")
