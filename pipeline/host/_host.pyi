"""The C side. Nobody but `decoder.py` and `jpeg.py` calls it: they check what comes in."""

from collections.abc import Sequence

from typing_extensions import Buffer

def read_header(jpeg: Buffer, /) -> tuple[int, int, int, str, bool] | str: ...
def decode_rows(
    jpeg: Buffer, y: int, x: int, rows: int, columns: int, max_pixels: int, out: Buffer, /
) -> str | None: ...

class Pool:
    def __init__(self, threads: int, /) -> None: ...
    def decode(
        self,
        jpegs: Sequence[Buffer],
        crop_yx: Buffer,
        mirror: Buffer,
        mean: Buffer | None,
        scale: Buffer | None,
        mean_image: Buffer | None,
        out: Buffer,
        height: int,
        width: int,
        crop: int,
        kind: int,
        planar: bool,
        /,
    ) -> list[tuple[int, str]]: ...
    def decode_planes(
        self, jpegs: Sequence[Buffer], out: Buffer, height: int, width: int, /
    ) -> list[tuple[int, str]]: ...
    def close(self) -> None: ...
