"""A forger who makes every size and sha256 right again is found wherever two parts of a data set say the same."""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.verify import verify
from tests.unit.shards.hostile_sets import put_back
from tests.unit.shards.test_verify_contents import edit_manifest, edit_tar, list_anew, members, reseal, write_tar

Forge = Callable[[Path], object]

TAR = "train/000000.tar"
HEADER = {  # field: where it begins, and what is put there
    "name": (3, b"9"),
    "mode": (105, b"755"),
    "uid": (114, b"1"),
    "gid": (122, b"1"),
    "size": (134, b"7"),
    "mtime": (146, b"1"),
    "kind: old": (156, b"\0"),
    "kind: hard link": (156, b"1"),
    "kind: link": (156, b"2"),
    "kind: device": (156, b"3"),
    "kind: folder": (156, b"5"),
    "kind: contiguous": (156, b"7"),
    "kind: long name": (156, b"L"),
    "kind: sparse": (156, b"S"),
    "kind: pax": (156, b"x"),
    "kind: pax for all": (156, b"g"),
    "link": (157, b"/etc/passwd"),
    "magic": (257, b"ustar  "),
    "version": (263, b"11"),
    "owner": (265, b"you"),
    "group": (297, b"you"),
    "major": (329, b"1"),
    "minor": (337, b"1"),
    "folder": (345, b"a"),
    "rest": (511, b"x"),
}


def forgeries() -> Iterator[tuple[str, Forge]]:
    yield from _in_tars()
    yield from _in_lists()


def _in_tars() -> Iterator[tuple[str, Forge]]:
    for member in (0, 1, 8, -1):
        for field, (at, content) in HEADER.items():
            yield f"header {member} {field}", in_header(member, at, content)
    for member in (0, 1, 2, 9, -1):
        yield f"filling {member}", behind_data(member)
    for offset in (-1, -512, -1024, -1025):
        yield f"end {offset}", lambda root, offset=offset: poke(root / TAR, offset, b"x")  # type: ignore[misc]
    for count in (-10240, -1024, -512, 512, 1024, 10240):
        yield f"end longer by {count}", lambda root, count=count: longer(root / TAR, count)  # type: ignore[misc]
    for name, change in MEMBERS.items():
        yield f"members {name}", edit_tar(change)
    yield "pax", with_pax


def _in_lists() -> Iterator[tuple[str, Forge]]:
    for field in ("offset", "length", "shard", "label", "place"):
        for row in (0, 3, 9, 10, 23, 24, 30):
            for change_by in (-1, 1, 512):
                yield f"index {field} {row} {change_by}", in_index(row, field, change_by)
    for a, b in ((0, 1), (0, 10), (9, 10), (23, 24), (24, 25)):
        yield f"index rows {a} and {b}", exchanged_rows(a, b)
    for file in ("train/000000.idx", "val/000000.idx"):
        for at in range(0, 700, 29):
            yield f"{file} {at}", lambda root, file=file, at=at: poke(root / file, at, b"#")  # type: ignore[misc]
    for name, lines in REJECTS.items():
        yield f"rejects {name}", in_rejects(lines)


def poke(path: Path, at: int, content: bytes) -> None:
    """Put something into a file where it has something else."""
    data = bytearray(path.read_bytes())
    at %= len(data)
    if data[at : at + len(content)] == content:
        content = bytes(byte ^ 1 for byte in content)
    data[at : at + len(content)] = content
    path.write_bytes(data)


def longer(path: Path, count: int) -> None:
    os.truncate(path, path.stat().st_size + count)


def in_header(member: int, at: int, content: bytes) -> Forge:
    """Change a field of a member's header and make the header's checksum right."""

    def forge(root: Path) -> None:
        start = infos(root)[member].offset
        poke(root / TAR, start + at, content)
        block = bytearray((root / TAR).read_bytes()[start : start + 512])
        block[148:156] = b" " * 8
        right = b"%06o\0 " % sum(block)
        data = bytearray((root / TAR).read_bytes())
        data[start + 148 : start + 156] = right
        (root / TAR).write_bytes(data)

    return forge


def infos(root: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(root / TAR) as tar:
        return tar.getmembers()


def behind_data(member: int) -> Forge:
    def forge(root: Path) -> None:
        found = infos(root)[member]
        poke(root / TAR, found.offset_data + found.size, b"x")

    return forge


MEMBERS: dict[str, Callable[[Any], Any]] = {
    "two labels exchanged": lambda m: (
        [m[0], (m[1][0], m[3][1]), m[2], (m[3][0], m[1][1]), *m[4:]] if m[1][1] != m[3][1] else m[2:]
    ),
    "two pictures exchanged": lambda m: [(m[0][0], m[2][1]), m[1], (m[2][0], m[0][1]), *m[3:]],
    "one twice": lambda m: [*m[:2], *m],
    "reversed": lambda m: [x for pair in zip(m[-2::-2], m[::-2], strict=True) for x in pair],
    "a third": lambda m: [*m[:2], (m[0][0].replace(".jpg", ".txt"), b""), *m[2:]],
    "another": lambda m: [*m, ("00000009_x.jpg", m[0][1]), ("00000009_x.cls", b"0")],
    "label with a break": lambda m: [m[0], (m[1][0], m[1][1] + b"\n"), *m[2:]],
    "label with a nought": lambda m: [m[0], (m[1][0], b"0" + m[1][1]), *m[2:]],
    "no label": lambda m: [m[0], (m[1][0], b""), *m[2:]],
}


def with_pax(root: Path) -> None:
    contents = members(root, TAR)
    write_tar(root, TAR, contents)
    with tarfile.open(root / TAR, "a", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}):
        pass
    data = (root / TAR).read_bytes()
    header = tarfile.TarInfo("x").create_pax_global_header({"comment": "x"})
    (root / TAR).write_bytes(header + data)


def in_index(row: int, field: str, change_by: int) -> Forge:
    def forge(root: Path) -> None:
        rows = np.load(root / "index.npy")
        rows[field][row] += change_by
        np.save(root / "index.npy", rows)

    return forge


def exchanged_rows(a: int, b: int) -> Forge:
    def forge(root: Path) -> None:
        rows = np.load(root / "index.npy")
        rows[[a, b]] = rows[[b, a]]
        np.save(root / "index.npy", rows)

    return forge


REJECTS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "none": lambda lines: [],
    "one less": lambda lines: lines[1:],
    "one twice": lambda lines: [lines[0], *lines],
    "other order": lambda lines: lines[::-1],
    "other place": lambda lines: [{**lines[0], "place": lines[0]["place"] + 1}, *lines[1:]],
    "other split": lambda lines: [{**lines[0], "split": "val"}, *lines[1:]],
    "no reason": lambda lines: [{k: v for k, v in lines[0].items() if k != "reason"}, *lines[1:]],
    "source elsewhere": lambda lines: [{**lines[0], "source": "../x"}, *lines[1:]],
    "no sha256": lambda lines: [{**lines[0], "sha256": "x"}, *lines[1:]],
    "negative length": lambda lines: [{**lines[0], "bytes": -1}, *lines[1:]],
}


def in_rejects(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Forge:
    def forge(root: Path) -> None:
        path = root / "rejected.jsonl"
        lines = change([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return forge


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_what_two_parts_say_differently_is_found(sealed: Path, copy: Path, step: int) -> None:
    every = list(forgeries())
    assert len(every) > 280
    for name, forge in every[::step]:
        forge(copy)
        reseal(copy)
        assert not verify(copy).passed, name
        put_back(sealed, copy)


FIGURES = [
    *[("settings", name) for name in ("size_px", "shard_images")],
    *[("counts", split, name) for split in ("train", "val") for name in ("input", "written", "rejected")],
    *[("shards", k, name) for k in range(4) for name in ("images", "bytes")],
    *[("files", k, "bytes") for k in range(3)],
    *[("colour", "mean", k) for k in range(3)],
    *[("colour", name, k) for name in ("eigenvalues", "standard_deviations") for k in range(3)],
    *[("colour", name, k, i) for name in ("covariance", "eigenvectors") for k in range(3) for i in range(3)],
]


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_every_figure_of_the_manifest_is_said_elsewhere_too(sealed: Path, copy: Path, step: int) -> None:
    for path in FIGURES[::step]:

        def change(fields: Any, path: tuple[str | int, ...] = path) -> None:
            for way in path[:-1]:
                fields = fields[way]
            fields[path[-1]] += 1 if isinstance(fields[path[-1]], int) else 0.01

        edit_manifest(copy, change)
        list_anew(copy, "manifest.json")
        assert not verify(copy).passed, path
        put_back(sealed, copy)


# What no other part says


def relabelled(root: Path) -> None:
    """Give the first picture another class everywhere."""
    rows = np.load(root / "index.npy")
    rows["label"][0] = (rows["label"][0] + 1) % 3
    np.save(root / "index.npy", rows)
    start = infos(root)[1].offset_data
    data = bytearray((root / TAR).read_bytes())
    data[start : start + 1] = str(rows["label"][0]).encode()
    (root / TAR).write_bytes(data)


def repainted(root: Path) -> None:
    """Change a byte of a picture."""
    poke(root / TAR, infos(root)[2].offset_data + 400, b"\x01")


UNSEEN: dict[str, Forge] = {
    "a label, everywhere": relabelled,
    "a picture": repainted,
    "words of a class": lambda root: edit_manifest(root, lambda fields: fields["classes"][0].update(words="a dog")),
    "wnid of a class": lambda root: edit_manifest(root, lambda fields: fields["classes"][2].update(wnid="n9")),
    "seed": lambda root: edit_manifest(root, lambda fields: fields["settings"].update(seed=8)),
    "quality": lambda root: edit_manifest(root, lambda fields: fields["settings"].update(quality=91)),
    "source": lambda root: edit_manifest(root, lambda fields: fields["source"].update(digest="0" * 64)),
    "version": lambda root: edit_manifest(root, lambda fields: fields["versions"].update(pillow="0")),
    "why one was rejected": in_rejects(lambda lines: [{**lines[0], "reason": "too beautiful"}, *lines[1:]]),
    "licence": lambda root: (root / "LICENSE").write_text("yours"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_said_once_is_only_as_good_as_the_manifests_own_sha256(sealed: Path, copy: Path, name: str) -> None:
    """The docs say so: these are found by comparing that with one that was noted before."""
    UNSEEN[name](copy)
    reseal(copy)
    assert verify(copy).passed
    assert any((copy / name).read_bytes() != (sealed / name).read_bytes() for name in ("manifest.json", "SHA256SUMS"))


def test_a_forged_manifest_that_no_reader_takes_is_a_finding(copy: Path) -> None:
    edit_manifest(copy, lambda fields: fields["shards"][0].update(file="/etc/passwd"))
    with pytest.raises(InputError):
        reseal(copy)
    assert any("names '/etc/passwd' where train/000000.tar must be" in f.problem for f in verify(copy).findings)
