"""`alexnet-bench encoding`: what a stored image costs to decode, for each way the converter could have encoded it.

Entropy decoding is half of the host decoder's work, so fewer or cheaper bits move its limit. The same resized squares
are encoded in each way, and decoded in turn, round after round, by one thread of the host decoder: windows as training
reads them, and whole; those with restart markers also without what lies above a window. Rates are by CPU time; what
counts is each way's ratio to the default in the same round.
"""

import dataclasses
import io
import math
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.bench.converter.encoding_table import print_encoding
from alexnet.tools.bench.converter.one_thread import OneThread, draw_windows
from alexnet.tools.bench.converter.prep import read_member, sample_evenly
from alexnet.tools.bench.converter.restart_rows import cut_rate
from alexnet.tools.bench.measuring.figures import refuse_unwritable, spread, write_json
from alexnet.tools.console import interruptible
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import UndecodableError
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Name one way to encode, and hold what Pillow's JPEG writer is told. The first of `ENCODINGS` is the default."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def _way(name: str, **options: Any) -> Encoding:
    default: dict[str, Any] = {"quality": ConvertSettings().quality, "subsampling": "4:2:0"}
    return Encoding(name=name, options={**default, **options})


DEFAULT, RESTARTS = "default", "a restart marker each MCU row"
ENCODINGS = (
    _way(DEFAULT),
    _way("optimised Huffman tables", optimize=True),
    _way("quality 85", quality=85),
    _way("quality 95", quality=95),
    _way("4:4:4", subsampling="4:4:4"),
    _way(RESTARTS, restart_marker_rows=1),
    _way("progressive", progressive=True),
)
CUT = {"the same, rows above cut out": True, "the same, cut beforehand": False}
"""Rows for the JPEGs with restart markers, less what lies above each window, and whether finding that is timed, too."""


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
    encoded = {way.name: _encode(way, squares) for way in ENCODINGS}
    n, size_px = len(squares), squares[0].width
    crop_px = min(AugmentSettings().crop_px, size_px)
    thread, restarts = OneThread(n, size_px), encoded[RESTARTS].jpegs
    windows: dict[str, list[float]] = {name: [] for name in (*encoded, *CUT)}
    whole: dict[str, list[float]] = {name: [] for name in encoded}
    for round_ in range(rounds + 1):
        drawn, all_of_it = (draw_windows(n, size_px, side, round_) for side in (crop_px, size_px))
        for name, one in encoded.items():
            windows[name].append(thread.rate(one.jpegs, drawn))
            whole[name].append(thread.rate(one.jpegs, all_of_it))
        for name, scanned in CUT.items():
            windows[name].append(cut_rate(thread, restarts, drawn, scanned=scanned))
    for rates in (*windows.values(), *whole.values()):
        del rates[0]  # the first round warms up
    rows = [_row(name, encoded.get(name, encoded[RESTARTS]), encoded[DEFAULT], windows, whole) for name in windows]
    return {
        "schema": SCHEMA,
        "conditions": {**_conditions(source, n, rounds), "size_px": size_px, "crop_px": crop_px},
        "rows": rows,
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


def _row(
    name: str, one: Encoded, default: Encoded, windows: dict[str, list[float]], whole: dict[str, list[float]]
) -> dict[str, Any]:
    """Return a row; ratios are to the default in the same round. Where windows are cut, nothing is decoded whole."""
    n = len(one.jpegs)
    return {
        "name": name,
        "options": one.way.options,
        "bytes_per_image": round(sum(map(len, one.jpegs)) / n),
        "psnr_db": one.psnr_db,
        "encode_ms": 1000 * one.seconds / n,
        "encode_seconds_ratio": one.seconds / default.seconds,
        "images_per_s": spread(windows[name]),
        "ratio": _ratio(windows[name], windows[DEFAULT]),
        "whole_images_per_s": spread(whole[name]) if name in whole else None,
        "whole_ratio": _ratio(whole[name], whole[DEFAULT]) if name in whole else None,
    }


def _ratio(rates: list[float], default: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(rates, default, strict=True))


def _conditions(source: Path, images: int, rounds: int) -> dict[str, Any]:
    return {
        "source": str(source),
        "images": images,
        "rounds": rounds,
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "pillow": PIL.__version__,
        "encoder_libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
        "converter": dataclasses.asdict(ConvertSettings()),
        "python": platform.python_version(),
    }
