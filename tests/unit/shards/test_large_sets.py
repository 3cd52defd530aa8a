"""Data sets of which a careless reader takes gigabytes, or all day: reading one takes what its files explain."""

import functools
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.shards.forging import TAR, Forge, edit_field, with_text


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
    yield "many settings", lambda root: with_text(("settings",), _object(f'"{k:x}":0' for k in range(2_900_000)))(root)
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
    yield "large squares", with_text(("settings", "size_px"), "4096")


def _truncated(file: str, size: int) -> Forge:
    return lambda root: os.truncate(root / file, size)


def _object(members: Iterator[str]) -> str:
    return "{" + ",".join(members) + "}"


def _put_many(path: tuple[str, ...], unit: str, root: Path) -> None:
    with_text(path, "[" + ",".join([unit] * (33_000_000 // (len(unit) + 1))) + "]")(root)


def _many_classes(root: Path) -> None:
    """Have as many classes as a manifest may have, none of which is wrong."""
    with_text(("classes",), "[" + ",".join(f'{{"wnid":"{k:07}","words":""}}' for k in range(1 << 18)) + "]")(root)


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


READ = """
import resource, sys
from pathlib import Path
from tests.unit.shards.readers import faults_of

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

if __name__ == "__main__":
    sound, hostile = map(Path, sys.argv[1:])
    assert list(faults_of(sound, at_length=True)) == []
    before = peak_mb()
    faults = list(faults_of(hostile))
    print(*faults, int(peak_mb() - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in large()])
def test_a_large_one_takes_no_more_memory_than_its_files_explain(sealed: Path, copy: Path, name: str) -> None:
    dict(large())[name](copy)
    command = [sys.executable, "-c", READ, str(sealed), str(copy)]
    run = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 500
