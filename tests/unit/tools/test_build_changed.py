"""A source that is not what a folder was made of is refused with what differs, and the folder stays as it is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.tools.convert.build import build
from alexnet.tools.convert.sources import open_source
from tests.conftest import digests
from tests.unit.tools.test_build_mended import BAD, GOOD, SETTINGS, fresh, shard, write

pytestmark = pytest.mark.usefixtures("converted")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with two files that are no images."""
    write(tmp_path / "pictures", {**GOOD, **BAD})
    return tmp_path / "pictures"


@pytest.mark.parametrize("mended", [GOOD["cats/3.jpg"], bytes(300)])
def test_a_complete_set_whose_rejects_changed_is_refused_and_says_so(
    folder: Path, tmp_path: Path, mended: bytes
) -> None:
    """Of another length, and of the same: its list of images is then what it was, and its hash, too."""
    root = tmp_path / "set"
    made = fresh(folder, root)
    assert "already complete; nothing to do" in shard(folder, root).output
    (folder / "cats" / "3.jpg").write_bytes(mended)
    refused = shard(folder, root)
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"Error: {root}: is of the source as it was before (changed since, or gone: 1 rejected image, cats/3.jpg); "
        "give another --out, or --overwrite to make it anew\n"
    )
    assert digests(root) == made
    assert shard(folder, root, "--overwrite").exit_code == 0
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_complete_set_of_an_earlier_version_stays_complete(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    fresh(folder, root)
    lines = [json.loads(line) for line in (root / "rejected.jsonl").read_text().splitlines()]
    old = [{key: value for key, value in entry.items() if key not in ("bytes", "sha256")} for entry in lines]
    for text in ("".join(json.dumps(entry) + "\n" for entry in old), "damaged\n", "[]\n"):
        (root / "rejected.jsonl").write_text(text)
        assert "already complete; nothing to do" in shard(folder, root).output


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


def add_val(root: Path) -> None:
    root.rename(root.parent / "moved")
    root.mkdir()
    (root.parent / "moved").rename(root / "train")
    write(root, {"val/cats/1.jpg": GOOD["cats/1.jpg"]})


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an image gone": (lambda root: (root / "cats/7.jpg").unlink(), "20 train images there, 19 in the source"),
    "a reject gone": (
        lambda root: (root / "dogs/4.jpg").unlink(),
        "20 train images there, 19 in the source; changed since, or gone: 1 rejected image, dogs/4.jpg",
    ),
    "a reject renamed": (rename("dogs/4.jpg", "dogs/4a.jpg"), "changed since, or gone: 1 rejected image, dogs/4.jpg"),
    "an image renamed": (rename("cats/7.jpg", "cats/7a.jpg"), r"train image \d+ is 7 there, 7a.jpg in the source"),
    "a class renamed": (rename("dogs", "hounds"), "class dogs there only; class hounds in the source only; changed"),
    "classes added": (
        lambda root: write(root, {"ants/1.jpg": b"", "bees/1.jpg": b""}),
        "class ants in the source only, the first of 2; 20 train images there, 22 in the source",
    ),
    "a validation set added": (add_val, "0 val images there, 1 in the source"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_source_that_changed_otherwise_is_refused_with_what_changed(
    folder: Path, tmp_path: Path, kind: str, finished: bool
) -> None:
    root, (change, said) = tmp_path / "set", CHANGES[kind]
    assert shard(folder, root, "--max-rejected", "2" if finished else "0").exit_code == (0 if finished else 1)
    before = {name: digest for name, digest in digests(root).items() if ".work/index" not in name}
    change(folder)
    with pytest.raises(InputError, match=said):
        build(open_source(folder), root, SETTINGS)
    assert {name: digest for name, digest in digests(root).items() if ".work/index" not in name} == before


def test_an_image_that_was_only_touched_in_length_after_the_set_was_complete_is_named_as_far_as_known(
    folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    fresh(folder, root)
    (folder / "cats" / "1.jpg").write_bytes(GOOD["cats/1.jpg"] + b"\0")
    with pytest.raises(InputError, match=r"as it was before \(images had other names, labels or lengths\)"):
        build(open_source(folder), root, SETTINGS)
    assert read_manifest(root).counts["train"].rejected == 2
