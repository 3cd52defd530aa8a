"""Data sets that somebody crafted: every field as what it must not be, files that are none, large ones."""

import functools
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.shards.forging import TAR, Forge, always, edit_array, edit_bytes, edit_field, edit_row, holder_of

TEXTS = {
    "null": "null",
    "minus": "-1",
    "zero": "0",
    "fraction": "1.5",
    "whole fraction": "10.0",
    "infinite": "1e400",
    "NaN": "NaN",
    "2^31": str(2**31),
    "2^63": str(2**63),
    "2^70": str(2**70),
    "5,000 digits": "1" * 5000,
    "true": "true",
    "no text": '""',
    "above": '"../x"',
    "absolute": '"/etc/passwd"',
    "device": '"/dev/zero"',
    "NUL": '"a\\u0000b"',
    "escape": '"\\u001b[31m"',
    "surrogate": '"\\udc80"',
    "long": f'"{"x" * 1_000_000}"',
    "list": "[]",
    "object": "{}",
    "nested list": "[[[]]]",
    "deep list": "[" * 10_000 + "]" * 10_000,
    "deeper list": "[" * 400 + "]" * 400,
    "deep object": '{"a":' * 10_000 + "1" + "}" * 10_000,
}
_PLACE = "what stands here is put in afterwards"


def with_field(path: tuple[str | int, ...], text: str) -> Forge:
    """Put a text, whatever it is, where the manifest has a value."""

    def forge(root: Path) -> None:
        edit_field(*path, change=lambda _: _PLACE)(root)
        edit_bytes("manifest.json", lambda whole: whole.replace(f'"{_PLACE}"'.encode(), text.encode()))(root)

    return forge


def with_bytes(file: str, content: bytes) -> Forge:
    return edit_bytes(file, lambda _: content)


def crafted(sound: Path) -> Iterator[tuple[str, Forge]]:
    """Yield names of crafted data sets and what makes each of a copy of a sound one."""
    yield from _manifests(json.loads((sound / "manifest.json").read_text()))
    yield from _rejects()
    yield from _arrays()
    zeros = b"0" * 64
    for content in (b"", b"\n" * 100_000, b"\xff" * 1000, zeros, zeros + b"  ../x\n", zeros + b"  /dev/zero\n"):
        yield f"list {content[60:80]!r}", with_bytes("SHA256SUMS", content)
    names = ("manifest.json", "index.npy", "mean_image.npy", "rejected.jsonl", "SHA256SUMS", TAR, "train/000000.idx")
    for name, kind in itertools.product((*names, "train"), _INSTEAD):
        yield f"{name} is a {kind}", _instead(name, _INSTEAD[kind])


def _manifests(fields: dict[str, Any]) -> Iterator[tuple[str, Forge]]:
    for path in _paths(fields):
        name = ".".join(map(str, path))
        yield from ((f"manifest {name} {kind}", with_field(path, text)) for kind, text in TEXTS.items())
        yield f"manifest {name} missing", _without_field(path)
    for text in ("", "[]", "{}", "null", "{", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "schema": 2}', "\x00\xff"):
        yield f"manifest {text[:20]!r}", with_bytes("manifest.json", text.encode("latin-1"))


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to each field below a value; of a list, to the first alone."""
    if path:
        yield path
    for step in value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ():
        yield from _paths(value[step], (*path, step))


def _without_field(path: tuple[str | int, ...]) -> Forge:
    def forge(root: Path) -> None:
        fields: Any = json.loads((root / "manifest.json").read_text())
        holder_of(fields, path).pop(path[-1])
        (root / "manifest.json").write_text(json.dumps(fields))

    return forge


def _rejects() -> Iterator[tuple[str, Forge]]:
    sound = {"split": "train", "place": 1, "source": "a.tar", "member": "b", "offset": 0, "bytes": 1, "sha256": None}
    for name, kind in itertools.product((*sound, "reason"), TEXTS):
        line = json.dumps({**sound, "reason": "c", name: _PLACE}).replace(f'"{_PLACE}"', TEXTS[kind])
        yield f"reject {name} {kind}", with_bytes("rejected.jsonl", line.encode() + b"\n")
    for content in (b"\n", b"[]", b"\xff\xfe", b"[" * 1_000_000, b"{}\n" * 1000, b"x" * 3_000_000):
        yield f"rejects {content[:10]!r}", with_bytes("rejected.jsonl", content)


def _arrays() -> Iterator[tuple[str, Forge]]:
    for field, row in itertools.product(("offset", "length", "shard", "label", "place"), (0, 5, -1)):
        for value in (-(2**31), -1, 0, 1, 511, 2**31 - 1, *((2**63 - 1, -(2**63)) if field == "offset" else ())):
            yield f"index {field} {row} {value}", edit_row(field, row, always(value))
    yield "index all one sample", edit_array("index.npy", lambda rows: rows[np.zeros(len(rows), int)])
    for value in (np.nan, np.inf, -np.inf, -1.0, 256.0, 3e38):
        yield f"mean image {value}", edit_array("mean_image.npy", functools.partial(_with_pixel, value))
    for shape in ((40, 40), (40, 40, 1), (39, 40, 3), (0, 40, 3), (4800,), (40, 40, 3, 1), ()):
        yield f"mean image {shape}", edit_array("mean_image.npy", always(np.zeros(shape, "f4")))
    for dtype in ("f8", "f2", "u1", "c8", ">f4", "S4", "O"):
        yield f"mean image {dtype}", edit_array("mean_image.npy", always(np.zeros((40, 40, 3), dtype)))
    yield from _headers("mean_image.npy", "(40, 40, 3)", "'<f4'", bytes(4 * 4800))
    yield from _headers(
        "index.npy", "(31,)", "[('offset', '<i8'), ('length', '<i4'), ('shard', '<i4')]", bytes(24 * 31)
    )


def _with_pixel(value: float, image: Any) -> None:
    image[3, 4, 1] = value


def _headers(file: str, shape: str, descr: str, data: bytes) -> Iterator[tuple[str, Forge]]:
    """Yield NumPy files whose headers NumPy would evaluate, or believe."""
    magic, header = b"\x93NUMPY\x01\x00", "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
    wrong_shapes = ("(1000000000000,)", "(1000000, 1000000, 1000000)", "(-1,)", f"({'9' * 6000},)", "(1e400,)")
    odd = [header.format(descr, "False", wrong) for wrong in wrong_shapes]
    odd += [header.format(descr, "True", shape), header.format("'|O'", "False", shape)]
    odd += [header.format("[" * 9000 + "]" * 9000, "False", shape), "(" * 60_000, "{'descr': ", ""]
    odd += ["__import__('os').abort()"]
    for text in (text.encode() + b"\n" for text in odd):
        yield f"{file} {text[:99]!r}", with_bytes(file, magic + len(text).to_bytes(2, "little") + text + data)
    for version in (b"\x02\x00", b"\x03\x00", b"\xff\xff"):
        yield f"{file} {version!r}", with_bytes(file, magic[:6] + version + b"\xff\xff\xff\xff" + data)
    for content in (magic, b"PK\x03\x04" + data, b"\x80\x04cos\nabort\n(tR."):
        yield f"{file} {content[:9]!r}", with_bytes(file, content)


_INSTEAD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a file of the system": lambda path: path.symlink_to("/etc/passwd"),
    "gap": lambda path: None,
    "empty file": lambda path: path.touch(),
}


def _instead(name: str, make: Callable[[Path], object]) -> Forge:
    """Make files that are no longer any, or that are links to what is none."""

    def forge(root: Path) -> None:
        (root / name).rename(root.parent / "away")
        make(root / name)

    return forge


# Data sets of which a careless reader takes gigabytes, or all day


def large() -> Iterator[tuple[str, Forge]]:
    """Yield names of such data sets and what makes each of a copy of a sound one."""
    for name, unit, *path in (
        ("classes", '{"wnid":"ab","words":"cd"}', "classes"),
        ("words", '{"wnid":"ab","words":"' + "x" * 1000 + '"}', "classes"),
        ("figures", "1.5", "colour", "mean"),
        ("lists", "[]", "colour", "covariance"),
        ("shards", '{"split":"val","file":"","images":0,"bytes":0,"sha256":"' + "0" * 64 + '"}', "shards"),
        ("nothing", "[]", "unknown"),
    ):
        yield f"much of {name}", functools.partial(_put_many, tuple(path), unit)
    yield "many settings", lambda root: with_field(("settings",), _object(f'"{k:x}":0' for k in range(2_900_000)))(root)
    yield "many classes", _many_classes
    yield "a GB of JSON", _truncated("manifest.json", 1 << 30)
    for name in ("SHA256SUMS", "rejected.jsonl", "train/000000.idx", "index.npy", "mean_image.npy"):
        yield f"gigabytes of {name}", _truncated(name, 1 << 32)
    yield "empty lines", lambda root: (root / "SHA256SUMS").write_bytes(b"\n" * 60_000_000)
    yield "one long line", lambda root: (root / "rejected.jsonl").write_bytes(b"[" * 60_000_000)
    yield "many images", _many_images
    yield "a long image", _long_image
    for kind in (b"L", b"K", b"x", b"g", b"S", b"D"):
        yield f"a long header {kind!r}", functools.partial(_long_header, kind)
    yield "large squares", with_field(("settings", "size_px"), "4096")


def _truncated(file: str, size: int) -> Forge:
    return lambda root: os.truncate(root / file, size)


def _object(members: Iterator[str]) -> str:
    return "{" + ",".join(members) + "}"


def _put_many(path: tuple[str, ...], unit: str, root: Path) -> None:
    with_field(path, "[" + ",".join([unit] * (33_000_000 // (len(unit) + 1))) + "]")(root)


def _many_classes(root: Path) -> None:
    """Have as many classes as a manifest may have, none of which is wrong."""
    with_field(("classes",), "[" + ",".join(f'{{"wnid":"{k:07}","words":""}}' for k in range(1 << 18)) + "]")(root)


def _many_images(root: Path) -> None:
    """Say that there are 100 million places, which the index does not have."""
    for name in ("input", "rejected"):
        edit_field("counts", "train", name, change=lambda count: count + 90_000_000)(root)
    edit_field("settings", "shard_images", change=lambda _: 31_000_000)(root)


def _long_image(root: Path) -> None:
    """Have the first sample reach over 2 GB of nothing."""
    os.truncate(root / TAR, 1 << 32)
    edit_field("shards", 0, "bytes", change=lambda _: 1 << 32)(root)
    rows = np.load(root / "index.npy")
    rows["offset"][:10] = 512 + np.arange(10) * 3000
    rows["offset"][9], rows["length"][9] = 30_000, 2**31 - 1
    np.save(root / "index.npy", rows)


def _long_header(kind: bytes, root: Path) -> None:
    """Begin a shard with a header that announces 3 GiB of name, which are there."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, 3 << 30
    (root / TAR).write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(root / TAR, (3 << 30) + 10240)
