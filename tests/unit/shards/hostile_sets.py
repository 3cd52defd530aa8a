"""Data sets that somebody crafted: every field of every file as what it must not be, and files that are none."""

import itertools
import json
import os
import shutil
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.augment import describe_lighting
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, Split, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify.check import verify
from alexnet.tools.convert.kept import changed_rejects, in_words, rejects_of
from alexnet.tools.report.survey import survey
from alexnet.tools.run.data_record import DataRecord
from alexnet.tools.stored_jpeg import decode_stored

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
            yield f"manifest {name} {kind}", _with_field(path, text)
        yield f"manifest {name} missing", _without_field(path)
    for text in ("", "[]", "{}", "null", "{", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "schema": 2}', "\x00\xff"):
        yield f"manifest {text[:20]!r}", _with_bytes("manifest.json", text.encode("latin-1"))


def _paths() -> list[tuple[str | int, ...]]:
    """Return the way to each field of a manifest; of what is there several times, to the first."""
    record: list[tuple[str, ...]] = [("file",), ("bytes",), ("sha256",)]
    return [
        *[(name,) for name in ("schema", "settings", "source", "versions", "classes", "counts", "shards", "files")],
        *[("settings", name) for name in ("size_px", "quality", "shard_images", "channels", "seed", "resample")],
        *[("source", "kind"), ("source", "digest"), ("versions", "pillow")],
        *[("classes", k) for k in range(1)],
        *[("classes", 0, "wnid"), ("classes", 0, "words"), ("counts", "train"), ("counts", "val")],
        *[("counts", split, name) for split in ("train", "val") for name in ("input", "written", "rejected")],
        *[("shards", 0, *rest) for rest in (*record, ("split",), ("images",), ())],
        *[("files", 0, *rest) for rest in (*record, ())],
        *[("colour",), ("colour_units",), ("colour", "covariance", 0), ("colour", "covariance", 0, 0)],
        *[("colour", name) for name in ("covariance", "eigenvectors", "mean", "eigenvalues", "standard_deviations")],
        *[("colour", name, 0) for name in ("eigenvectors", "mean", "eigenvalues", "standard_deviations")],
    ]


def _with_field(path: tuple[str | int, ...], text: str) -> Craft:
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


def _with_bytes(file: str, content: bytes) -> Craft:
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
            yield f"reject {name} {kind}", _with_bytes("rejected.jsonl", line.encode() + b"\n")
    for content in (b"\n", b"[]", b"\xff\xfe", b"[" * 1_000_000, b"{}\n" * 1000, b"x" * 3_000_000):
        yield f"rejects {content[:10]!r}", _with_bytes("rejected.jsonl", content)


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
        yield f"{file} {kind}", _with_bytes(file, _NPY + len(text).to_bytes(2, "little") + text + data)
    for version in (b"\x02\x00", b"\x03\x00", b"\xff\xff"):
        yield f"{file} {version!r}", _with_bytes(file, _NPY[:6] + version + b"\xff\xff\xff\xff" + data)
    yield f"{file} magic alone", _with_bytes(file, _NPY)
    yield f"{file} zip", _with_bytes(file, b"PK\x03\x04" + data)
    yield f"{file} pickle", _with_bytes(file, b"\x80\x04cos\nabort\n(tR.")


def _lists() -> Iterator[tuple[str, Craft]]:
    digits = b"0" * 64
    for content in (b"", b"\n" * 100_000, b"\xff" * 1000, digits, digits + b"  ../x\n", digits + b"  /dev/zero\n"):
        yield f"list {content[60:80]!r}", _with_bytes("SHA256SUMS", content)


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


def large() -> Iterator[tuple[str, Craft]]:
    """Yield data sets of which a careless reader takes gigabytes."""
    for name, unit, path in (
        ("classes", '{"wnid":"ab","words":"cd"}', ("classes",)),
        ("figures", "1.5", ("colour", "mean")),
        ("lists", "[]", ("colour", "covariance")),
        ("words", '{"wnid":"ab","words":"' + "x" * 1000 + '"}', ("classes",)),
        ("shards", '{"split":"val","file":"","images":0,"bytes":0,"sha256":"' + "0" * 64 + '"}', ("shards",)),
        ("nothing", "[]", ("unknown",)),
    ):
        yield f"much of {name}", _with_field(path, "[" + ",".join([unit] * (33_000_000 // (len(unit) + 1))) + "]")
    settings = ",".join(f'"{k:x}":0' for k in range(2_900_000))
    yield "many settings", _with_field(("settings",), "{" + settings + "}")
    classes = ",".join(f'{{"wnid":"{k:07}","words":""}}' for k in range(1 << 18))
    yield "many classes", _with_field(("classes",), f"[{classes}]")
    yield "a GB of JSON", lambda root: os.truncate(root / "manifest.json", 1 << 30)
    for name in ("SHA256SUMS", "rejected.jsonl", "train/000000.idx", "index.npy", "mean_image.npy"):
        yield f"gigabytes of {name}", lambda root, name=name: os.truncate(root / name, 1 << 32)  # type: ignore[misc]
    yield "empty lines", _with_bytes("SHA256SUMS", b"\n" * 60_000_000)
    yield "one long line", _with_bytes("rejected.jsonl", b"[" * 60_000_000)
    yield "many images", _many_images
    yield "a long image", _long_image
    for kind in (b"L", b"K", b"x", b"g", b"S", b"D"):
        yield f"a long header {kind!r}", _long_header(kind)
    yield "large squares", _with_field(("settings", "size_px"), "4096")


def _many_images(root: Path) -> None:
    """Say that there are 100 million places, which the index does not have."""
    fields: Any = json.loads((root / "manifest.json").read_text())
    fields["counts"]["train"]["input"] += 90_000_000
    fields["counts"]["train"]["rejected"] += 90_000_000
    fields["settings"]["shard_images"] = 31_000_000
    (root / "manifest.json").write_text(json.dumps(fields))


def _long_image(root: Path) -> None:
    """Have the first sample reach over 2 GB of nothing."""
    fields: Any = json.loads((root / "manifest.json").read_text())
    os.truncate(root / "train/000000.tar", 1 << 32)
    fields["shards"][0]["bytes"] = 1 << 32
    (root / "manifest.json").write_text(json.dumps(fields))
    rows = np.load(root / "index.npy")
    rows["offset"][:10] = 512 + np.arange(10) * 3000
    rows["offset"][9] = 30_000
    rows["length"][9] = 2**31 - 1
    np.save(root / "index.npy", rows)


def _long_header(kind: bytes) -> Craft:
    """Begin a shard with a header that announces 3 GiB of name, which are there."""

    def craft(root: Path) -> None:
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = kind, 3 << 30
        (root / "train/000000.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT))
        os.truncate(root / "train/000000.tar", (3 << 30) + 10240)

    return craft


# What a reader does with them


def faults_of(root: Path, *, at_length: bool = False) -> Iterator[str]:
    """Do all that readers do with a data set; yield what did not end well, but for refusals in one line."""
    ways: dict[str, Callable[[], object]] = {
        "manifest": lambda: _use_manifest(read_manifest(root)),
        "train": lambda: _read_all(root, "train"),
        "val": lambda: _read_all(root, "val"),
        "stream": lambda: stream(root, steps=None if at_length else 1),
        "verify": lambda: verify(root, decode=decode_stored if at_length else None),
        "rejects": lambda: [in_words([entry]) for entry in changed_rejects(rejects_of(root), root)],
    }
    if at_length:
        ways["show"] = lambda: survey(root, 4)
    for name, way in ways.items():
        try:
            way()
        except InputError as error:
            if "\n" in str(error):
                yield f"{name}: in several lines: {error}"
        except Exception:
            yield f"{name}: {traceback.format_exc()}"


def _use_manifest(manifest: Manifest) -> None:
    """Have all that is done with a manifest be done."""
    assert read_manifest_of(manifest.to_json()) == manifest
    manifest.digest()
    record = DataRecord.of(manifest)
    assert DataRecord.from_json(record.as_json()) == record
    describe_lighting(AugmentSettings(), manifest.colour)
    assert all(value >= 0 for value in manifest.colour.channel_standard_deviations)


def read_manifest_of(text: str) -> Manifest:
    """Read a manifest from its text alone."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_text(text)
        return read_manifest(Path(folder))


def _read_all(root: Path, split: Split) -> None:
    reader = SplitReader(root, split)
    for sample_id in range(min(len(reader), 40)):
        reader.error(sample_id, str(len(reader.jpeg(sample_id))))
    reader.mean_image()


def stream(root: Path, steps: int | None = 1, **options: Any) -> list[tuple[Any, Any]]:
    """Return the first batches of the training split, or all, in order and not augmented."""
    augmentation = AugmentSettings(crop_px=32, mean="image")
    given: dict[str, Any] = {"batch_images": 8, "augment": False, "drop_last": False, **options}
    with ImageStream(root / "train", rank=0, ranks=1, threads=1, augmentation=augmentation, **given) as batches:
        return [(images.clone(), labels.clone()) for images, labels in itertools.islice(batches, steps)]


def put_back(sound: Path, root: Path) -> None:
    """Make a crafted copy sound again."""
    shutil.rmtree(root)
    away = root.parent / "away"
    if away.is_dir():
        shutil.rmtree(away)
    away.unlink(missing_ok=True)
    shutil.copytree(sound, root)
