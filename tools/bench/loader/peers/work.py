"""The work that all peers do, for those that leave it to functions of their user; and the proof that it was done."""

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.augment import AugmentSettings
from alexnet.shards.manifest import Manifest
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, StageSettings, Work

Pixels = npt.NDArray[np.uint8]
Decode = Callable[[bytes], Pixels]


def crop_px_of(manifest: Manifest) -> int:
    """Return the side of the windows."""
    return min(AugmentSettings().crop_px, manifest.size_px)


def mean_of(manifest: Manifest) -> npt.NDArray[np.float32]:
    """Return the channels' mean: float32 (3,), 0-255."""
    return np.asarray(manifest.colour.mean, np.float32)


def decoder_of(name: str) -> Decode:
    """Return a function from JPEG bytes to RGB, uint8 (H, W, 3)."""
    if name == "simplejpeg":
        import simplejpeg

        return simplejpeg.decode_jpeg  # type: ignore[no-any-return]

    from PIL import Image

    def pil(data: bytes) -> Pixels:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))

    return pil


def random_window(image: Pixels, crop_px: int, rng: np.random.Generator) -> Pixels:
    """Cut a random window and mirror it half of the time; nothing is copied."""
    y, x = rng.integers(0, (image.shape[0] - crop_px + 1, image.shape[1] - crop_px + 1))
    window = image[y : y + crop_px, x : x + crop_px]
    return window[:, ::-1] if rng.random() < 0.5 else window


def finished(windows: list[Pixels], mean: npt.NDArray[np.float32]) -> torch.Tensor:
    """Subtract the mean and put planes one after another, in one pass: float32 (n, 3, crop, crop)."""
    crop_px = len(windows[0])
    batch = np.empty((len(windows), 3, crop_px, crop_px), np.float32)
    for out, window in zip(batch, windows, strict=True):
        np.subtract(window.transpose(2, 0, 1), mean[:, None, None], out=out)
    return torch.from_numpy(batch)


def endless_ids(images: int, seed: int = 0) -> Iterator[int]:
    """Yield sample ids, each once an epoch, without the end of an epoch being felt."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permutation(images).tolist()


def counted(batches: Iterable[Any], settings: StageSettings) -> Callable[[], Work]:
    """Count what a loader delivers, (images, labels) a batch, after its first batch has been looked at."""
    reader = SplitReader(settings.data, settings.split)
    image_bytes = reader.jpeg_bytes() / len(reader)
    side, mean = crop_px_of(reader.manifest), mean_of(reader.manifest)

    def work() -> Work:
        seen = False
        for images, labels in batches:
            if not seen:
                _check(images, len(labels), side, mean)
                seen = True
            yield len(images), round(len(images) * image_bytes)

    return work


def _check(images: torch.Tensor, labels: int, side: int, mean: npt.NDArray[np.float32]) -> None:
    """Raise CannotRunError unless the work was done: a rate of other work compares with nothing."""
    if images.dtype != torch.float32 or tuple(images.shape[1:]) != (3, side, side) or len(images) != labels:
        raise CannotRunError(f"yields {images.dtype} {tuple(images.shape)}, not float32 (n, 3, {side}, {side})")
    for channel, value in enumerate(mean.tolist()):
        low, high = float(images[:, channel].min()), float(images[:, channel].max())
        if low < -value - 0.01 or high > 255 - value + 0.01 or high - low < 1:  # 0.01: roundings
            raise CannotRunError(f"channel {channel} has values from {low:.1f} to {high:.1f}: its mean is {value:.1f}")
