"""Which rows there are, how their rounds go on, and what options refuse."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from alexnet.pipeline.decoders.jpeg_engine import JpegEngine
from alexnet.shards.errors import InputError
from alexnet.tools.bench.command import main
from alexnet.tools.bench.loader import stages_gpu, tune
from alexnet.tools.bench.loader.need import read_need
from alexnet.tools.bench.loader.rows import choose_rows, known_peers, peer_rows, rows_of
from alexnet.tools.bench.loader.stages_storage import storage
from alexnet.tools.bench.measuring.figures import refuse_unwritable
from alexnet.tools.bench.measuring.row_process import Runner
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings, Work
from alexnet.tools.bench.names import SECONDS

MEASUREMENTS = Path(__file__).parents[3] / "docs" / "measurements"


def passes_of(*, starts_over: bool) -> int:
    """Run three rounds of two batches on a stage whose passes have many; return how many passes were begun."""
    begun = []

    def work() -> Work:
        begun.append(1)
        for _ in range(1_000_000):
            yield 1, 1

    runner = Runner(Stage(work=work, settings="", least_batches=2, starts_over=starts_over))
    for _ in range(3):
        runner.round(1e-9)
    return len(begun)


def test_a_round_goes_on_where_the_one_before_ended_unless_it_must_not() -> None:
    assert passes_of(starts_over=False) == 1
    assert passes_of(starts_over=True) == 3


def test_cold_storage_starts_over(ci_100: Path) -> None:
    """After a round the shards are read in again: to go on in the middle would be to read them from the cache."""
    settings = StageSettings(data=ci_100, split="train", batch_images=16, threads=1)
    assert storage(settings, cold=True).starts_over
    assert not storage(settings, cold=False).starts_over


def test_an_engine_that_is_not_there_gets_no_figure(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = JpegEngine(engines=0, cores_per_engine=0, utilisation_percent=None, nvjpeg="no engine here", nvml="")
    monkeypatch.setattr(stages_gpu, "query_jpeg_engine", lambda: none)
    settings = StageSettings(data=ci_100, split="train", batch_images=16, threads=1)
    with pytest.raises(CannotRunError, match="no engine here"):
        stages_gpu.nvjpeg(settings, {"by": "engine"})
    assert "no engine here" in stages_gpu.nvjpeg(settings, {"by": "kernels"}).settings


def test_a_search_that_was_interrupted_recommends_nothing(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> tuple[list[Any], bool]:
        return [], False

    monkeypatch.setattr(tune, "measure_rows", interrupted)
    settings = StageSettings(data=ci_100, split="train", batch_images=16, threads=1)
    assert tune.tune(settings, "cpu", 10.0) == (["tuning was interrupted: no options are recommended"], False)


def test_names_are_known_or_refused() -> None:
    rows = [*rows_of(2, "cpu"), *peer_rows(known_peers("torch,spdl"))]
    assert len({row.name for row in rows}) == len(rows)
    names = {row.name for row in rows}
    assert all(not row.limit or row.limit in names for row in rows)
    peers = {row.name for row in rows if row.group == "peer"}
    assert {row.name for row in choose_rows(rows, quick=False, names=("read",))} == {"read", *peers}
    assert {row.name for row in choose_rows(rows, quick=False, names=("read", "spdl"))} == {"read", "spdl"}
    assert len(choose_rows(rows, quick=True, names=())) < len(choose_rows(rows, quick=False, names=()))
    with pytest.raises(InputError, match="--rows reed"):
        choose_rows(rows, quick=False, names=("reed",))
    with pytest.raises(InputError, match="--compare pytorch"):
        known_peers("torch,pytorch")


def test_what_the_trainer_needs_is_given_or_measured() -> None:
    assert read_need("40000") == 40_000
    measured = MEASUREMENTS / "model.json"
    rows, keys = json.loads(measured.read_text())["rows"], ("images_per_s", "images_per_s_all_cores_busy")
    assert read_need(str(measured)) in {row[key]["median"] for row in rows for key in keys}
    assert read_need(str(measured)) >= max(min(row[key]["median"] for key in keys) for row in rows)
    for wrong in ("nan", "0", "-1", "inf", "fast", str(MEASUREMENTS / "train.json")):
        with pytest.raises(InputError, match=re.escape(f"--need {wrong}: must be")):
            read_need(wrong)


@pytest.mark.parametrize("text", ["nan", "inf", "1e9", "0"])
def test_seconds_that_would_never_end_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="range"):
        SECONDS.convert(text, None, None)
    result = CliRunner().invoke(main, ["dataloader", "--seconds", text])
    assert result.exit_code == 2
    assert "--seconds" in result.stderr


def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept.json"
    file.write_text("")
    refuse_unwritable(file)
    monkeypatch.setattr("os.access", lambda path, _: path != file)  # as for another user; root may do all
    with pytest.raises(InputError, match="cannot be written"):
        refuse_unwritable(file)
