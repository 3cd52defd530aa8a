"""libjpeg-turbo by itself, through the host decoder: whole images, windows, or entropy decoding alone.

JPEGs come from memory and pixels go into one buffer that is used again, so nothing else costs anything.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.augment import AugmentSettings
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings, Work

_HELD_BYTES = 256 << 20  # of JPEGs that decoders without a reader are given, from memory


def jpeg(settings: StageSettings, options: dict[str, Any]) -> Stage:
    """Decode JPEGs that lie in memory into one buffer, again and again."""
    from alexnet.pipeline.host import Decoder, Ring, available

    if reason := available():
        raise CannotRunError(reason)
    reader = SplitReader(settings.data, settings.split)
    size_px, n = reader.manifest.size_px, settings.batch_images
    window = options["window"]
    crop_px, places = _windows(window, size_px)
    mirrored = 0.5 if window == "crop" else 0.0
    jpegs = _held_jpegs(reader, n)
    kind = options["output"]
    shape = (n, crop_px, crop_px, 3) if kind == "uint8" else (n, 3, crop_px, crop_px)
    out = Ring(4 * n * 3 * crop_px**2, keep=1).take(shape, np.uint8 if kind == "uint8" else np.float32)
    decoder = Decoder(settings.threads)
    rng = np.random.default_rng(0)
    means = None if kind == "uint8" else np.full((n, 3), 120.0, np.float32)

    def work() -> Work:
        while True:
            for first in range(0, len(jpegs) - n + 1, n):
                batch = jpegs[first : first + n]
                bad = decoder.decode(
                    batch,
                    crop_yx=places(rng, n),
                    mirror=rng.random(n) < mirrored,
                    size=(size_px, size_px),
                    crop_px=crop_px,
                    out=out,
                    kind=kind,
                    mean=means,
                    scale=None if means is None else np.ones(3, np.float32),
                    planar=kind != "uint8",
                )
                if bad:
                    raise CannotRunError(f"an image cannot be decoded: {bad[0][1]}")
                yield n, sum(map(len, batch))

    words = f"{settings.threads} threads, {len(jpegs):,} JPEGs in memory, one buffer that is used again"
    return Stage(work=work, settings=words)


Places = Callable[[np.random.Generator, int], npt.NDArray[np.int32]]


def _windows(window: str, size_px: int) -> tuple[int, Places]:
    """Return the side of what is decoded, and where it lies."""
    crop_px = min(AugmentSettings().crop_px, size_px)

    def anywhere(rng: np.random.Generator, n: int) -> npt.NDArray[np.int32]:
        return rng.integers(0, size_px - crop_px + 1, (n, 2), np.int32)

    if window == "whole":
        return size_px, lambda _, n: np.zeros((n, 2), np.int32)
    if window == "last-pixel":  # what lies above it is read bit by bit, but not made into pixels
        return 1, lambda rng, n: anywhere(rng, n) + np.int32(crop_px - 1)
    return crop_px, anywhere


def _held_jpegs(reader: SplitReader, at_least: int) -> list[npt.NDArray[np.uint8]]:
    """Read a random part of a split into memory: whole if it is small, and repeated if it is smaller than a batch."""
    ids = np.random.default_rng(0).permutation(len(reader)).tolist()
    jpegs: list[npt.NDArray[np.uint8]] = []
    held = 0
    for sample_id in ids:
        jpegs.append(reader.jpeg(sample_id))
        held += len(jpegs[-1])
        if held > _HELD_BYTES:
            break
    return jpegs * -(-at_least // len(jpegs))
