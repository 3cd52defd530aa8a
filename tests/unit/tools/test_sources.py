"""Finding images in the official archives: every one of them, with the right label, or a clear refusal."""

import gzip
import io
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import DOGS_TAR
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR, find_layout, open_source
from alexnet.tools.samples.official import tar_of


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(official, tmp_path / "copy"))


def test_members_point_at_the_bytes_that_tarfile_extracts(official: Path) -> None:
    source = open_source(official)
    expected: dict[str, bytes] = {}
    with tarfile.open(official / TRAIN_TAR) as outer:
        for class_tar in outer:
            with tarfile.open(fileobj=outer.extractfile(class_tar)) as inner:
                expected |= {m.name: inner.extractfile(m).read() for m in inner}  # type: ignore[union-attr]
    data = (official / TRAIN_TAR).read_bytes()
    found = {m.name: data[m.offset : m.offset + m.length] for m in source.members["train"]}
    assert found == expected


def test_training_labels_are_places_in_sorted_wnids(official: Path) -> None:
    source = open_source(official)
    assert [c.wnid for c in source.classes] == ["n00000001", "n00000002", "n00000003"]
    assert [c.words for c in source.classes].count("crane") == 2
    for member in source.members["train"]:
        assert source.classes[member.label].wnid == member.name.split("_")[0]


def test_validation_labels_are_translated_from_ids(official: Path) -> None:
    """IDs fall where WNIDs rise in this source, so an untranslated label would show."""
    source = open_source(official)
    assert [m.label for m in source.members["val"]] == [0, 2, 1, 1, 2, 1, 0]
    assert [m.name[-13:-5] for m in source.members["val"]] == [f"{i:08d}" for i in range(1, 8)]


def test_it_says_what_it_found_and_which_labels_it_will_write(official: Path) -> None:
    source = open_source(official)
    assert source.kind == "ilsvrc2012-archives"
    assert source.description == "official ILSVRC-2012 archives, 3 classes, 27 train and 7 val entries"
    assert source.label_order == "place of the WNID in sorted order"
    assert (source.encoding, source.channels, source.size_px, find_layout(official).size_px) == ("file", 3, None, None)
    assert any(f"{TRAIN_TAR} has" in note and "147,897,477,120" in note for note in source.notes)


def test_links_folders_and_junk_inside_tars_are_passed_over_and_counted(copy: Path) -> None:
    with tarfile.open(copy / VAL_TAR, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("ILSVRC2012_val_00000003.JPEG")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("._ILSVRC2012_val_00000003.JPEG"))
    source = open_source(copy)
    assert len(source.members["val"]) == 7
    assert source.ignored == 6


@pytest.mark.parametrize("name", [TRAIN_TAR, DEVKIT_TAR])
def test_a_missing_archive_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"lacks {name}"):
        open_source(copy)


def test_the_training_archive_alone_is_enough(copy: Path) -> None:
    whole = open_source(copy)
    (copy / VAL_TAR).unlink()
    without_val = open_source(copy)
    (copy / DEVKIT_TAR).unlink()
    alone = open_source(copy)
    assert list(alone.members["train"]) == list(without_val.members["train"]) == list(whole.members["train"])
    assert len(alone.members["val"]) == 0
    assert f"no {VAL_TAR}: there will be no validation images" in alone.notes
    assert {c.words for c in without_val.classes} == {"crane", "maillot, tank suit"}
    assert [(c.wnid, c.words) for c in alone.classes] == [(f"n0000000{i}", f"n0000000{i}") for i in (1, 2, 3)]


def test_a_wrong_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        open_source(tmp_path / "file")


def test_the_dogs_are_not_taken_for_the_training_set(copy: Path) -> None:
    (copy / TRAIN_TAR).rename(copy / DOGS_TAR)
    with pytest.raises(InputError, match="it holds the dogs of task 3 only"):
        open_source(copy)
    shutil.copy(copy / DOGS_TAR, copy / TRAIN_TAR)
    assert any(note.startswith(f"{DOGS_TAR} is not read") for note in open_source(copy).notes)


@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, DEVKIT_TAR])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.4, 0.6])
def test_an_archive_cut_anywhere_is_refused_by_name(copy: Path, name: str, kept: float) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        open_source(copy)


def test_an_archive_cut_at_a_members_edge_is_refused(copy: Path) -> None:
    """tarfile takes it for a whole one; the end mark is what is missing."""
    path = copy / VAL_TAR
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(InputError, match="cut short"):
        open_source(copy)


@pytest.mark.parametrize("kept", [0, 512, 1100, 4500, 4608])
def test_a_class_tar_that_is_cut_short_is_named_and_its_neighbour_is_not_read_into_it(copy: Path, kept: int) -> None:
    """The next class tar's header follows at once: without care its images would get this class's label."""
    tars = {f"n0000000{i}.tar": tar_of({f"n0000000{i}_{k}.JPEG": bytes(600) for k in range(3)}) for i in (1, 2, 3)}
    tars["n00000002.tar"] = tars["n00000002.tar"][:kept]  # three members take 3 * (512 + 1024) bytes
    (copy / TRAIN_TAR).write_bytes(tar_of(tars))
    (copy / VAL_TAR).unlink()
    with pytest.raises(InputError, match=r"n00000002\.tar"):
        open_source(copy)


def test_archives_that_do_not_belong_together_are_refused(copy: Path) -> None:
    (copy / VAL_TAR).write_bytes(tar_of({"ILSVRC2012_val_00000008.JPEG": b""}))
    with pytest.raises(InputError, match=r"ILSVRC2012_val_00000008\.JPEG has no label"):
        open_source(copy)
    (copy / VAL_TAR).write_bytes(tar_of({"ILSVRC2012_val_00000007.JPEG": b""}))
    with pytest.raises(InputError, match=r"holds 1 images where .* has 7 labels"):
        open_source(copy)
    (copy / TRAIN_TAR).write_bytes(tar_of({"n00000009.tar": tar_of({"n00000009_1.JPEG": b"x"})}))
    with pytest.raises(InputError, match=r"n00000009\.tar is no class tar of the 3 classes"):
        open_source(copy)


def test_a_train_archive_without_images_is_refused(copy: Path) -> None:
    (copy / TRAIN_TAR).write_bytes(tar_of({"n00000001.tar": tar_of({})}))
    with pytest.raises(InputError, match="holds no class tar with images"):
        open_source(copy)


@pytest.mark.parametrize("form", ["gunzipped", "gunzipped under its old name", "extracted"])
def test_the_devkit_is_read_in_any_form(copy: Path, form: str) -> None:
    path = copy / DEVKIT_TAR
    data = gzip.decompress(path.read_bytes())
    path.unlink()
    if form == "extracted":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(copy, filter="data")
    else:
        (path if "old" in form else path.with_suffix("")).write_bytes(data)
    assert [m.label for m in open_source(copy).members["val"]] == [0, 2, 1, 1, 2, 1, 0]


def test_an_extracted_devkit_that_is_not_whole_is_refused(copy: Path) -> None:
    (copy / DEVKIT_TAR).unlink()
    (copy / "ILSVRC2012_devkit_t12" / "data").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds no meta\.mat; give the devkit of tasks 1 and 2"):
        open_source(copy)


def test_a_member_stored_sparse_is_refused_not_misread(copy: Path) -> None:
    """Its bytes do not lie together, so offset and length would give another picture."""
    data = bytearray((copy / VAL_TAR).read_bytes())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[148:156] = b" " * 8
    data[257:265] = b"ustar  \0"
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    (copy / VAL_TAR).write_bytes(data)
    with pytest.raises(InputError, match="is stored sparse; pack"):
        open_source(copy)


@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, DEVKIT_TAR])
def test_no_damaged_byte_ends_in_a_traceback(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    rng = random.Random(2012)
    refusals = []
    for _ in range(60):
        at = rng.choice([rng.randrange(len(whole)), rng.randrange(min(1024, len(whole)))])
        (copy / name).write_bytes(whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :])
        try:
            open_source(copy)
        except InputError as refusal:
            refusals.append(str(refusal))
    assert refusals
    assert not any("\n" in text for text in refusals)


def test_mangled_extended_headers_are_refused(copy: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("ILSVRC2012_val_00000001_" + "ä" * 80 + ".JPEG"))
    data = buffer.getvalue()
    for field, mangled in ((b" path=", b" size="), (b" path=", b"xpath=")):
        (copy / VAL_TAR).write_bytes(data.replace(field, mangled, 1))
        with pytest.raises(InputError, match=r"ILSVRC2012_img_val\.tar"):
            open_source(copy)
