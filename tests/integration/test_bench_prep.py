"""`alexnet-bench prep` and `prep-memory`: figures of speed, of second calls and of memory, as tables and as JSON."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.shards.errors import InputError
from alexnet.tools.bench.command import main
from alexnet.tools.bench.converter.generated import write_entries, write_pictures
from alexnet.tools.bench.converter.index_memory import make_up
from alexnet.tools.bench.converter.prep_memory import MemoryBench, measure_index, measure_worker
from alexnet.tools.bench.measuring.process_memory import peak_bytes
from alexnet.tools.bench.schema import faults
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import open_source
from alexnet.tools.samples.small_sets import write_mnist


def test_speed_and_second_calls_beside_the_bound(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 64)
    arguments = ["prep", str(tmp_path / "pictures"), "--images", "64", "--workers", "1,2", "--rounds", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "prep.json")])
    assert result.exit_code == 0, result.output
    assert "beyond converting the rest" in result.output
    report = json.loads((tmp_path / "prep.json").read_text())
    assert [row["workers"] for row in report["rows"]] == [1, 2]
    assert report["conditions"]["images"] == report["conditions"]["entries"] == 64
    for row in report["rows"]:
        bound = report["bound_images_per_s_a_core"]["median"] * row["workers"]
        assert row["share_of_bound_a_core"] == pytest.approx(row["images_per_s"]["median"] / bound)
    resume = report["resume"]
    assert 0 < resume["done_shards"] < resume["shards"] == 64
    for key in ("headers_s", "index_s", "resumed_s", "complete_s"):
        assert 0 < resume[key]["min"] <= resume[key]["median"] <= resume[key]["max"]
    assert resume["resumed_s"]["median"] > resume["index_s"]["median"]
    assert 20 < report["largest_worker_mb"] < 300


def test_ctrl_c_writes_the_rounds_that_were_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "pictures", 32)
    bounds: Iterator[float | KeyboardInterrupt] = iter([100.0, KeyboardInterrupt()])

    def bound(_: Source) -> float:
        one = next(bounds)
        if isinstance(one, KeyboardInterrupt):
            raise one
        return one

    monkeypatch.setattr("alexnet.tools.bench.converter.prep._bound", bound)
    arguments = ["prep", str(tmp_path / "pictures"), "--images", "32", "--workers", "1", "--rounds", "3"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "prep.json")])
    assert result.exit_code == 130, result.output
    assert "interrupted: these are the rounds up to then" in result.stderr
    report = json.loads((tmp_path / "prep.json").read_text())
    assert faults(report) == []
    assert report["conditions"]["rounds"] == len(report["bound_rounds"]) == len(report["rows"][0]["rounds"]) == 1
    bounds = iter([KeyboardInterrupt()])
    nothing = CliRunner().invoke(main, arguments)
    assert nothing.exit_code == 130
    assert nothing.stderr.strip().endswith("interrupted before a round was over")


def test_ctrl_c_ends_the_measuring_of_memory_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alexnet.tools.bench.converter.prep_memory.measure_index", interrupted)
    result = CliRunner().invoke(main, ["prep-memory", "--quick"])
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted; nothing was written"


@pytest.mark.parametrize("command", ["prep", "prep-memory"])
def test_figures_that_cannot_be_written_are_refused_first(tmp_path: Path, command: str) -> None:
    source = [str(tmp_path)] if command == "prep" else []
    result = CliRunner().invoke(main, [command, *source, "--json", str(tmp_path / "nowhere" / "figures.json")])
    assert result.exit_code == 2
    assert "figures.json: cannot be written" in result.stderr


def test_pixels_that_need_no_decoding_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, 5, 2)
    result = CliRunner().invoke(main, ["prep", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds raw pixels (mnist)" in result.stderr


def test_an_index_takes_44_bytes_an_entry_walked_made_up_or_kept(tmp_path: Path) -> None:
    walked, made_up, kept = measure_index(MemoryBench(entries=140_000, classes=100), tmp_path)
    assert (walked.how, made_up.how, kept.how) == ("walked", "made up", "kept")
    assert (walked.entries, made_up.entries, kept.entries) == (10_000, 140_000, 140_000)
    assert (walked.shards, made_up.shards, kept.shards) == (2, 28, 28)
    for row in (walked, made_up, kept):
        assert row.classes == 100
        assert row.kept_bytes_an_entry == pytest.approx(44, abs=0.1)  # 20 of it are the names
        assert row.start_peak_bytes <= row.index_peak_bytes <= row.plan_peak_bytes
    grown = max(row.plan_peak_bytes - row.start_peak_bytes for row in (made_up, kept))
    assert grown < 140_000 * 66 + (16 << 20), (
        "66 bytes an entry make 0.93 GB of 14 million; 16 MiB are the heap's slack"
    )


def test_walking_all_entries_gives_the_same_index(tmp_path: Path) -> None:
    _, walked, kept = measure_index(MemoryBench(entries=2_800, classes=10, walk=True), tmp_path)
    assert (walked.how, walked.entries, kept.entries) == ("walked", 2_800, 2_800)
    source = open_source(tmp_path / "all")
    made_up = make_up(tmp_path / "all", 10, 2_800)
    assert len(source.members["train"]) == len(made_up.members["train"])
    assert source.classes == made_up.classes


def test_a_worker_is_watched_while_it_converts() -> None:
    once, twice = measure_worker(20, 1), measure_worker(20, 2)
    assert (once.shard_images, once.shards, twice.shards) == (20, 1, 2)
    assert 20_000 < once.jpeg_bytes < 27_000, "as ImageNet's 22 kB, tar headers and all"
    for row in (once, twice):
        assert 20e6 < row.peak_bytes < 300e6
        assert row.peak_bytes != peak_bytes(), "the worker's, not this process's"


def test_the_command_prints_two_tables_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    arguments = ["prep-memory", "--entries", "2800", "--classes", "10", "--shard-images", "10"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "memory.json")])
    assert result.exit_code == 0, result.output
    assert "within the 1,000 MB allowed" in result.output
    assert "within the 300 MB allowed" in result.output
    report = json.loads((tmp_path / "memory.json").read_text())
    assert [row["how"] for row in report["index"]] == ["walked", "made up", "kept"]
    assert [(row["shard_images"], row["shards"]) for row in report["worker"]] == [(2, 1), (10, 1), (10, 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"], "nothing generated is left behind"


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="--entries 100: must be at least 305,774"):
        MemoryBench(entries=100)
    with pytest.raises(InputError, match="--shard-images 4: must be at least 5"):
        MemoryBench(shard_images=4)


def test_generated_tars_take_no_room_and_are_class_tars(tmp_path: Path) -> None:
    assert write_entries(tmp_path / "tars", 50, 5_000) == 5_000
    source = open_source(tmp_path / "tars")
    assert (source.kind, len(source.classes), len(source.members["train"])) == ("class-tars", 50, 5_000)
    assert sum(path.lstat().st_size for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()) < 100_000


def test_neither_torch_nor_dali_is_loaded_for_the_converter() -> None:
    code = (
        "import sys\n"
        "import alexnet.tools.bench.converter.prep, alexnet.tools.bench.converter.prep_memory\n"
        "print(sorted(name for name in ('torch', 'nvidia.dali') if name in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]"]
