"""Data sets of which a careless reader takes gigabytes, or all day."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.shards.hostile_sets import Craft, with_bytes, with_field


def large() -> Iterator[tuple[str, Craft]]:
    """Yield names of such data sets and what makes each of a copy of a sound one."""
    for name, unit, *path in (
        ("classes", '{"wnid":"ab","words":"cd"}', "classes"),
        ("words", '{"wnid":"ab","words":"' + "x" * 1000 + '"}', "classes"),
        ("figures", "1.5", "colour", "mean"),
        ("lists", "[]", "colour", "covariance"),
        ("shards", '{"split":"val","file":"","images":0,"bytes":0,"sha256":"' + "0" * 64 + '"}', "shards"),
        ("nothing", "[]", "unknown"),
    ):
        yield f"much of {name}", _much(tuple(path), unit)
    yield "many settings", _many_settings
    yield "many classes", _many_classes
    yield "a GB of JSON", lambda root: os.truncate(root / "manifest.json", 1 << 30)
    for name in ("SHA256SUMS", "rejected.jsonl", "train/000000.idx", "index.npy", "mean_image.npy"):
        yield f"gigabytes of {name}", lambda root, name=name: os.truncate(root / name, 1 << 32)  # type: ignore[misc]
    yield "empty lines", with_bytes("SHA256SUMS", b"\n" * 60_000_000)
    yield "one long line", with_bytes("rejected.jsonl", b"[" * 60_000_000)
    yield "many images", _many_images
    yield "a long image", _long_image
    for kind in (b"L", b"K", b"x", b"g", b"S", b"D"):
        yield f"a long header {kind!r}", _long_header(kind)
    yield "large squares", with_field(("settings", "size_px"), "4096")


def _much(path: tuple[str, ...], unit: str) -> Craft:
    return lambda root: with_field(path, "[" + ",".join([unit] * (33_000_000 // (len(unit) + 1))) + "]")(root)


def _many_settings(root: Path) -> None:
    with_field(("settings",), "{" + ",".join(f'"{k:x}":0' for k in range(2_900_000)) + "}")(root)


def _many_classes(root: Path) -> None:
    """Have as many classes as a manifest may have, none of which is wrong."""
    classes = ",".join(f'{{"wnid":"{k:07}","words":""}}' for k in range(1 << 18))
    with_field(("classes",), f"[{classes}]")(root)


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
