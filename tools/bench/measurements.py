"""Write docs/measurements.md from the JSON files that `make measure` leaves in docs/measurements.

    python -m alexnet.tools.bench.measurements [DOCS]

Every figure above the notes is read from a file, and a test compares the page with the files. `notes.md` beside them is
written by hand: what came from experiments that no command repeats.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.tools.bench.measured_sections import dataloader_section, model_section, prep_section, train_section
from alexnet.tools.bench.repeatability import report_lines
from alexnet.tools.bench.schema import read_report

PAGE, FOLDER, NOTES = "measurements.md", "measurements", "notes.md"
_REPEATS = "repeat"
_SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "dataloader": ("Data path", dataloader_section),
    "model": ("Networks", model_section),
    "train": ("Training", train_section),
    "prep": ("The converter", prep_section),
}
_HEAD = """# Measurements

This page is made by `make measurements-page` from the JSON files in [measurements](measurements), which `make measure`
writes; [benchmarks.md](benchmarks.md) says how they come about. Medians; minimum and maximum in brackets."""
_NO_GPU = """## On a GPU

Not yet measured: no file here is of a run on a GPU. The code for it is there (`alexnet-bench model` and `train` with
`--device cuda`, `make gpu-check`) and has been run on CPUs only."""


def page_of(docs: Path) -> str:
    """Return the page for the files in a folder of documentation.

    Raises InputError for a file that is no report, and for one whose figures are not to be quoted.
    """
    files = sorted((docs / FOLDER).glob("*.json"))
    if not files:
        raise InputError(f"{docs / FOLDER}: holds no JSON files; `make measure` writes them")
    repeats = [file for file in files if file.stem.startswith(_REPEATS)]
    reports = [(file, _quotable(file)) for file in files if file not in repeats]
    parts = [_HEAD]
    for command, (title, section) in _SECTIONS.items():
        own = [(file, report) for file, report in reports if report["command"] == command]
        for file, report in own:
            parts.append(f"## {title}{f' ({file.stem})' if len(own) > 1 else ''}")
            parts += section(report)
    if repeats:
        parts += _from_run_to_run(repeats)
    if not any(report["conditions"].get("device") == "cuda" for _, report in reports):
        parts.append(_NO_GPU)
    notes = docs / FOLDER / NOTES
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8").strip())
    return _joined(parts)


def _quotable(file: Path) -> dict[str, Any]:
    report = read_report(file)
    if not report.get("complete", True):
        raise InputError(f"{file}: is of a run that was interrupted; repeat it")
    if report["conditions"].get("repeated"):
        raise InputError(f"{file}: is of {report['conditions']['images']} images from the CPU's cache; give more DATA")
    return report


def _from_run_to_run(files: Iterable[Path]) -> list[str]:
    lines = report_lines(list(files))
    return [
        "## From run to run",
        "Equal runs of `alexnet-bench dataloader`, one after another with nothing changed, which `alexnet-bench diff` "
        "was then asked to compare at 5%:",
        "\n".join(f"- {line}" for line in lines),
    ]


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def main() -> None:
    """Write the page."""
    docs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs")
    try:
        text = page_of(docs)
    except InputError as error:
        sys.exit(f"Error: {error}")
    (docs / PAGE).write_text(text, encoding="utf-8")
    print(f"{docs / PAGE} is written")


if __name__ == "__main__":
    main()
