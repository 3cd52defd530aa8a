"""A data set is the same bytes for every number of workers and every interruption, and nothing is lost on the way."""

import hashlib
import json
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.pool import Progress
from alexnet.tools.convert.sources import open_source
from alexnet.tools.convert.work import load_outcome

SETTINGS = ConvertSettings(size_px=40, shard_images=10, seed=7)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ignore(_: Progress) -> None:
    pass


def test_every_entry_is_written_or_rejected_with_a_reason(data_set: Path) -> None:
    manifest = read_manifest(data_set)
    train, val = manifest.counts["train"], manifest.counts["val"]
    assert (train.input, train.written, train.rejected) == (27, 24, 3)
    assert (val.input, val.written, val.rejected) == (7, 7, 0)
    rejected = [json.loads(line) for line in (data_set / "rejected.jsonl").read_text().splitlines()]
    assert {r["member"]: r["reason"].split(":")[0] for r in rejected} == {
        "n00000002_3.JPEG": "empty file",
        "n00000002_4.JPEG": "OSError",
        "n00000003_5.JPEG": "not an image of any known format",
    }


def test_rejected_images_leave_their_shard_short_and_move_nothing(data_set: Path, official: Path) -> None:
    manifest = read_manifest(data_set)
    plans = plan_shards(open_source(official), SETTINGS)
    rejected = [json.loads(line) for line in (data_set / "rejected.jsonl").read_text().splitlines()]
    for plan, record in zip(plans, manifest.shards, strict=True):
        bad = [r for r in rejected if r["split"] == plan.split and r["place"] // 10 == plan.number]
        assert record.images == len(plan.members) - len(bad)


def test_training_images_are_shuffled_across_classes(official: Path) -> None:
    plans = [plan for plan in plan_shards(open_source(official), SETTINGS) if plan.split == "train"]
    labels = [m.label for plan in plans for m in plan.members]
    assert sorted(labels) != labels
    assert len({m.label for m in plans[0].members}) == 3


def test_workers_do_not_change_a_byte(official: Path, data_set: Path, tmp_path: Path) -> None:
    build(open_source(official), tmp_path / "set", SETTINGS, workers=3, on_progress=ignore)
    assert digests(tmp_path / "set") == digests(data_set)


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(official: Path, data_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    source = open_source(official)

    def interrupt(progress: Progress) -> None:
        if progress.written >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(source, root, SETTINGS, workers=1, on_progress=interrupt)
    assert not (root / "manifest.json").exists()
    done = [p for p in plan_shards(source, SETTINGS) if load_outcome(root, p)]
    before = {p: (root / f"{p.split}/{p.number:06d}.tar").stat().st_mtime_ns for p in done}
    build(source, root, SETTINGS, workers=1, on_progress=ignore)
    assert digests(root) == digests(data_set)
    after = {p: (root / f"{p.split}/{p.number:06d}.tar").stat().st_mtime_ns for p in done}
    assert after == before, "a shard that was complete was written again"


def test_a_finished_set_is_left_alone(official: Path, data_set: Path) -> None:
    before = digests(data_set)
    manifest = build(open_source(official), data_set, SETTINGS, workers=1, on_progress=ignore)
    assert manifest == read_manifest(data_set)
    assert digests(data_set) == before


def test_a_folder_with_another_data_set_is_refused_and_untouched(official: Path, data_set: Path) -> None:
    before = digests(data_set)
    other = ConvertSettings(size_px=40, shard_images=10, seed=8)
    with pytest.raises(InputError, match=r"another data set \(seed 7 there, 8 asked for\); give another --out"):
        build(open_source(official), data_set, other, workers=1, on_progress=ignore)
    assert digests(data_set) == before


def test_a_folder_with_something_else_is_refused_and_untouched(official: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no data set"):
        build(open_source(official), tmp_path, SETTINGS, workers=1, on_progress=ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_source_is_only_read(official: Path, data_set: Path) -> None:
    assert sorted(p.name for p in official.iterdir()) == [
        "ILSVRC2012_devkit_t12.tar.gz",
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
    ]


def test_nothing_of_the_machine_is_in_the_manifest(data_set: Path, official: Path) -> None:
    text = (data_set / "manifest.json").read_text()
    for trace in (str(data_set), str(official), "time", "worker", "host"):
        assert trace not in text
    assert not (data_set / ".work").exists()


@pytest.mark.parametrize("field", ["size_px", "quality", "shard_images"])
def test_settings_out_of_range_are_named(field: str) -> None:
    with pytest.raises(InputError, match=f"{field}=0: must be between"):
        ConvertSettings(**{field: 0})
