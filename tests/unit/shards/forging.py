"""Ways to change a data set, and to make its checksums right again."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.shards.verify import Verification
from alexnet.shards.writer import write_checksums

Forge = Callable[[Path], object]
Member = tuple[str, bytes]
Change = Callable[[Any], Any]

TAR = "train/000000.tar"
_PLACE = "what stands here is put in afterwards"


def problems(report: Verification) -> str:
    return "\n".join(map(str, report.findings))


def put_back(sound: Path, root: Path) -> None:
    """Make a changed copy sound again."""
    for path in (root, root.parent / "away"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    shutil.copytree(sound, root)


def reseal(root: Path) -> None:
    """Make every size and sha256 right again: what is found then is found by looking inside."""
    fields = json.loads((root / "manifest.json").read_text())
    for record in (*fields["shards"], *fields["files"]):
        data = (root / record["file"]).read_bytes()
        record["bytes"], record["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    write_manifest(root, fields)
    write_checksums(root)


def list_anew(root: Path, file: str) -> None:
    """Make a file's line in SHA256SUMS right again."""
    line = f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n"
    edit_lines("SHA256SUMS", lambda lines: [line if old[64:] == line[64:] else old for old in lines])(root)


def write_manifest(root: Path, fields: Any) -> None:
    (root / "manifest.json").write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def holder_of(fields: Any, path: tuple[str | int, ...]) -> Any:
    for step in path[:-1]:
        fields = fields[step]
    return fields


def edit_field(*path: str | int, change: Change) -> Forge:
    """Change a value of the manifest."""

    def forge(root: Path) -> None:
        fields: Any = json.loads((root / "manifest.json").read_text())
        holder = holder_of(fields, path)
        holder[path[-1]] = change(holder.get(path[-1]) if isinstance(holder, dict) else holder[path[-1]])
        write_manifest(root, fields)

    return forge


def set_field(*path: str | int, to: object) -> Forge:
    return edit_field(*path, change=lambda _: to)


def with_text(path: tuple[str | int, ...], text: str) -> Forge:
    """Put a text, be it JSON or not, where the manifest has a value."""

    def forge(root: Path) -> None:
        edit_field(*path, change=lambda _: _PLACE)(root)
        edit_bytes("manifest.json", lambda whole: whole.replace(f'"{_PLACE}"'.encode(), text.encode()))(root)

    return forge


def edit_bytes(file: str, change: Callable[[bytes], bytes]) -> Forge:
    return lambda root: (root / file).write_bytes(change((root / file).read_bytes()))


def with_bytes(file: str, content: bytes) -> Forge:
    return edit_bytes(file, lambda _: content)


def edit_lines(file: str, change: Callable[[list[str]], list[str]]) -> Forge:
    return lambda root: (root / file).write_text("".join(change((root / file).read_text().splitlines(True))))


def edit_rejects(change: Change) -> Forge:
    """Change the list of the records of rejects."""
    return edit_lines(
        "rejected.jsonl", lambda lines: [json.dumps(r) + "\n" for r in change([json.loads(line) for line in lines])]
    )


def edit_array(file: str, change: Change) -> Forge:
    """Change an array, in place or by another."""

    def forge(root: Path) -> None:
        array = np.load(root / file)
        changed = change(array)
        np.save(root / file, array if changed is None else changed)

    return forge


def edit_row(field: str, row: int, change: Change) -> Forge:
    """Change a value of the index."""

    def edit(rows: Any) -> None:
        rows[field][row] = change(rows[field][row])

    return edit_array("index.npy", edit)


def set_row(field: str, row: int, to: object) -> Forge:
    return edit_row(field, row, lambda _: to)


def poke(file: str, at: int, content: bytes) -> Forge:
    """Put something into a file where it has something else."""

    def change(data: bytes) -> bytes:
        begin = at % len(data)
        other = content if data[begin : begin + len(content)] != content else bytes(byte ^ 1 for byte in content)
        return data[:begin] + other + data[begin + len(content) :]

    return edit_bytes(file, change)


def resize(file: str, by: int) -> Forge:
    return lambda root: os.truncate(root / file, (root / file).stat().st_size + by)


def members(root: Path, file: str = TAR) -> list[Member]:
    with tarfile.open(root / file) as tar:
        return [(member.name, stream.read()) for member in tar if (stream := tar.extractfile(member))]


def infos(root: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(root / TAR) as tar:
        return tar.getmembers()


def edit_tar(change: Change, file: str = TAR) -> Forge:
    """Write a tar with other members."""

    def forge(root: Path) -> None:
        contents = change(members(root, file))
        with tarfile.open(root / file, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in contents:
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.uname, member.gname = len(data), 0o444, "root", "root"
                tar.addfile(member, io.BytesIO(data))

    return forge
