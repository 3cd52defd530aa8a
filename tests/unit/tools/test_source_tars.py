"""Tars of images: each file with its label, and what unpacking gives: links, second tars, names that come twice."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import TRAIN_TAR, VAL_TAR, open_source
from alexnet.tools.convert.sources.layout import Walk
from alexnet.tools.convert.sources.tars import Tar, list_tar
from alexnet.tools.synth.archives import tar_of
from tests.conftest import encode_picture
from tests.unit.tools.source_layouts import bytes_of, class_names, refused, sketched, write

FISH, DOG, TENCH = "n01443537", "n02084071", "n01440764"
IMAGES = [encode_picture(i) for i in range(12)]
X, Y, Z = IMAGES[:3]


def flat(*numbers: int, val: bool = False) -> dict[str, bytes]:
    """Return images whose names end in their WNID; every second one is a fish."""
    wnids = {i: (TENCH, FISH)[i % 2] for i in numbers}
    first = (f"ILSVRC2012_val_{i:08d}" if val else f"{wnid}_{i}" for i, wnid in wnids.items())
    return {f"{stem}_{wnids[i]}.JPEG": IMAGES[i] for stem, i in zip(first, numbers, strict=True)}


def folders(*names: str, first: int = 0) -> dict[str, bytes]:
    """Return an image in each of some folders."""
    return {f"{name}/{i}.jpg": IMAGES[i] for i, name in enumerate(names, start=first)}


def test_images_a_level_below_their_class_are_called_as_in_a_tree(tmp_path: Path) -> None:
    files = folders("cat/images", "dog/images")
    tree = open_source(write(tmp_path / "tree", files))
    assert open_source(write(tmp_path / "tars", {"any.tar": files})).digest() == tree.digest()


@pytest.mark.parametrize("around", ["", "imagenet/"])
def test_labels_in_names_are_read_in_the_order_of_a_tree(tmp_path: Path, around: str) -> None:
    """As Hugging Face packs ImageNet: flat, each name ending in its WNID; and test images without any."""
    tars = {
        "train_images_0.tar": flat(0, 3),
        "train_images_1.tar": flat(1, 2),
        "val_images.tar": flat(4, 5, val=True),
        "test_images.tar": {"ILSVRC2012_test_00000001.JPEG": Z},
    }
    source = open_source(
        write(tmp_path, {tar: {around + name: data for name, data in files.items()} for tar, files in tars.items()})
    )
    assert bytes_of(source, "train") == [
        (wnid, f"{wnid}_{i}_{wnid}.JPEG", IMAGES[i]) for wnid, i in ((TENCH, 0), (TENCH, 2), (FISH, 1), (FISH, 3))
    ]
    assert bytes_of(source, "val") == [
        (wnid, f"ILSVRC2012_val_{i:08d}_{wnid}.JPEG", IMAGES[i]) for wnid, i in ((TENCH, 4), (FISH, 5))
    ]
    assert "1 thing is not read: test_images.tar (test images)" in source.notes


def test_names_as_in_the_training_archive_carry_labels_too(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"train.tar": {f"{FISH}_2.JPEG": X, f"{TENCH}_10.JPEG": Y, "LICENSE": b"x"}}))
    assert bytes_of(source, "train") == [(TENCH, f"{TENCH}_10.JPEG", Y), (FISH, f"{FISH}_2.JPEG", X)]
    assert source.ignored == 1


CLASS_TARS = f"""
{{cat,dog}}.tar:1.jpg
cat.tar:cat/1.jpg dog.tar:Dog/b/1.jpg
cat.tar:./images/1.jpg dog.tar:JPEGImages/1.jpg
{{cat,dog}}.tar:export/1.jpg
cat.tar:{{1,more/2}}.jpg dog.tar:1.jpg
{{train,bus,car}}.tar:1.jpg
{{bullet_train,test_tube}}.tar:1.jpg
{{0,1}}.tar:1.jpg
{{s1,s2}}.tar:1.jpg
dog.tar:{{n02085620_1,n02085782_2}}.jpg cat.tar:n02123045_1.jpg
{DOG}.tar:n02085620_1.jpg {FISH}.tar:sub/1.jpg
{DOG}.tar:{{a/1,b/2}}.jpg
{DOG}.tar:{{../../etc/passwd,/etc/shadow,a/../../b⏎\x1b[31m.jpg}} {FISH}.tar:{"x" * 300}.jpg
{{straße,dots.in.it,Ünïcödé·猫}}.tar:a.jpg
"""


@pytest.mark.parametrize("line", CLASS_TARS.strip().splitlines())
def test_class_tars_packed_in_any_way_are_classes(tmp_path: Path, line: str) -> None:
    """A name is only a name, whatever it is, and nothing is written."""
    tars = sketched(line)
    source = open_source(write(tmp_path / "root", tars))
    expected = {(name[:-4], inner, data) for name, files in tars.items() for inner, data in files.items()}
    assert set(bytes_of(source, "train")) == expected
    assert source.kind == "class-tars"
    assert source.description == f"class tars, {len(source.classes)} classes, {len(expected)} train and 0 val entries"
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_words_are_taken_from_the_usual_files_and_other_archives_are_named(tmp_path: Path) -> None:
    files = {f"{DOG}.tar": {"1.jpg": X}, f"{FISH}.zip": b"PK\x03\x04", "notes.md": b"", "cats": b""}
    source = open_source(write(tmp_path, {**files, "words.txt": f"{DOG}\tdog, hound\n{FISH}\tno\n".encode()}))
    assert [(c.wnid, c.words) for c in source.classes] == [(DOG, "dog, hound")]
    assert f"1 thing is not read: {FISH}.zip" in source.notes


def test_parts_that_count_anew_keep_their_images(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"part1.tar": folders("cat", "dog"), "part2.tar": {"cat/0.jpg": Z}}))
    assert sorted(bytes_of(source, "train")) == sorted([("cat", "0.jpg", X), ("cat", "0.jpg", Z), ("dog", "1.jpg", Y)])


def test_tars_kept_beside_their_folders_and_archives_of_other_things_do_no_harm(tmp_path: Path) -> None:
    files = {"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}, "cat/1.jpg": X, "dog/1.jpg": Y}
    source = open_source(write(tmp_path / "a", {**files, "boxes.tar.gz": b"\x1f\x8b"}))
    assert bytes_of(source, "train") == [("cat", "1.jpg", X), ("dog", "1.jpg", Y)]
    assert "1 thing is not read: boxes.tar.gz" in source.notes
    source = open_source(write(tmp_path / "b", {"src.tar": {"main.c": b"int"}, "cat/1.jpg": X, "dog/1.jpg": Y}))
    assert (source.kind, class_names(source)) == ("image-folder", ["cat", "dog"])


def test_the_innermost_wnid_on_the_way_to_an_image_is_its_class(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"any.tar": folders(f"a/{DOG}/more", f"{FISH}/x/{FISH}", TENCH)}))
    assert bytes_of(source, "train") == [(TENCH, "2.jpg", Z), (FISH, "1.jpg", Y), (DOG, "more/0.jpg", X)]


# What a tar holds is what unpacking it gives


def packed(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """Pack members of any type: name, type, target of a link, bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def listed(tar: bytes, folder: Path) -> tuple[dict[str, bytes], Walk]:
    """Return the files that are listed, by name, and what is passed over."""
    path = folder / "n00000001.tar"
    path.write_bytes(tar)
    walk = Walk()
    entries = list_tar(Tar.of(path), walk)
    found = {name.decode(): tar[at : at + length] for name, at, length in entries}
    assert len(found) == len(entries)
    return found, walk


FILE, HARD, SOFT = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def test_links_are_what_unpacking_makes_of_them(tmp_path: Path) -> None:
    """Compared with what tar unpacks: files, and links to files, in a folder."""
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
    found, walk = listed(tar, tmp_path)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "n00000001.tar", "-C", tmp_path / "out"], check=True)
    files = {p for p in (tmp_path / "out").rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert {name.removeprefix("./"): data for name, data in found.items()} == {
        str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in files
    }
    assert (walk.ignored, walk.nowhere) == (1, [])


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
    found, walk = listed(tar, tmp_path)
    assert found == {"a.jpg": X}
    assert walk.ignored == len(walk.nowhere) == 7
    note = f"7 links in tars lead to no file in it: n00000001.tar: {'early.jpg'!r}"
    assert note in " ".join(open_source(tmp_path).notes)


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    """`tar -r` and `tar -u` append newer versions; a hard link made before keeps the older."""
    older = (("a.jpg", FILE, "", X), ("b.jpg", HARD, "a.jpg", b""))
    found, walk = listed(packed(*older, ("./a.jpg", FILE, "", Y), ("c", SOFT, "a.jpg", b"")), tmp_path)
    assert found == {"./a.jpg": Y, "b.jpg": X, "c": Y}
    assert (walk.ignored, walk.replaced) == (1, 1)
    assert "replaced by later entries of the same name, as in unpacking: 1" in open_source(tmp_path).notes


def test_tars_one_behind_the_other_are_read_on(tmp_path: Path) -> None:
    for padding in (0, 512, 2 << 20):
        parts = [tar_of({"1.jpg": X}), tar_of({}), tar_of({"2.jpg": Y, "1.jpg": Z}), b""]
        assert listed(bytes(padding).join(parts), tmp_path)[0] == {"1.jpg": Z, "2.jpg": Y}
    with pytest.raises(InputError, match="no end mark"):
        listed(tar_of({"1.jpg": X}) + tar_of({"2.jpg": Y})[:1024], tmp_path)


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
    found, walk = listed(tar_of({**dict.fromkeys(junk, X), "./a/x.jpg": Y, "../b/x.jpg": Z}), tmp_path)
    assert found == {"./a/x.jpg": Y, "../b/x.jpg": Z}
    assert walk.ignored == len(junk)


INSTEAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "gzip": (gzip.compress, r"is gzipped .*: mv {0} {0}\.gz && gunzip {0}\.gz"),
    "bzip2": (bz2.compress, r"compressed by bzip2 .*: mv {0} {0}\.bz2 && bunzip2 {0}\.bz2"),
    "xz": (lzma.compress, r"compressed by xz .*: mv {0} {0}\.xz && unxz {0}\.xz"),
    "zstd": (lambda tar: b"\x28\xb5\x2f\xfd" + tar, "compressed by zstd .* unzstd"),
    "zip": (lambda tar: b"PK\x03\x04" + tar, "is a zip archive and no tar; unpack it first"),
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
