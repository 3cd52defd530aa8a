"""A batch of crops of JPEGs, decoded on the CPU's cores into memory that the caller owns.

Each thread takes image after image. Of an image only the crop's pixels are reconstructed; each row is mirrored,
shifted, scaled and cast while it is in the core's first cache, and written once. What goes wrong with one image is
reported for its row and concerns no other. The interpreter is free for the whole batch.

The arithmetic is (pixel - mean) * scale in float32, each operation rounded once, then to nearest even for 16 bits. A
mean image goes with the place in the output, so it is not mirrored: (pixel - (mean_image + mean)) * scale.
"""

import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.extension import require
from alexnet.pipeline.host.jpeg import Jpeg
from alexnet.shards.processes import usable_cores

Kind = Literal["uint8", "float32", "bfloat16", "float16"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of decode.h, where planes follow."""

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

        self.threads = usable_cores() if threads is None else threads
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._lines = np.empty((0, 3, 0), np.float32)
        self._pool: object = _host.new_pool(self.threads)  # threads join when it goes

    def decode(
        self,
        jpegs: Sequence[Jpeg],
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
        """Fill `out` with a batch's crops; return (row, what is wrong) of each image that could not be decoded.

        `jpegs`: n buffers, each an image of `size` (height, width) px. `crop_yx`: int32 (n, 2), top left corners.
        `mirror`: bool or uint8 (n,). `out`: (n, crop, crop, 3), or (n, 3, crop, crop) if `planar`; contiguous, of the
        dtype in `DTYPES`. Rows with an error are filled with zeros.

        `uint8` gives the pixels; the other kinds need `mean`, float32 (n, 3), and `scale`, float32 (3,), and take a
        `mean_image`, float32 (crop, crop, 3).
        Raises ValueError or TypeError for arguments that do not fit, OSError if there cannot be so many threads, before
        anything is decoded.
        """
        shape = (len(jpegs), 3, crop_px, crop_px) if planar else (len(jpegs), crop_px, crop_px, 3)
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
        _check("out", out, shape, DTYPES[kind])
        _check("mirror", mirror, shape[:1], np.bool_, np.uint8)
        _check_places(crop_yx, len(jpegs), size, crop_px)
        if kind == "uint8":
            mean = scale = mean_image = None
        else:
            _check("mean", mean, (len(jpegs), 3), np.float32)
            _check("scale", scale, (3,), np.float32)
            if mean_image is not None:
                _check("mean_image", mean_image, (crop_px, crop_px, 3), np.float32)
        with self._lock_here():
            lines = self._as_lines(mean_image) if planar and mean_image is not None else mean_image
            arrays = (crop_yx, mirror, mean, scale, lines, out)
            return self._run(jpegs, arrays, size, crop_px, KINDS.index(kind), planar)

    def decode_planes(
        self, jpegs: Sequence[Jpeg], *, size: tuple[int, int], out: npt.NDArray[np.uint8]
    ) -> list[tuple[int, str]]:
        """Fill `out` with whole images as the decoder has them before upsampling: Y, then Cb, then Cr, in 4:2:0.

        `out`: uint8 (n, `planes_bytes(size)`). Chroma planes have half the height and width, rounded up. Images must
        be stored as 4:2:0, or grey, which gives chroma of 128. Errors as in `decode`.
        """
        _check("out", out, (len(jpegs), planes_bytes(size)), np.uint8)
        with self._lock_here():
            return self._run(jpegs, (None, None, None, None, None, out), size, crop_px=1, kind=len(KINDS), planar=False)

    def close(self) -> None:
        """Join the threads, after the batch at work. A closed decoder stays closed."""
        with self._lock_here():
            self._pool = None

    def _lock_here(self) -> threading.Lock:
        """Return the lock, but in a forked child refuse: a thread that did not come along may have held it."""
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this decoder belongs to process {self._process}, and its threads did not come along with the fork; "
                f"make a new one in process {os.getpid()}"
            )
        return self._lock

    def _as_lines(self, mean_image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Order a mean image as the rows of planes are: (crop, 3, crop), in memory that is used again."""
        side = len(mean_image)
        if self._lines.shape != (side, 3, side):
            self._lines = np.empty((side, 3, side), np.float32)
        np.copyto(self._lines, mean_image.transpose(0, 2, 1))
        return self._lines

    def _run(
        self,
        jpegs: Sequence[Jpeg],
        arrays: tuple[npt.NDArray[Any] | None, ...],
        size: tuple[int, int],
        crop_px: int,
        kind: int,
        planar: bool,
    ) -> list[tuple[int, str]]:
        from alexnet.pipeline.host import _host

        if self._pool is None:
            raise ValueError("the decoder is closed")
        crop_yx, mirror, mean, scale, lines, out = arrays
        height, width = size
        try:
            return _host.decode(
                self._pool, jpegs, crop_yx, mirror, mean, scale, lines, out, height, width, crop_px, kind, planar
            )
        except BufferError as error:
            raise ValueError(f"jpegs: {error}") from None
        except OSError as error:
            raise OSError(
                f"threads={self.threads}: the system does not start that many ({error.strerror}); give fewer, or raise "
                "its limits (ulimit -u, ulimit -v)"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _check_places(crop_yx: object, n: int, size: tuple[int, int], crop_px: int) -> None:
    _check("crop_yx", crop_yx, (n, 2), np.int32)
    assert isinstance(crop_yx, np.ndarray)
    last = np.array(size) - crop_px
    outside = np.flatnonzero(((crop_yx < 0) | (crop_yx > last)).any(axis=1))
    if outside.size:
        y, x = crop_yx[outside[0]].tolist()
        raise ValueError(
            f"crop_yx: row {outside[0]} is ({y}, {x}); windows of {crop_px} px in images {size[1]} px wide and "
            f"{size[0]} high have places from (0, 0) to ({last[0]}, {last[1]})"
        )


def _check(name: str, array: object, shape: tuple[int, ...], *dtypes: type[np.generic]) -> None:
    kinds = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: is {type(array).__name__}; must be a NumPy array, {kinds} {shape}")
    if array.dtype not in [np.dtype(dtype) for dtype in dtypes] or array.shape != shape:
        raise ValueError(f"{name}: is {array.dtype} {array.shape}; must be {kinds} {shape}")
    if not array.flags.c_contiguous or (name == "out" and not array.flags.writeable):
        raise ValueError(f"{name}: must be contiguous{' and writeable' if name == 'out' else ''}")
