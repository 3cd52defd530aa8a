"""Finding images in the official archives: every one of them, with the right label, or a clear refusal."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR, open_source


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


def test_links_and_folders_inside_tars_are_passed_over(copy: Path) -> None:
    with tarfile.open(copy / VAL_TAR, "a") as tar:
        link = tarfile.TarInfo("ILSVRC2012_val_00000003.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("val")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert len(open_source(copy).members["val"]) == 7


@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, DEVKIT_TAR])
def test_a_missing_archive_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"lacks {name}"):
        open_source(copy)


def test_a_wrong_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        open_source(tmp_path / "file")


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


def test_archives_that_do_not_belong_together_are_refused(copy: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("ILSVRC2012_val_00000008.JPEG"))
    (copy / VAL_TAR).write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"ILSVRC2012_val_00000008\.JPEG has no label"):
        open_source(copy)


def test_a_devkit_that_was_gunzipped_is_read(copy: Path) -> None:
    import gzip

    path = copy / DEVKIT_TAR
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(open_source(copy).classes) == 3
