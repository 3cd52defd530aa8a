"""A batch of crops of JPEGs, decoded on the CPU's cores (`JpegPool`) into memory that is used again (`Ring`).

Each thread takes image after image. Of an image only the crop's pixels are reconstructed; each row is mirrored,
shifted, scaled and cast while it is in the core's first cache, and written once. What goes wrong with one image is
reported for its row and concerns no other. The interpreter is free for the whole batch.

The arithmetic is (pixel - mean) * scale in float32, each operation rounded once, then to nearest even for 16 bits. A
mean image goes with the place in the output, so it is not mirrored: (pixel - (mean_image + mean)) * scale.
"""

import enum
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.jpeg import Jpeg, extension
from alexnet.shards.planes import planes_bytes

Bytes = npt.NDArray[np.uint8]

DTYPES: dict[str, type[np.generic]] = {
    "uint8": np.uint8,
    "float32": np.float32,
    "bfloat16": np.uint16,  # NumPy has no bfloat16: its bits; torch takes them by `view(torch.bfloat16)`
    "float16": np.float16,
}
"""What a batch's memory holds, by name, in the order of decode.h."""

_PLANES = len(DTYPES)  # KIND_PLANES of decode.h
LINE_BYTES = 64
"""Of the caches: where memory begins."""


class Found(enum.IntEnum):
    """Say what was found where a sample was to be read: not all of it, all, or all with the head that was expected."""

    NOT, ANY, WITH_HEAD = range(3)  # of decode.h


class StoredPlanes(NamedTuple):
    """Say where a batch's images lie as planes in open tars: int32, int64 and int32 (n,).

    `keys`: the number that a sample's key begins with, which must stand before it.
    """

    descriptors: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int32]


class JpegPool:
    """Decode batches, or read them, with a fixed number of threads; the calling thread is one of them.

    Threads start with the first batch and sleep between batches; `close()`, or leaving a `with`, joins them. Batches
    from several Python threads take turns. After a fork the child must make a pool of its own: using this one there
    raises RuntimeError. Raises RuntimeError where there is no host decoder; `available()` says why.
    """

    def __init__(self, threads: int) -> None:
        self._host = extension()
        self.threads = threads
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._lines = np.empty((0, 3, 0), np.float32)
        self._pool: object = self._host.new_pool(self.threads)  # threads join when it goes

    def decode(
        self,
        images: Sequence[Jpeg] | StoredPlanes,
        *,
        size: tuple[int, int],
        crop_yx: npt.NDArray[np.int32],
        mirror: npt.NDArray[np.bool_] | npt.NDArray[np.uint8],
        out: npt.NDArray[Any],
        planar: bool = False,
        mean: npt.NDArray[np.float32] | None = None,
        scale: npt.NDArray[np.float32] | None = None,
        mean_image: npt.NDArray[np.float32] | None = None,
        copy_only: bool = False,
    ) -> dict[int, str]:
        """Fill `out` with a batch's crops; return what is wrong with each image that could not be decoded, by its row.

        `images`: n JPEGs, or where their planes lie, each of `size` (height, width) px. `crop_yx`: int32 (n, 2), top
        left corners; one outside is an error of its image. `mirror`: bool or uint8 (n,). `out`: (n, crop, crop, 3), or
        (n, 3, crop, crop) if `planar`; contiguous, of a dtype in `DTYPES`. Rows with an error are filled with zeros.

        uint8 gives the pixels; the other types need `mean`, float32 (n, 3), and `scale`, float32 (3,), and take a
        `mean_image`, float32 (crop, crop, 3). `copy_only`: of planes, read and write as much without any arithmetic,
        which is the most that memory allows; `out` then holds anything.
        Raises ValueError or TypeError for arguments that do not fit, OSError if there cannot be so many threads, before
        anything is decoded.
        """
        stored = images if isinstance(images, StoredPlanes) else None
        n, crop = len(stored.offsets if stored else images), np.shape(out)[2] if np.ndim(out) == 4 else 0
        _check("out", out, (n, 3, crop, crop) if planar else (n, crop, crop, 3), *DTYPES.values())
        _check("mirror", mirror, (n,), np.bool_, np.uint8)
        _check("crop_yx", crop_yx, (n, 2), np.int32)
        if stored:
            _check("descriptors", stored.descriptors, (n,), np.int32)
            _check("offsets", stored.offsets, (n,), np.int64)
            _check("keys", stored.keys, (n,), np.int32)
        if out.dtype == np.uint8:
            mean = scale = mean_image = None
        else:
            _check("mean", mean, (n, 3), np.float32)
            _check("scale", scale, (3,), np.float32)
            if mean_image is not None:
                _check("mean_image", mean_image, (crop, crop, 3), np.float32)
        with self._lock_here():
            lines = self._as_lines(mean_image) if planar and mean_image is not None else mean_image
            kind = [np.dtype(dtype) for dtype in DTYPES.values()].index(out.dtype)
            how = (crop_yx, mirror, mean, scale, lines, out, *size, crop, kind, planar)
            return self._decode((), *how, *stored, copy_only) if stored else self._decode(images, *how)

    def decode_planes(
        self, jpegs: Sequence[Jpeg], *, size: tuple[int, int], out: npt.NDArray[np.uint8]
    ) -> dict[int, str]:
        """Fill `out` with whole images as the decoder has them before upsampling: Y, then Cb, then Cr, in 4:2:0.

        `out`: uint8 (n, `planes_bytes(*size)`). Chroma planes have half the height and width, rounded up. Images must
        be stored as 4:2:0, or grey, which gives chroma of 128. Errors as in `decode`.
        """
        _check("out", out, (len(jpegs), planes_bytes(*size)), np.uint8)
        with self._lock_here():
            return self._decode(jpegs, None, None, None, None, None, out, *size, 1, _PLANES, False)

    def read(
        self,
        descriptors: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        *,
        head: bytes,
        places: npt.NDArray[np.int64],
        out: Bytes,
        keys: npt.NDArray[np.int32] | None = None,
    ) -> Bytes:
        """Read samples from open files into `out`; return for each what was found, of `Found`: uint8 (n,).

        A sample's `lengths` bytes at `offsets` of a file go to `places` in `out`, which must not overlap; all (n,).
        `keys`: of planes, the numbers that their keys in the tar must begin with.
        Raises ValueError for a place outside, OSError if there cannot be so many threads, before anything is read.
        """
        found = np.empty(len(descriptors), np.uint8)
        with self._lock_here():
            self._run(self._host.read_samples, descriptors, offsets, lengths, places, head, out, found, keys)
        return found

    def close(self) -> None:
        """Join the threads, after the batch at work. A closed pool stays closed."""
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

    def _decode(self, *arguments: Any) -> dict[int, str]:
        try:
            return dict(self._run(self._host.decode, *arguments))
        except BufferError as error:
            raise ValueError(f"jpegs: {error}") from None

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the extension with the pool, and with errors that say what to do."""
        if self._pool is None:
            raise ValueError("the decoder is closed")
        try:
            return function(self._pool, *arguments)
        except OSError as error:
            raise OSError(
                f"threads={self.threads}: the system does not start that many ({error.strerror}); give fewer, or raise "
                "its limits (ulimit -u, ulimit -v)"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check(name: str, array: object, shape: tuple[int, ...], *dtypes: type[np.generic]) -> None:
    if not isinstance(array, np.ndarray):
        kinds = " or ".join(dtype.__name__ for dtype in dtypes)
        raise TypeError(f"{name}: is {type(array).__name__}; must be a NumPy array, {kinds} {shape}")
    if array.dtype.type not in dtypes or not array.dtype.isnative or array.shape != shape:
        kinds = " or ".join(dtype.__name__ for dtype in dtypes)
        raise ValueError(f"{name}: is {array.dtype} {array.shape}; must be {kinds} {shape}")
    if not array.flags.c_contiguous or (name == "out" and not array.flags.writeable):
        raise ValueError(f"{name}: must be contiguous{' and writeable' if name == 'out' else ''}")


def allocate_plain(bytes_: int) -> Bytes:
    """Return fresh memory."""
    return np.empty(bytes_, np.uint8)


class Ring:
    """Hand out arrays over buffers of one size; keep those that come back, up to a number.

    Fresh memory costs a page fault every 4 kB: 49 ms of CPU for a float32 batch of 128, where used memory takes 8 ms.
    Whether a lease is gone is looked at when memory is needed; nothing is called when one goes. That would be called in
    the consumer's thread, and Python drops a Ctrl-C that hits a finaliser: in a tight loop one after another.

    `buffer_bytes`: the largest batch. `keep`: free buffers that are held for the next batches. More batches than that
    may be out at a time: the ring then makes another buffer, and the next `take` frees those that came back too many;
    so nobody waits, and a consumer that lets go needs no more than `keep` and what it holds. `allocate(bytes)`: where
    memory comes from, as a contiguous uint8 array (n,), such as torch's pinned memory seen through NumPy. It is asked
    for 64 bytes more: batches begin at lines of the caches, as whole lines are written 10% faster.

    Taking and letting go are safe from any thread. A copy that a device is still making does not count as holding: keep
    the array until it is done.
    """

    def __init__(self, buffer_bytes: int, *, keep: int = 4, allocate: Callable[[int], Bytes] = allocate_plain) -> None:
        if buffer_bytes < 1 or keep < 1:
            raise ValueError(f"buffer_bytes={buffer_bytes}, keep={keep}: both must be at least 1")
        self.buffer_bytes = buffer_bytes
        self.keep = keep
        self._allocate = allocate
        self._lock = threading.Lock()
        self._free: list[Bytes] = []
        self._out: list[tuple[Bytes, weakref.ref[_Lease]]] = []

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[np.generic]:
        """Return a C-contiguous array with whatever the memory holds. Raises ValueError if it is too large."""
        dtype = np.dtype(dtype)
        needed = math.prod(shape) * dtype.itemsize
        if needed > self.buffer_bytes:
            raise ValueError(
                f"shape={shape} of {dtype}: needs {needed:,} bytes, the ring's buffers have {self.buffer_bytes:,}"
            )
        with self._lock:
            self._take_back()
            memory = self._free.pop() if self._free else self._fresh()
            lease = _Lease(memory, shape, dtype)
            self._out.append((memory, weakref.ref(lease)))
        return np.asarray(lease)

    def _take_back(self) -> None:
        """Sort out whose leases are gone."""
        given, self._out = self._out, []
        for memory, lease in given:
            if lease() is None:
                self._free.append(memory)
            else:
                self._out.append((memory, lease))
        del self._free[self.keep :]

    def _fresh(self) -> Bytes:
        memory = self._allocate(self.buffer_bytes + LINE_BYTES)
        begin = -memory.ctypes.data % LINE_BYTES
        return memory[begin : begin + self.buffer_bytes]


class _Lease:
    """Own a buffer for as long as an array over it is referred to.

    It is the array's base, so every view, every tensor and every buffer made of the array keeps it alive, in whatever
    thread. When the last of them is gone the interpreter destroys it, and only then may the memory be taken again.
    NumPy shortens chains of views to the first object that is no array: hence this is none.
    """

    def __init__(self, memory: Bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        self._memory = memory  # which the ring may forget before
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (memory.ctypes.data, False),
        }
