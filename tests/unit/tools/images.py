"""Images built from a few bytes of description, of which some were made to do harm; and how much memory one takes.

Called as a program with the name of a bomb, it converts that and prints what was said and the memory it took.
"""

import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.tools.bench.conditions import peak_bytes
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import UndecodableError


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    """Return a smooth random image of a size."""
    small = np.random.default_rng(width).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def gradient(mode: str, side: int) -> Image.Image:
    grey = Image.linear_gradient("L").resize((side, side))
    return Image.merge(mode, [grey] * len(mode)) if len(mode) > 1 else grey


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, kind: int, depth: int, rows: bytes, *extra: bytes, packed: bytes = b"") -> bytes:
    """Return a PNG of rows, each behind a zero; `kind`: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if kind == 3 else b""
    data = chunk(b"IDAT", packed or zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + b"".join(extra) + data + chunk(b"IEND", b"")


def png(width: int, height: int, kind: int, depth: int, *extra: bytes) -> bytes:
    """Return a PNG whose rows are all alike."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    row = b"\0" + bytes(i * 7 % 251 for i in range(min(4096, (width * channels * depth + 7) // 8)))
    row = row.ljust(1 + (width * channels * depth + 7) // 8, b"\x55")
    packer, at_once = zlib.compressobj(1), max(1, (1 << 20) // len(row))
    packed = [packer.compress(row * min(at_once, height - y)) for y in range(0, height, at_once)]
    return png_of(width, height, kind, depth, b"", *extra, packed=b"".join(packed) + packer.flush())


def tiff(tags: dict[int, tuple[int, int, int | None]], data: bytes) -> bytes:
    """Return a TIFF of tags: type, count, value or None for where `data` begin."""
    place = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack("<HHII", tag, kind, count, place if value is None else value)
        for tag, (kind, count, value) in sorted(tags.items())
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + data


def tiff_of(width: int, height: int, **changed: tuple[int, int, int | None]) -> dict[int, tuple[int, int, int | None]]:
    """Return the tags of a grey TIFF of 8 bits in one strip, some of them changed: `t273=...`."""
    tags: dict[int, tuple[int, int, int | None]] = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, None),
        277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, width * height),
    }  # fmt: skip
    return tags | {int(tag[1:]): value for tag, value in changed.items()}


def ico(inner: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def gif(frame: tuple[int, int, int, int], comments: int = 0) -> bytes:
    """Return a GIF of 8x8 px whose frame lies anywhere, and has whatever size."""
    said = (b"!\xfe" + (b"\xff" + b"x" * 255) * comments + b"\0") if comments else b""
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0xF7, 0, 0) + bytes(768) + said
    return head + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x08\x02\x00\x01\x01\x00;"


def psd(resources: int) -> bytes:
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHHII", 3, 8, 8, 8, 3, 0, 12 * resources)
    return head + b"8BIM\0\1\0\0\0\0\0\0" * resources + bytes(6) + bytes(range(192))


def with_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    jpeg = saved(gradient("RGB", side), "JPEG", progressive=True)
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


ALPHAS = chunk(b"tRNS", bytes(range(256)))
SMALL = png(8, 8, 0, 8)
BOMBS: dict[str, Callable[[], bytes]] = {
    "png 1 x 2^27": lambda: png(1, 1 << 27, 0, 8),
    "png 2^27 x 1": lambda: png(1 << 27, 1, 0, 1),
    "png 1 x 9.6M": lambda: png(1, 9_600_000, 0, 8),
    "png 1 x 8M RGBA": lambda: png(1, 8_000_000, 6, 8),
    "png 1 x 8M palette with alpha": lambda: png(1, 8_000_000, 3, 8, ALPHAS),
    "png grey": lambda: png(9200, 9200, 0, 8),
    "png bits": lambda: png(9200, 9200, 0, 1),
    "png RGB": lambda: png(9200, 9200, 2, 8),
    "png palette with alpha": lambda: png(6200, 6200, 3, 8, ALPHAS),
    "png grey and alpha": lambda: png(6200, 6200, 4, 8),
    "png RGBA": lambda: png(6200, 6200, 6, 8),
    "png RGBA of 16 bits": lambda: png(6000, 6000, 6, 16),
    "png grey of 16 bits": lambda: png(5500, 5500, 0, 16),
    "png of empty chunks": lambda: SMALL[:33] + chunk(b"prVt", b"") * 1_000_000 + SMALL[33:],
    "png of text": lambda: SMALL[:33] + chunk(b"tEXt", b"k\0" + bytes(1_000_000)) * 140 + SMALL[33:],
    "tiff floats": lambda: saved(gradient("L", 4900).convert("F"), "TIFF"),
    "tiff CMYK": lambda: saved(gradient("CMYK", 5400), "TIFF"),
    "tiff integers": lambda: saved(gradient("L", 4900).convert("I"), "TIFF"),
    "tiff RGB": lambda: saved(gradient("RGB", 7000), "TIFF"),
    "tiff of a strip a row": lambda: tiff(
        tiff_of(1, 9_000_000, t273=(4, 9_000_000, None), t278=(4, 1, 1), t279=(4, 9_000_000, None)),
        struct.pack("<I", 200) * 9_000_000,
    ),
    "tiff of many bits": lambda: tiff(tiff_of(8, 8, t258=(3, 60_000_000, None)), b"\x39\x30" * 60_000_000),
    "tiff with a large tag": lambda: tiff(tiff_of(8, 8, t338=(3, 60_000_000, None)), b"\x39\x30" * 60_000_000),
    "tiff of huge strips": lambda: tiff(tiff_of(1 << 13, 1 << 13, t279=(4, 1, 0xFFFFFFFF)), bytes(100)),
    "tiff that claims 2^32 px a side": lambda: tiff(tiff_of(0xFFFFFFFF, 0xFFFFFFFF, t279=(4, 1, 100)), bytes(100)),
    "icon of 1 x 2^26": lambda: ico(png(1, 1 << 26, 0, 8)),
    "icon of 8,000 px": lambda: ico(png(8_000, 8_000, 2, 8)),
    "icon of 1 x 1M": lambda: ico(png(1, 1_000_000, 6, 8)),
    "gif beyond its canvas": lambda: gif((65_000, 65_000, 65_535, 65_535)),
    "gif of 8,000 px": lambda: gif((0, 0, 8_000, 8_000)),
    "psd of resources": lambda: psd(5_000_000),
    "jpeg of comments, CMYK": lambda: (
        (jpeg := saved(gradient("CMYK", 64), "JPEG"))[:2] + b"\xff\xfe\0\2" * 5_000_000 + jpeg[2:]
    ),
    "jpeg of 10,000 px": lambda: saved(gradient("RGB", 10_000), "JPEG"),
    "jpeg of 11,000 px, progressive": lambda: saved(gradient("RGB", 11_000), "JPEG", progressive=True),
    "jpeg of 10,000 px, progressive": lambda: saved(gradient("RGB", 10_000), "JPEG", progressive=True),
    "jpeg of 8,000 px, CMYK, progressive": lambda: saved(gradient("CMYK", 8_000), "JPEG", progressive=True),
    "jpeg of 400 scans": lambda: with_scans(9_000, 400),
    "ppm with a long comment": lambda: b"P6\n#" + b"x" * 5_000_000 + b"\n8 8 255\n" + bytes(192),
    "bmp that claims 60,000 px": lambda: (
        (bmp := saved(gradient("RGB", 8), "BMP"))[:18] + struct.pack("<ii", 60_000, -60_000) + bmp[26:]
    ),
}
"""Some are just within the bounds, and converted."""


def measured(name: str) -> tuple[int, str]:
    """Return how many bytes more a process has at most while it converts a bomb, the file included; what is said."""
    command = [sys.executable, "-m", "tests.unit.tools.images", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    more, _, said = done.stdout.partition(" ")
    return int(more), said.strip()


def _main(name: str) -> None:
    data = BOMBS[name]()
    convert_image(saved(gradient("RGB", 300), "PNG"), 256, 90)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    state = Path("/proc/self/status").read_text()
    start = int(re.findall(r"^VmRSS:\s*(\d+)", state, re.MULTILINE)[0]) << 10
    try:
        convert_image(data, 256, 90)
        said = "converted"
    except UndecodableError as error:
        said = f"refused: {error}"
    print(peak_bytes() - start + len(data), said)


if __name__ == "__main__":
    _main(sys.argv[1])
