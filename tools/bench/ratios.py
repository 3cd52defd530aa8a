"""Check every guarded ratio of the project, by hand or nightly: `make ratios`.

    python -m alexnet.tools.bench.ratios [--data DATA] [--source SOURCE] [--from FOLDER]

Measures the stream against the plain DALI graph and its limit, the network against the naive one, two processes against
one, and the converter against its bound, with the thresholds of `guards.py`; prints a line for each, and leaves with 1
if one is missed. With `--from`, the JSON files in a folder are judged and nothing is measured. It takes four minutes on
two cores.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.bench.guards import DATALOADER, OVER_NAIVE_BATCH, PREP_SHARE_OF_BOUND, in_words, missed
from alexnet.tools.bench.loader.rows import rows_of
from alexnet.tools.bench.schema import read_report
from alexnet.tools.console import StoppedError, one_line_errors

_PREP_IMAGES = 1_200
_PREP_ROUNDS = 3


def judged(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the guarded ratios of a report: those with something asked of them."""
    if report["command"] == "prep":
        return [_of_prep(report)] if any(row["workers"] == 1 for row in report["rows"]) else []
    return [ratio for ratio in report["ratios"] if ratio["at_least"] is not None]


def _of_prep(report: dict[str, Any]) -> dict[str, Any]:
    (row,) = (row for row in report["rows"] if row["workers"] == 1)
    values = sorted(a / b for a, b in zip(row["rounds"], report["bound_rounds"], strict=True))
    spread = {"median": row["share_of_bound_a_core"], "min": values[0], "max": values[-1]}
    return {
        "about": "one worker of the converter over its bound",
        "row": "1 worker",
        "over": "bound",
        "wall": spread,
        "cpu": spread,
        "by": "wall",
        "at_least": PREP_SHARE_OF_BOUND,
        "holds": spread["median"] >= PREP_SHARE_OF_BOUND,
    }


def measured(data: Path | None, source: Path | None) -> Iterator[dict[str, Any]]:
    """Measure what the ratios need, one command after the other."""
    from alexnet.tools.bench.bench_data import bench_data
    from alexnet.tools.bench.converter.prep import measure_prep
    from alexnet.tools.bench.loader import dataloader
    from alexnet.tools.bench.networks import model

    folder, why = bench_data(data, quick=False)
    rows = loader_rows(usable_cores())
    yield dataloader.measure(
        dataloader.DataloaderBench(
            data=folder, why=why, split="train", batch_images=128, threads=None, device=None, rounds=5, seconds=1.0,
            rows=rows,
        )
    )  # fmt: skip
    yield model.measure(model.ModelBench(archs=("alexnet-2012",), batches=(OVER_NAIVE_BATCH,)))
    with tempfile.TemporaryDirectory(prefix="alexnet-ratios-") as scratch:
        report, complete = measure_prep(source or _drawn(Path(scratch)), _PREP_IMAGES, (1,), _PREP_ROUNDS)
        yield report | {"complete": complete}


def loader_rows(threads: int) -> tuple[str, ...]:
    """Return the names of the loader's rows that ratios are taken of, on a machine with so many threads."""
    guarded = {name for guard in DATALOADER for name in (guard.row, guard.over)} | {"stream-beside-trainer-here"}
    return tuple(row.name for row in rows_of(threads, "cpu") if row.name in guarded or "threads" in row.options)


def _drawn(folder: Path) -> Path:
    from alexnet.tools.synth.run import run_synth

    run_synth(
        folder / "images", classes=100, images=_PREP_IMAGES, val_images=None, seed=0, layout="official", size_px=None,
        shard_images=None, workers=None, overwrite=False, as_json=False,
    )  # fmt: skip
    return folder / "images"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Shards.  [default: as `alexnet-bench dataloader`]")
@click.option("--source", type=click.Path(path_type=Path), help="Images for the converter.  [default: generated]")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Judge the JSON files here; measure nothing.")
@one_line_errors
def main(data: Path | None, source: Path | None, folder: Path | None) -> None:
    """Check every guarded ratio; exit code 1 with a line for each that is missed."""
    if folder is not None:
        files = sorted(folder.glob("*.json"))
        if not files:
            raise InputError(f"--from {folder}: holds no JSON files of `alexnet-bench --json`")
        reports: Iterator[dict[str, Any]] = map(read_report, files)
    else:
        reports = measured(data, source)
    found = []
    for report in reports:
        if not report.get("complete", True):
            raise StoppedError("interrupted, or made of a run that was; no ratio of it is judged")
        for ratio in judged(report):
            found.append(ratio)
            word = "holds" if ratio["holds"] else "MISSED"
            click.echo(
                f"{word}: {ratio['about']}: {in_words(ratio)} by {ratio['by']} time, at least {ratio['at_least']:.2f}"
            )
    if not found:
        raise StoppedError("no guarded ratio was measured")
    if failed := missed(found):
        raise StoppedError(f"{len(failed)} of {len(found)} ratios missed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
