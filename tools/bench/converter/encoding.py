"""`alexnet-bench encoding`: what a stored image costs to decode, for each way the converter could have encoded it.

Entropy decoding is half of the host decoder's work, so fewer or cheaper bits move its limit. The same resized squares
are encoded in each way, and decoded in turn, round after round, by one thread of the host decoder: windows as training
reads them, and whole. Rates are by CPU time; what counts is each way's ratio to the default in the same round.
"""

import dataclasses
import io
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, features

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.host import Decoder, Ring, available
from alexnet.shards.errors import InputError
from alexnet.tools.bench.converter.encoding_table import print_encoding
from alexnet.tools.bench.converter.prep import read_member, sample_evenly
from alexnet.tools.bench.measuring.figures import refuse_unwritable, spread, write_json
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.resize import UndecodableError, convert_image
from alexnet.tools.convert.sources import open_source
from alexnet.tools.interruption import interruptible

SCHEMA = 1

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Name one way to encode, and hold what Pillow's JPEG writer is told. The first of `ENCODINGS` is the default."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def _way(name: str, **options: Any) -> Encoding:
    default: dict[str, Any] = {"quality": ConvertSettings().quality, "subsampling": "4:2:0"}
    return Encoding(name=name, options={**default, **options})


ENCODINGS = (
    _way("default"),
    _way("optimised Huffman tables", optimize=True),
    _way("quality 85", quality=85),
    _way("quality 95", quality=95),
    _way("4:4:4", subsampling="4:4:4"),
    _way("a restart marker each MCU row", restart_marker_rows=1),
    _way("progressive", progressive=True),
)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Hold a way's JPEGs, the CPU seconds their encoding took, and the PSNR against the pixels before it."""

    way: Encoding
    jpegs: list[bytes]
    seconds: float
    psnr_db: float


def run_encoding(source: Path, images: int, rounds: int, json_file: Path | None) -> None:
    """Measure every way, print a table, and write the JSON if asked."""
    refuse_unwritable(json_file)
    if reason := available():
        raise InputError(f"the host decoder is not there: {reason}")
    with interruptible("interrupted; nothing was written"):
        report = measure_encodings(source, images, rounds)
        print_encoding(report)
        write_json(json_file, report)


def measure_encodings(source: Path, images: int, rounds: int) -> dict[str, Any]:
    """Encode in every way, decode in turn round after round; return the report."""
    squares = _squares(source, images)
    encoded = [_encode(way, squares) for way in ENCODINGS]
    size_px = squares[0].width
    crop_px = min(AugmentSettings().crop_px, size_px)
    windows: list[list[float]] = [[] for _ in encoded]
    whole: list[list[float]] = [[] for _ in encoded]
    decode = _one_thread(len(squares), size_px)
    for round_ in range(rounds + 1):
        for k, one in enumerate(encoded):
            rates = decode(one.jpegs, crop_px, round_), decode(one.jpegs, size_px, round_)
            if round_ > 0:  # the first warms up
                windows[k].append(rates[0])
                whole[k].append(rates[1])
    return {
        "schema": SCHEMA,
        "conditions": {**_conditions(source, len(squares), rounds), "size_px": size_px, "crop_px": crop_px},
        "rows": [
            _row(one, windows[k], windows[0], whole[k], whole[0], encoded[0].seconds) for k, one in enumerate(encoded)
        ],
    }


def _squares(source: Path, images: int) -> list[Image.Image]:
    """Resize images taken evenly from a source, as the converter does."""
    found, squares = sample_evenly(open_source(source), images), []
    for member in found.members["train"]:
        try:
            pixels = convert_image(
                read_member(found, member), ConvertSettings().size_px, ConvertSettings().quality
            ).pixels
        except UndecodableError:
            continue
        squares.append(Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])))
    if not squares:
        raise InputError(f"{source}: holds no image that can be decoded")
    return squares


def _encode(way: Encoding, squares: list[Image.Image]) -> Encoded:
    jpegs, began = [], time.process_time()
    for square in squares:
        buffer = io.BytesIO()
        square.save(buffer, "JPEG", **way.options)
        jpegs.append(buffer.getvalue())
    seconds = time.process_time() - began
    errors = [
        np.mean((np.asarray(Image.open(io.BytesIO(jpeg)), np.float32) - np.asarray(square, np.float32)) ** 2)
        for jpeg, square in zip(jpegs, squares, strict=True)
    ]
    return Encoded(way=way, jpegs=jpegs, seconds=seconds, psnr_db=10 * math.log10(255**2 / float(np.mean(errors))))


def _one_thread(n: int, size_px: int) -> Callable[[list[bytes], int, int], float]:
    """Return a function that decodes a batch to float32 as the stream does, and says the images/s of CPU time."""
    out_bytes = 4 * n * 3 * size_px**2
    ring, decoder = Ring(out_bytes, keep=1), Decoder(1)
    means, scale = np.full((n, 3), 120.0, np.float32), np.ones(3, np.float32)

    def decode(jpegs: list[bytes], crop_px: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        places = rng.integers(0, size_px - crop_px + 1, (n, 2), np.int32)
        out = ring.take((n, 3, crop_px, crop_px), np.float32)
        began = time.process_time()
        bad = decoder.decode(
            jpegs,
            crop_yx=places,
            mirror=rng.random(n) < 0.5,
            size=(size_px, size_px),
            crop_px=crop_px,
            out=out,
            kind="float32",
            mean=means,
            scale=scale,
            planar=True,
        )
        seconds = time.process_time() - began
        if bad:
            raise InputError(f"an image cannot be decoded: {bad[0][1]}")
        return n / seconds

    return decode


def _row(
    one: Encoded,
    windows: list[float],
    default: list[float],
    whole: list[float],
    default_whole: list[float],
    base: float,
) -> dict[str, Any]:
    n = len(one.jpegs)
    return {
        "name": one.way.name,
        "options": one.way.options,
        "bytes_per_image": round(sum(map(len, one.jpegs)) / n),
        "psnr_db": one.psnr_db,
        "encode_ms": 1000 * one.seconds / n,
        "encode_seconds_ratio": one.seconds / base,
        "images_per_s": spread(windows),
        "ratio": statistics.median(a / b for a, b in zip(windows, default, strict=True)),
        "whole_images_per_s": spread(whole),
        "whole_ratio": statistics.median(a / b for a, b in zip(whole, default_whole, strict=True)),
    }


def _conditions(source: Path, images: int, rounds: int) -> dict[str, Any]:
    return {
        "source": str(source),
        "images": images,
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "pillow": PIL.__version__,
        "encoder_libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
        "converter": dataclasses.asdict(ConvertSettings()),
        "python": platform.python_version(),
    }
