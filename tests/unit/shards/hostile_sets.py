"""Data sets that somebody crafted: every field of every file as what it must not be, and files that are none."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Craft = Callable[[Path], object]

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

_NPY = b"\x93NUMPY\x01\x00"
_HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"


def crafted() -> Iterator[tuple[str, Craft]]:
    """Yield names of crafted data sets and what makes each of a copy of a sound one."""
    yield from _manifests()
    yield from _rejects()
    yield from _indices()
    yield from _mean_images()
    yield from _lists()
    yield from _no_files()


def _manifests() -> Iterator[tuple[str, Craft]]:
    for path in _paths():
        name = ".".join(map(str, path))
        for kind, text in TEXTS.items():
            yield f"manifest {name} {kind}", with_field(path, text)
        yield f"manifest {name} missing", _without_field(path)
    for text in ("", "[]", "{}", "null", "{", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "schema": 2}', "\x00\xff"):
        yield f"manifest {text[:20]!r}", with_bytes("manifest.json", text.encode("latin-1"))


def _paths() -> list[tuple[str | int, ...]]:
    """Return the way to each field of a manifest; of what is there several times, to the first."""
    names = (
        "schema settings source versions classes counts shards files colour colour_units settings.size_px "
        "settings.quality settings.shard_images settings.channels settings.seed settings.resample source.kind "
        "source.digest versions.pillow classes.0 classes.0.wnid classes.0.words counts.train counts.train.input "
        "counts.train.written counts.train.rejected counts.val counts.val.input counts.val.written counts.val.rejected "
        "shards.0 shards.0.split shards.0.file shards.0.images shards.0.bytes shards.0.sha256 files.0 files.0.file "
        "files.0.bytes files.0.sha256 colour.mean colour.mean.0 colour.covariance colour.covariance.0 "
        "colour.covariance.0.0 colour.eigenvalues colour.eigenvalues.0 colour.eigenvectors colour.eigenvectors.0 "
        "colour.eigenvectors.0.0 colour.standard_deviations colour.standard_deviations.0"
    )
    return [tuple(int(step) if step.isdigit() else step for step in name.split(".")) for name in names.split()]


def with_field(path: tuple[str | int, ...], text: str) -> Craft:
    def craft(root: Path) -> None:
        fields: Any = json.loads((root / "manifest.json").read_text())
        _holder(fields, path)[path[-1]] = _PLACE
        whole = json.dumps(fields, indent=1).replace(f'"{_PLACE}"', text)
        (root / "manifest.json").write_text(whole + "\n")

    return craft


def _without_field(path: tuple[str | int, ...]) -> Craft:
    def craft(root: Path) -> None:
        fields: Any = json.loads((root / "manifest.json").read_text())
        holder = _holder(fields, path)
        holder.pop(path[-1], None) if isinstance(holder, dict) else holder.pop(path[-1])
        (root / "manifest.json").write_text(json.dumps(fields))

    return craft


def _holder(fields: Any, path: tuple[str | int, ...]) -> Any:
    for step in path[:-1]:
        fields = fields[step]
    return fields


def with_bytes(file: str, content: bytes) -> Craft:
    return lambda root: (root / file).write_bytes(content)


def _rejects() -> Iterator[tuple[str, Craft]]:
    sound = {
        "split": "train",
        "place": 1,
        "source": "a.tar",
        "member": "b",
        "offset": 0,
        "bytes": 1,
        "sha256": None,
        "reason": "c",
    }
    for name in sound:
        for kind, text in TEXTS.items():
            line = json.dumps({**sound, name: _PLACE}).replace(f'"{_PLACE}"', text)
            yield f"reject {name} {kind}", with_bytes("rejected.jsonl", line.encode() + b"\n")
    for content in (b"\n", b"[]", b"\xff\xfe", b"[" * 1_000_000, b"{}\n" * 1000, b"x" * 3_000_000):
        yield f"rejects {content[:10]!r}", with_bytes("rejected.jsonl", content)


def _indices() -> Iterator[tuple[str, Craft]]:
    for field in ("offset", "length", "shard", "label", "place"):
        for row in (0, 5, -1):
            for value in (-(2**31), -1, 0, 1, 511, 2**31 - 1, *((2**63 - 1, -(2**63)) if field == "offset" else ())):
                yield f"index {field} {row} {value}", _with_row(field, row, value)
    yield from _headers("index.npy", 31, "(31,)", "[('offset', '<i8'), ('length', '<i4'), ('shard', '<i4')]", 24)
    yield "index all one sample", _with_all_rows


def _with_row(field: str, row: int, value: int) -> Craft:
    def craft(root: Path) -> None:
        rows = np.load(root / "index.npy")
        rows[field][row] = value
        np.save(root / "index.npy", rows)

    return craft


def _with_all_rows(root: Path) -> None:
    rows = np.load(root / "index.npy")
    rows[:] = rows[0]
    np.save(root / "index.npy", rows)


def _mean_images() -> Iterator[tuple[str, Craft]]:
    for value in (np.nan, np.inf, -np.inf, -1.0, 256.0, 3e38):
        yield f"mean image {value}", _with_pixel(value)
    for shape in ((40, 40), (40, 40, 1), (39, 40, 3), (0, 40, 3), (4800,), (40, 40, 3, 1), ()):
        yield (
            f"mean image {shape}",
            lambda root, shape=shape: np.save(  # type: ignore[misc]
                root / "mean_image.npy", np.zeros(shape, np.float32)
            ),
        )
    for dtype in ("f8", "f2", "u1", "c8", ">f4", "S4", "O"):
        yield (
            f"mean image {dtype}",
            lambda root, dtype=dtype: np.save(  # type: ignore[misc]
                root / "mean_image.npy", np.zeros((40, 40, 3), dtype)
            ),
        )
    yield from _headers("mean_image.npy", 4800, "(40, 40, 3)", "'<f4'", 4)


def _with_pixel(value: float) -> Craft:
    def craft(root: Path) -> None:
        image = np.load(root / "mean_image.npy")
        image[3, 4, 1] = value
        np.save(root / "mean_image.npy", image)

    return craft


def _headers(file: str, count: int, shape: str, descr: str, itemsize: int) -> Iterator[tuple[str, Craft]]:
    """Yield NumPy files whose headers NumPy would evaluate, or believe."""
    data = bytes(count * itemsize)
    odd = {
        "fortran": _HEADER.format(descr, "True", shape),
        "huge": _HEADER.format(descr, "False", "(1000000000000,)"),
        "many": _HEADER.format(descr, "False", "(1000000, 1000000, 1000000)"),
        "negative": _HEADER.format(descr, "False", "(-1,)"),
        "digits": _HEADER.format(descr, "False", f"({'9' * 6000},)"),
        "infinite": _HEADER.format(descr, "False", "(1e400,)"),
        "objects": _HEADER.format("'|O'", "False", shape),
        "deep": "(" * 60_000,
        "deep list": _HEADER.format("[" * 9000 + "]" * 9000, "False", shape),
        "code": "__import__('os').abort()",
        "not closed": "{'descr': ",
        "nothing": "",
    }
    for kind, header in odd.items():
        text = header.encode() + b"\n"
        yield f"{file} {kind}", with_bytes(file, _NPY + len(text).to_bytes(2, "little") + text + data)
    for version in (b"\x02\x00", b"\x03\x00", b"\xff\xff"):
        yield f"{file} {version!r}", with_bytes(file, _NPY[:6] + version + b"\xff\xff\xff\xff" + data)
    yield f"{file} magic alone", with_bytes(file, _NPY)
    yield f"{file} zip", with_bytes(file, b"PK\x03\x04" + data)
    yield f"{file} pickle", with_bytes(file, b"\x80\x04cos\nabort\n(tR.")


def _lists() -> Iterator[tuple[str, Craft]]:
    digits = b"0" * 64
    for content in (b"", b"\n" * 100_000, b"\xff" * 1000, digits, digits + b"  ../x\n", digits + b"  /dev/zero\n"):
        yield f"list {content[60:80]!r}", with_bytes("SHA256SUMS", content)


def _no_files() -> Iterator[tuple[str, Craft]]:
    """Yield files that are no longer any, or that are links to what is none."""
    names = ("manifest.json", "index.npy", "mean_image.npy", "rejected.jsonl", "SHA256SUMS", "train/000000.tar")
    for name in (*names, "train/000000.idx", "train"):
        for kind, make in _INSTEAD.items():
            yield f"{name} is a {kind}", _instead(name, make)


_INSTEAD: dict[str, Craft] = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a file of the system": lambda path: path.symlink_to("/etc/passwd"),
    "gap": lambda path: None,
    "empty file": lambda path: path.touch(),
}


def _instead(name: str, make: Craft) -> Craft:
    def craft(root: Path) -> None:
        (root / name).rename(root.parent / "away")
        make(root / name)

    return craft


def put_back(sound: Path, root: Path) -> None:
    """Make a crafted copy sound again."""
    shutil.rmtree(root)
    away = root.parent / "away"
    if away.is_dir():
        shutil.rmtree(away)
    away.unlink(missing_ok=True)
    shutil.copytree(sound, root)
