"""Classes of the user's choice, in the user's order, of any layout."""

from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify import verify
from alexnet.tools.convert.build import build
from alexnet.tools.convert.classes import order_notes, select_classes
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import materialise, open_source
from alexnet.tools.samples.layouts import write_files
from alexnet.tools.samples.small_sets import write_cifar10

Picture = Callable[..., bytes]


def rows(source: Source) -> dict[str, list[tuple[str, str, int, int, str]]]:
    """Return each split's members, with the class in place of its label."""
    return {
        split: [(m.file, m.name, m.offset, m.length, source.classes[m.label].wnid) for m in source.listing(split)]
        for split in SPLITS
    }


def listed(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_chosen_classes_keep_their_images_in_the_order_of_the_list(official: Path, tmp_path: Path) -> None:
    whole = open_source(official)
    names = listed(tmp_path / "two.txt", "\ufeffn00000003\r\n\r\nn00000001 crane, a bird\r\n")
    source = select_classes(whole, names)
    assert [c.wnid for c in source.classes] == ["n00000003", "n00000001"]
    assert [c.words for c in source.classes] == ["crane", "crane"]
    for split, members in rows(whole).items():
        assert sorted(rows(source)[split]) == sorted(m for m in members if m[-1] != "n00000002")
    labels = [m.label for m in source.members["train"]]
    assert labels == sorted(labels)
    names_of_val = [m.name for m in source.members["val"]]
    assert names_of_val == sorted(names_of_val)
    assert source.label_order == "place of the class in two.txt"


def test_all_classes_in_their_own_order_are_the_same_source(official: Path, tmp_path: Path) -> None:
    whole = open_source(official)
    names = listed(tmp_path / "all.txt", "".join(f"{c.wnid}\n" for c in whole.classes))
    assert select_classes(whole, names).digest() == whole.digest()


def test_a_data_set_of_chosen_classes_is_sound(official: Path, tmp_path: Path) -> None:
    names = listed(tmp_path / "two.txt", "n00000003\nn00000001\n")
    source = select_classes(open_source(official), names)
    settings = ConvertSettings(size_px=40, shard_images=10, seed=7, class_order="as listed")
    manifest = build(source, tmp_path / "set", settings)
    assert manifest.settings["class_order"] == "as listed"
    assert not verify(tmp_path / "set").findings
    reader = SplitReader(tmp_path / "set", "train")
    assert sorted(set(reader.labels.tolist())) == [0, 1]


def test_numbers_are_sorted_as_text_with_a_note_and_can_be_put_in_order(tmp_path: Path, picture: Picture) -> None:
    for k in range(12):
        write_files(tmp_path / "src" / str(k), {f"{k}.jpg": picture(k)})
    source = open_source(tmp_path / "src")
    assert [c.wnid for c in source.classes] == sorted(map(str, range(12)))
    (note,) = order_notes(source)
    assert "sorted as text, as everywhere: 0, 1, 10, 11, ...; so label 2 is class 10" in note
    assert "--classes FILE" in note
    ordered = select_classes(source, listed(tmp_path / "order", "".join(f"{k}\n" for k in range(12))))
    assert [(m.name, m.label) for m in ordered.members["train"]] == [(f"{k}.jpg", k) for k in range(12)]
    assert order_notes(ordered) == ()


def test_cifar_10_can_be_cut_down_to_two_classes(tmp_path: Path) -> None:
    pixels = write_cifar10(tmp_path / "cifar", 12, archive=False).reshape(-1, 3 * 32 * 32)
    source = select_classes(open_source(tmp_path / "cifar"), listed(tmp_path / "two", "truck\nairplane\n"))
    readable = materialise(source, tmp_path / "scratch")
    found: dict[int, set[bytes]] = {0: set(), 1: set()}
    for split in SPLITS:
        for m in readable.listing(split):
            with (readable.root / m.file).open("rb") as file:
                file.seek(m.offset)
                found[m.label].add(file.read(m.length))
    for label, digit in ((0, 9), (1, 0)):
        assert found[label] == {row.tobytes() for i, row in enumerate(pixels) if i % 12 % 10 == digit}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("n00000001\nn00000009\n", "line 2: n00000009 is no class of the source"),
        ("n00000001, n00000002\ncrane\n", "line 2: crane is no class of the source"),
        ("n00000001\nn00000001 crane\n", "line 2: n00000001 crane is named a second time, after line 1"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(official: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_classes(open_source(official), listed(tmp_path / "list", text))


def test_a_list_that_is_not_there_is_refused(official: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        select_classes(open_source(official), tmp_path / "nowhere")
