"""What a tar holds is what unpacking it gives: links, second tars behind the first, names that come twice, no junk."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import TRAIN_TAR, VAL_TAR, open_source
from alexnet.tools.convert.sources.tars import Passed, Tar, list_tar
from alexnet.tools.synth.archives import tar_of
from tests.conftest import encode_picture
from tests.unit.tools.source_layouts import refused

X, Y, Z = (encode_picture(i) for i in range(3))


def packed(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """Pack members of any type: name, type, target of a link, bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def listed(tar: bytes, folder: Path) -> tuple[dict[str, bytes], Passed]:
    """Return the files that are listed, by name, and what is passed over."""
    path = folder / "n00000001.tar"
    path.write_bytes(tar)
    passed = Passed()
    entries = list_tar(Tar.of(path), passed)
    found = {name.decode(): tar[at : at + length] for name, at, length in entries}
    assert len(found) == len(entries)
    return found, passed


FILE, HARD, SOFT = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def test_links_are_what_unpacking_makes_of_them(tmp_path: Path) -> None:
    """Compared with what tarfile unpacks: files, and links to files, in a folder."""
    tar = packed(
        ("./a.jpg", FILE, "", X),
        ("b.jpg", HARD, "a.jpg", b""),
        ("c.jpg", HARD, "./b.jpg", b""),
        ("sub/d.jpg", SOFT, "../a.jpg", b""),
        ("sub/e.jpg", SOFT, "f.jpg", b""),
        ("sub/f.jpg", SOFT, "../later.jpg", b""),
        ("later.jpg", FILE, "", Y),
        (".part", FILE, "", Z),
        ("whole.jpg", HARD, ".part", b""),
    )
    found, passed = listed(tar, tmp_path)
    with tarfile.open(tmp_path / "n00000001.tar") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    files = {p for p in (tmp_path / "out").rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert {name.removeprefix("./"): data for name, data in found.items()} == {
        str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in files
    }
    assert (passed.ignored, passed.nowhere) == (1, [])


def test_links_to_no_file_of_the_tar_are_counted_and_named(tmp_path: Path) -> None:
    tar = packed(
        ("early.jpg", HARD, "a.jpg", b""),  # a hard link's target comes first
        ("a.jpg", FILE, "", X),
        ("out.jpg", SOFT, "../a.jpg", b""),
        ("root.jpg", SOFT, "/a.jpg", b""),
        ("round.jpg", SOFT, "round.jpg", b""),
        ("one.jpg", SOFT, "two.jpg", b""),
        ("two.jpg", SOFT, "one.jpg", b""),
        ("a.jpg", HARD, "/etc/passwd", b""),
    )
    found, passed = listed(tar, tmp_path)
    assert found == {"a.jpg": X}
    assert passed.ignored == len(passed.nowhere) == 7
    note = f"7 links in tars lead to no file in it: n00000001.tar: {'early.jpg'!r}"
    assert note in " ".join(open_source(tmp_path).notes)


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    """`tar -r` and `tar -u` append newer versions; a hard link made before keeps the older."""
    older = (("a.jpg", FILE, "", X), ("b.jpg", HARD, "a.jpg", b""))
    found, passed = listed(packed(*older, ("./a.jpg", FILE, "", Y), ("c", SOFT, "a.jpg", b"")), tmp_path)
    assert found == {"./a.jpg": Y, "b.jpg": X, "c": Y}
    assert (passed.ignored, passed.replaced) == (1, 1)
    assert "replaced by later entries of the same name, as in unpacking: 1" in open_source(tmp_path).notes


def test_tars_one_behind_the_other_are_read_on(tmp_path: Path) -> None:
    for padding in (0, 512, 2 << 20):
        parts = [tar_of({"1.jpg": X}), tar_of({}), tar_of({"2.jpg": Y, "1.jpg": Z}), b""]
        assert listed(bytes(padding).join(parts), tmp_path)[0] == {"1.jpg": Z, "2.jpg": Y}
    with pytest.raises(InputError, match="no end mark"):
        listed(tar_of({"1.jpg": X}) + tar_of({"2.jpg": Y})[:1024], tmp_path)


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar here")
def test_what_gnu_tar_appends_is_read(tmp_path: Path) -> None:
    for name, data in (("1.jpg", X), ("2.jpg", Y), ("3.jpg", Z)):
        (tmp_path / name).write_bytes(data)
        subprocess.run(["tar", "-cf", f"{name}.tar", name], cwd=tmp_path, check=True)
    subprocess.run(["tar", "-Af", "1.jpg.tar", "2.jpg.tar"], cwd=tmp_path, check=True)
    subprocess.run(["tar", "-rf", "1.jpg.tar", "3.jpg"], cwd=tmp_path, check=True)
    found, _ = listed((tmp_path / "1.jpg.tar").read_bytes(), tmp_path)
    assert found == {"1.jpg": X, "2.jpg": Y, "3.jpg": Z}


@pytest.mark.parametrize("tail", [b"\r\n", b"\x01" * 512, bytes(600) + b"signature", bytes(2 << 20) + b"x"])
def test_anything_else_behind_a_tar_is_refused_and_can_be_cut_off(tmp_path: Path, tail: bytes) -> None:
    tar = tar_of({"1.jpg": X})
    with pytest.raises(InputError, match=r"goes on at byte .*, with something that is no tar; .*: truncate -s") as said:
        listed(tar + tail, tmp_path)
    length = int(str(said.value).partition("truncate -s ")[2].split()[0])
    assert listed((tar + tail)[:length], tmp_path)[0] == {"1.jpg": X}


def test_tars_inside_tars_lose_nothing_either(official: Path, tmp_path: Path) -> None:
    """Two tars of one class behind each other, and a link, in the training archive."""
    one = packed(("n00000001_1.JPEG", FILE, "", X), ("n00000001_2.JPEG", HARD, "n00000001_1.JPEG", b""))
    inner = one + tar_of({"n00000001_3.JPEG": Y})
    (tmp_path / TRAIN_TAR).write_bytes(tar_of({"n00000001.tar": inner}) + tar_of({"n00000002.tar": tar_of({"a": Z})}))
    source = open_source(tmp_path)
    assert [(m.name, m.label) for m in source.members["train"]] == [
        ("n00000001_1.JPEG", 0), ("n00000001_2.JPEG", 0), ("n00000001_3.JPEG", 0), ("a", 1),
    ]  # fmt: skip
    data = (tmp_path / TRAIN_TAR).read_bytes()
    assert [data[m.offset : m.offset + m.length] for m in source.members["train"]] == [X, X, Y, Z]


def test_what_systems_leave_behind_is_ignored_wherever_it_stands(tmp_path: Path) -> None:
    junk = (
        "__MACOSX/._x.jpg",
        "a/__MACOSX/b/x.jpg",
        "@eaDir/x.jpg/SYNOPHOTO.jpg",
        "x.jpg:Zone.Identifier",
        ".DS_Store",
    )
    found, passed = listed(tar_of({**dict.fromkeys(junk, X), "./a/x.jpg": Y, "../b/x.jpg": Z}), tmp_path)
    assert found == {"./a/x.jpg": Y, "../b/x.jpg": Z}
    assert passed.ignored == len(junk)


def zipped(tar: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.tar", tar)
    return buffer.getvalue()


INSTEAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "gzip": (gzip.compress, r"is gzipped .*: mv {0} {0}\.gz && gunzip {0}\.gz"),
    "bzip2": (bz2.compress, r"compressed by bzip2 .*: mv {0} {0}\.bz2 && bunzip2 {0}\.bz2"),
    "xz": (lzma.compress, r"compressed by xz .*: mv {0} {0}\.xz && unxz {0}\.xz"),
    "zstd": (lambda tar: b"\x28\xb5\x2f\xfd" + tar, "compressed by zstd .* unzstd"),
    "zip": (zipped, "is a zip archive and no tar; unpack it first"),
    "web page": (lambda tar: b"\n<!DOCTYPE html><title>Log in</title>", "is a web page"),
    "Git LFS": (lambda tar: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "anything": (lambda tar: b"x" * 2000, "cannot be read as a tar .*; download it again"),
    "nothing": (lambda tar: b"", "is empty; download it again"),
}


@pytest.mark.parametrize("form", INSTEAD)
@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, "n00000001.tar"])
def test_what_is_no_tar_is_called_what_it_is(official: Path, tmp_path: Path, form: str, name: str) -> None:
    if name != "n00000001.tar":
        shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    path = tmp_path / name
    make, said = INSTEAD[form]
    path.write_bytes(make(tar_of({"1.jpg": X})))
    line = refused(tmp_path, f"{name}: .*{said.format(path)}")
    assert ("download it again" in line) == (form in ("nothing", "anything"))


def test_the_command_that_is_shown_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "n00000001.tar"
    path.write_bytes(gzip.compress(tar_of({"1.jpg": X})))
    line = refused(tmp_path, "is gzipped")
    subprocess.run(line.partition("gunzip it first: ")[2], shell=True, check=True)
    assert len(open_source(tmp_path).members["train"]) == 1


def test_gzipped_class_tars_in_a_tar_are_named(tmp_path: Path) -> None:
    gzipped = gzip.compress(tar_of({"1.jpg": X}))
    for name in ("n00000001.tar.gz", "n00000001.tar"):
        (tmp_path / "whole.tar").write_bytes(tar_of({name: gzipped}))
        refused(tmp_path, rf"whole\.tar: {name} is gzipped .* mkdir .*whole && tar -xf .*whole\.tar")


def test_official_archives_under_names_of_compressed_ones_are_to_be_gunzipped(official: Path, tmp_path: Path) -> None:
    shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    for name in (VAL_TAR, TRAIN_TAR):
        path = tmp_path / name
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        refused(tmp_path, rf"{name}\.gz: is gzipped .* gunzip it first: gunzip .*{name}\.gz$")
