"""The rows of a data set of planes: which set is taken, what is measured, and why not where there is none."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError
from alexnet.tools.bench import loader_stages, planes_stages
from alexnet.tools.bench.bench_data import LoaderTask, planes_of
from alexnet.tools.bench.command import main
from alexnet.tools.bench.loader_rows import cases_of
from alexnet.tools.bench.measure import Timing, measure_rows
from alexnet.tools.bench.prep import measure_prep
from alexnet.tools.bench.report import read_report
from alexnet.tools.bench.stage import CannotRunError
from tests.planes import write_planes_set

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.fixture(scope="module")
def jpegs(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 40 px, with their planes beside."""
    root = Path(shutil.copytree(data_set, tmp_path_factory.mktemp("beside") / "set"))
    write_planes_set(root, root.with_name("set-planes"))
    return root


def task_of(data: Path, **changes: Any) -> LoaderTask:
    return replace(LoaderTask(data=str(data), split="train", batch_images=8, threads=2), **changes)


def test_planes_are_those_of_the_images_or_there_are_none(jpegs: Path, ci_100: Path, tmp_path: Path) -> None:
    task, planes = task_of(jpegs), jpegs.with_name("set-planes")
    assert planes_of(task, None) == planes_of(task, planes) == (str(planes), "")
    alone = Path(shutil.copytree(jpegs, tmp_path / "set"))
    assert planes_of(task_of(alone), None).why == (
        f"there is no {tmp_path}/set-planes; `alexnet-prep decode {tmp_path}/set` makes it"
    )
    shutil.copytree(jpegs, tmp_path / "set-planes")
    assert "does not hold the planes of" in planes_of(task_of(alone), None).why, "JPEGs again"
    (tmp_path / "set-planes" / "index.npy").unlink()
    found = planes_of(task_of(alone), None)
    assert (found.data, "index.npy: cannot be read" in found.why) == ("", True)
    for wrong in (ci_100, tmp_path / "none"):
        with pytest.raises(InputError, match=r"^--planes "):
            planes_of(task, wrong)
    with pytest.raises(InputError, match="does not hold the planes of"):
        planes_of(task_of(ci_100), planes)
    with pytest.raises(InputError, match="set-planes: holds planes; give the data set that they were decoded from"):
        planes_of(task_of(planes), None)


def test_rows_without_planes_say_so_and_the_others_are_measured(jpegs: Path, tmp_path: Path) -> None:
    json_file = tmp_path / "bench.json"
    alone = Path(shutil.copytree(jpegs, tmp_path / "alone"))
    how = ["--rows", "read,stream-planes-uint8", "--seconds", "0.05", "--rounds", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, ["dataloader", str(alone), *how, "--json", str(json_file)])
    assert result.exit_code == 0, result.output
    report = read_report(json_file)
    assert [row.name for row in report.rows] == ["read"]
    assert [(one.name, one.why) for one in report.missing] == [
        ("stream-planes-uint8", planes_of(task_of(alone), None).why)
    ]


def test_rows_of_planes_run_beside_those_of_jpegs(jpegs: Path) -> None:
    task = task_of(jpegs)
    names = ("stream-uint8", "storage-cold-planes", "planes-traffic-uint8")
    cases = cases_of(task, 2, "cpu", names=names, planes=planes_of(task, None))
    data = {case.name: Path(str(case.options["data"])).name for case in cases}
    assert data == {"stream-uint8": "set", "storage-cold-planes": "set-planes", "planes-traffic-uint8": "set-planes"}
    own = [case for case in cases if "planes" in case.name]
    rows, missing, _ = measure_rows(own, Timing(rounds=2, seconds=0.03), lambda _: None)
    assert all("cache" in one.why for one in missing), "some systems cannot forget"
    found = {row.name: row for row in rows}
    assert found["planes-traffic-uint8"].rounds[-1].peak_bytes < 250e6, "a process with torch would take more"
    assert all(r.page_faults is not None for row in rows for r in row.rounds)


def test_each_cold_round_is_an_epoch_from_its_beginning(jpegs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[list[Path]] = []
    monkeypatch.setattr(loader_stages, "forget", forgotten.append)
    task = task_of(jpegs)
    with pytest.raises(CannotRunError, match="the data set has 3 shards, and 4 windows of them are wanted"):
        planes_stages.cold_stream(output="uint8", order="blocks", **asdict(task))
    monkeypatch.setattr(planes_stages, "_WINDOWS", 3)
    stage = planes_stages.cold_stream(output="uint8", order="blocks", **asdict(task))
    assert stage.ready_batches == 2, "the first window's 8 images, and the batch that the second may begin in"
    for rounds in (1, 2):
        assert list(stage.work()) == [8, 8, 8]
        stage.after_round()
        assert forgotten == [task.files] * rounds


def test_of_a_data_set_decoding_to_planes_is_measured(jpegs: Path) -> None:
    report = measure_prep(lambda _: None, source=jpegs, images=8, workers=(1,), timing=Timing(1, 0.05))
    assert (report.complete, report.missing) == (True, ())
    bound, one = report.rows
    assert bound.title.startswith("bound: one core, JPEGs to planes")
    assert one.shares["the bound, a core"]["wall"] == pytest.approx(one.rate("wall") / bound.rate("wall"))
    assert one.settings == "8 images a shard"
    assert [ratio.about for ratio in report.ratios] == ["one worker of alexnet-prep decode over its bound"]
    assert report.conditions.data
    assert report.conditions.data.images == 24
    with pytest.raises(InputError, match="holds planes already"):
        measure_prep(
            lambda _: None, source=jpegs.with_name("set-planes"), images=8, workers=(1,), timing=Timing(2, 0.05)
        )


def test_a_stream_of_planes_uses_its_memory_again(ci_100: Path, tmp_path: Path) -> None:
    """A float32 crop has 147 pages: in fresh memory each would be a fault."""
    planes = planes_of(task_of(ci_100), write_planes_set(ci_100, tmp_path / "planes"))
    names = ("planes-traffic-float32", "stream-planes-float32")
    cases = cases_of(task_of(ci_100, batch_images=16), 2, "cpu", names=names, planes=planes)
    (traffic, stream), missing, _ = measure_rows(cases, Timing(rounds=3, seconds=0.1), lambda _: None)
    assert missing == ()
    assert stream.shares["planes-traffic-float32"]["wall"] == stream.rate("wall") / traffic.rate("wall")
    assert "planes" in stream.settings
    assert sum(r.page_faults or 0 for r in stream.rounds) < 5 * sum(r.amount for r in stream.rounds)
    whole_ring = (2 + 3) * 16 * 224 * 224 * 3 * 4  # keeps depth + 3, each from when it is needed; all were 2 GB
    assert stream.rounds[-1].peak_bytes - stream.rounds[0].peak_bytes < whole_ring
