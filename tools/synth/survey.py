"""Say what is drawn and what it costs: sizes of pictures and files, colours, speed, and what tells a class.

    python -m alexnet.tools.synth.survey [IMAGES]

Times are this process's CPU time, drawing and encoding in turn; the median of five rounds.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.synth.classes import MAX_CLASSES, traits_of
from alexnet.tools.synth.photograph import as_image, draw_photograph, encode_photograph
from alexnet.tools.synth.picture import draw_picture
from alexnet.tools.synth.probe import accuracy, colours, edges, thumbnail
from alexnet.tools.synth.randomness import Draws

_ROUNDS = 5
_PHOTOGRAPHS = 300  # timed at most: decoded, one takes a megabyte
_CLASSES, _TRAIN_IMAGES, _VAL_IMAGES = 10, 100, 50


def survey(images: int) -> Iterable[str]:
    """Yield what is found, a line each, with mean, standard deviation and percentiles 1, 10, 50, 90 and 99."""
    photographs = [encode_photograph(traits_of(i % MAX_CLASSES), Draws(f"survey {i}")) for i in range(images)]
    sizes = [Image.open(io.BytesIO(data)).size for data in photographs]
    converted = [len(convert_image(data, 256, ConvertSettings().quality).jpeg) for data in photographs]
    squares = [_square(i) for i in range(images)]
    sums = ColourSums(256)
    for square in squares:
        sums.add(np.asarray(square))
    yield _line("width of a photograph, px", [width for width, _ in sizes])
    yield _line("height, px", [height for _, height in sizes])
    yield _line("file, kB", [len(data) / 1e3 for data in photographs])
    yield _line("256 px JPEG made of it, kB", [size / 1e3 for size in converted])
    yield _line("256 px JPEG drawn directly, kB", [len(_encode(square)) / 1e3 for square in squares])
    colour = statistics_of(sums)
    for name, row in (("mean RGB", colour.mean), ("deviations along the axes", colour.standard_deviations)):
        yield f"{name}: {', '.join(f'{v:.1f}' for v in row)}"
    yield from _speeds(squares)
    for features in (colours, thumbnail, edges):
        share = accuracy(features, _CLASSES, _TRAIN_IMAGES, _VAL_IMAGES)
        yield f"class from {features.__name__} alone: {share:.1%} right (chance {1 / _CLASSES:.0%})"


def _speeds(squares: list[Image.Image]) -> Iterable[str]:
    """Yield what drawing and encoding cost, for squares and photographs."""
    n = len(squares)
    yield _speed("a 256 px square", n, lambda i: _square(i + n), lambda i: _encode(squares[i]))
    some = min(n, _PHOTOGRAPHS)
    photographs = [_photograph(i) for i in range(some)]
    yield _speed("a photograph", some, _photograph, lambda i: _encode(*photographs[i]))


def _speed(name: str, times: int, draw: Callable[[int], object], encode: Callable[[int], object]) -> str:
    rounds = [(_seconds(draw, times), _seconds(encode, times)) for _ in range(_ROUNDS)]
    drawing, encoding = (statistics.median(column) for column in zip(*rounds, strict=True))
    return (
        f"{name}: drawing {drawing * 1e3:.3f} ms, encoding {encoding * 1e3:.3f} ms; a core does both for "
        f"{1 / (drawing + encoding):,.0f} images/s, and encoding alone for {1 / encoding:,.0f}"
    )


def _square(number: int) -> Image.Image:
    return as_image(draw_picture(traits_of(number % MAX_CLASSES), Draws(f"square {number}")))


def _photograph(number: int) -> tuple[Image.Image, int]:
    return draw_photograph(traits_of(number % MAX_CLASSES), Draws(f"photograph {number}"))


def _encode(image: Image.Image, quality: int = ConvertSettings().quality) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    return encoded.getvalue()


def _seconds(work: Callable[[int], object], times: int) -> float:
    """Return the CPU seconds of one of so many calls."""
    started = time.process_time()
    for i in range(times):
        work(i)
    return (time.process_time() - started) / times


def _line(name: str, values: list[float] | list[int]) -> str:
    places = ", ".join(f"{v:,.1f}" for v in np.percentile(values, [1, 10, 50, 90, 99]))
    return f"{name}: {np.mean(values):,.1f} +- {np.std(values):,.1f} ({places})"


if __name__ == "__main__":
    keep_freed_memory()
    for line in survey(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
