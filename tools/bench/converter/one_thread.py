"""One thread of the host decoder, by CPU time: windows to float32 as the stream makes them, into memory used again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host import Decoder, Ring
from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Hold a window an image: `places`, int32 (n, 2), top left corners; `mirror`, bool (n,); `crop_px`, their side."""

    places: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.bool_]
    crop_px: int


def draw_windows(n: int, size_px: int, crop_px: int, seed: int) -> Windows:
    """Draw random windows of square images; the same for the same seed."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, size_px - crop_px + 1, (n, 2), np.int32)
    return Windows(places=places, mirror=rng.random(n) < 0.5, crop_px=crop_px)


class OneThread:
    """Decode up to `n` images of `size_px` at a time."""

    def __init__(self, n: int, size_px: int) -> None:
        self.size_px = size_px
        memory = Ring(4 * n * 3 * size_px**2, keep=1).take((n * 3 * size_px**2,))
        self._memory = memory.view(np.float32)
        self._decoder = Decoder(1)
        self._means, self._scale = np.full((n, 3), 120.0, np.float32), np.ones(3, np.float32)

    def rate(self, jpegs: Sequence[bytes], windows: Windows) -> float:
        """Return images/s of CPU time."""
        begin = time.process_time()
        self.decode(jpegs, windows, self.size_px)
        return len(jpegs) / (time.process_time() - begin)

    def decode(self, jpegs: Sequence[bytes], windows: Windows, height_px: int) -> npt.NDArray[np.float32]:
        """Decode windows of images so high: float32 (n, 3, crop, crop), until the next call. Raises InputError."""
        shape = (len(jpegs), 3, windows.crop_px, windows.crop_px)
        out = self._memory[: np.prod(shape)].reshape(shape)
        bad = self._decoder.decode(
            jpegs,
            crop_yx=windows.places,
            mirror=windows.mirror,
            size=(height_px, self.size_px),
            crop_px=windows.crop_px,
            out=out,
            kind="float32",
            mean=self._means[: len(jpegs)],
            scale=self._scale,
            planar=True,
        )
        if bad:
            raise InputError(f"an image cannot be decoded: {bad[0][1]}")
        return out
