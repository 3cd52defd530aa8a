"""The C side. Nobody but `decoder.py` and `jpeg.py` calls it: they check what comes in."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from alexnet.pipeline.host.jpeg import Jpeg

_Array = npt.NDArray[Any]

def decode_rows(
    jpeg: Jpeg,
    y: int,
    x: int,
    rows: int,
    columns: int,
    reduced_by: int,
    with_filler: bool,
    max_pixels: int,
    out: _Array,
    /,
) -> tuple[str | None, bool]: ...
def truncation(jpeg: Jpeg, max_pixels: int, /) -> str | None: ...
def new_pool(threads: int, /) -> object: ...
def decode(
    pool: object,
    jpegs: Sequence[Jpeg],
    crop_yx: _Array | None,
    mirror: _Array | None,
    mean: _Array | None,
    scale: _Array | None,
    mean_image: _Array | None,
    out: _Array | None,
    height: int,
    width: int,
    crop: int,
    kind: int,
    planar: bool,
    /,
) -> list[tuple[int, str]]: ...
