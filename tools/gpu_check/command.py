"""One rehearsed command for a GPU that is borrowed for a short time: `python -m alexnet.tools.gpu_check --out DIR`.

In under ten minutes it says what the machine is, what it could do at best, whether the tests that need a GPU pass, and
how fast network, stream and both together are. The sections run in that order, each within its own seconds. A section
that cannot run is left out with the reason, and the others go on; so the command does something useful without a GPU,
without DALI and without tests. `DIR/gpu-check.json` is written anew after every section: what was measured before a
crash, a hang or the end of the lease is kept.

Leaves with exit code 1 if a section failed or a test did; what a machine without a GPU leaves out is no failure.
"""

import dataclasses
import faulthandler
import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

import alexnet
from alexnet.pipeline.decoders.jpeg_engine import JpegEngine, query_jpeg_engine
from alexnet.shards.errors import InputError
from alexnet.shards.files import replace
from alexnet.shards.manifest import read_manifest
from alexnet.tools.console import Program, find_data, one_line_errors, tell
from alexnet.tools.machine import Machine, describe_machine

if TYPE_CHECKING:  # torch is loaded when the command runs, not for its --help
    from alexnet.model.placement import Placement
    from alexnet.tools.gpu_check.limits import Row

SCHEMA = 1
RESULT_NAME = "gpu-check.json"
_TOTAL_SECONDS = 570.0
_HANG_SECONDS = 595.0
_TEST_SECONDS = 240.0
_CPU_SHARE = 0.3  # of a section's seconds: a CPU's figures are a by-product
_QUICK_SHARE = 0.05
_GPU_BATCHES = (128, 512, 1024)
_PLAIN_WIDTH = 160
_TAIL_CHARACTERS = 8000


@dataclass(frozen=True, kw_only=True)
class Section:
    """Name one thing to measure, the seconds it may take, and why it cannot run here (empty if it can)."""

    name: str
    seconds: float
    measure: "Callable[[float], Iterator[Row]]"
    left_out: str = ""


@dataclass(kw_only=True)
class Report:
    """Collect what was measured and what was not. `tests`: counts of the tests marked gpu, if they ran."""

    machine: Machine
    jpeg_engine: JpegEngine
    rows: "list[Row]" = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    tests: dict[str, Any] = field(default_factory=lambda: {"ran": False})
    failed: bool = False
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.started

    def leave_out(self, name: str, why: str) -> None:
        """Record that something was not measured."""
        self.left_out.append({"name": name, "why": why})

    def write(self, path: Path) -> None:
        """Write everything so far as JSON, replacing the file as a whole."""
        content = {
            "schema": SCHEMA,
            "machine": dataclasses.asdict(self.machine) | {"jpeg_engine": dataclasses.asdict(self.jpeg_engine)},
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "left_out": self.left_out,
            "tests": self.tests,
            "seconds": round(self.seconds, 1),
        }
        replace(path, json.dumps(content, indent=1).encode() + b"\n")


@click.command(cls=Program)
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the JSON file."
)
@click.option("--quick", is_flag=True, help="A twentieth of the time and no tests: for trying the command itself.")
@one_line_errors
def main(data: Path | None, out: Path, quick: bool) -> None:
    """Say what this machine can do: its limits, the GPU tests, network, stream, end to end.

    DATA is found as `alexnet-train` finds it. The figures go to OUT/gpu-check.json, too.
    """
    folder, why = find_data(data)
    read_manifest(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; give a folder that can be written") from None
    faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True, file=2)  # a GPU that hangs raises nothing
    report = Report(machine=describe_machine(), jpeg_engine=query_jpeg_engine())
    for line in (*report.machine.lines(), f"data: {folder} ({why})"):
        tell(line)
    for section in _sections(report, folder, quick=quick):
        _run(section, report)
        report.write(out / RESULT_NAME)
    faulthandler.cancel_dump_traceback_later()
    _print(report)
    tell(f"{out / RESULT_NAME}: {len(report.rows)} rows in {report.seconds:.0f} s")
    if report.failed:
        raise SystemExit(1)


def _sections(report: Report, data: Path, *, quick: bool) -> list[Section]:
    """Return what is measured, in order, with the seconds that this machine gets."""
    from alexnet.model.placement import choose_placement
    from alexnet.tools.gpu_check import limits, rehearsal

    placement = choose_placement(None, 1, "auto")
    no_gpu = report.machine.gpu_why
    share = (_CPU_SHARE if no_gpu else 1.0) * (_QUICK_SHARE if quick else 1.0)
    device = placement.device
    no_tests = no_gpu or ("--quick leaves the tests out" if quick else _why_no_tests())
    return [
        Section(name="JPEG engine", seconds=1, measure=lambda _: _jpeg_engine(report.jpeg_engine), left_out=no_gpu),
        Section(name="host memory copy", seconds=share * 3, measure=limits.host_copy),
        Section(name="host to device copy", seconds=share * 3, measure=limits.host_to_device_copy, left_out=no_gpu),
        Section(name="device memory copy", seconds=share * 3, measure=limits.device_copy, left_out=no_gpu),
        Section(name="bf16 matrix product", seconds=share * 5, measure=lambda s: limits.matrix_product(device, s)),
        Section(name="decoding alone", seconds=share * 12, measure=lambda s: limits.decoding(data, device, s)),
        Section(
            name="tests marked gpu",
            seconds=_TEST_SECONDS,
            measure=lambda s: _marked_tests(report, s),
            left_out=no_tests,
        ),
        *_network_sections(placement, no_gpu, share * 15),
        Section(name="stream", seconds=share * 15, measure=lambda s: rehearsal.stream_alone(placement, data, s)),
        Section(name="end to end", seconds=share * 30, measure=lambda s: rehearsal.end_to_end(placement, data, s)),
    ]


def _network_sections(placement: "Placement", no_gpu: str, seconds: float) -> list[Section]:
    from alexnet.tools.gpu_check import rehearsal

    def section(batch_images: int, left_out: str) -> Section:
        return Section(
            name=f"network, batch {batch_images}",
            seconds=seconds,
            measure=lambda s: rehearsal.network(placement, batch_images, s),
            left_out=left_out,
        )

    on_gpu = [section(batch_images, no_gpu) for batch_images in _GPU_BATCHES]
    return [*on_gpu, section(rehearsal.CPU_BATCH_IMAGES, "")] if no_gpu else on_gpu


def _run(section: Section, report: Report) -> None:
    """Measure one section, or record why not."""
    why = section.left_out
    if not why and report.seconds + section.seconds > _TOTAL_SECONDS:
        why = f"no time left: {report.seconds:.0f} s are over and it may take {section.seconds:.0f} s"
    if why:
        report.leave_out(section.name, why)
        return
    click.echo(f"{section.name} ...", err=True)
    try:
        _release_memory()
        for row in section.measure(section.seconds):
            report.rows.append(row)
    except Exception as error:
        # On a borrowed machine one missing library or one full memory must not cost the other sections: whatever
        # went wrong is reported in its place.
        message = (str(error).strip() or "no message").splitlines()[0]
        report.leave_out(section.name, f"{type(error).__name__}: {message}")
        report.failed = True


def _release_memory() -> None:
    """Give back what the section before left: this one may need all of the GPU, and DALI allocates for itself."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _jpeg_engine(engine: JpegEngine) -> "Iterator[Row]":
    from alexnet.tools.gpu_check.limits import Row

    said = f"{engine.nvjpeg}; {engine.nvml}"
    if engine.engines is None:
        raise RuntimeError(said)
    yield Row(name="JPEG engines", value=engine.engines, unit="engines", note=said)


def _why_no_tests() -> str:
    """Return why the tests cannot run, or nothing: an installed wheel has no tests, and pytest comes with `.[dev]`."""
    if not (_project() / "pyproject.toml").exists() or not (_project() / "tests").is_dir():
        return "there is no tests folder beside the package: it was installed, not checked out"
    return "" if importlib.util.find_spec("pytest") else "pytest is not installed"


def _marked_tests(report: Report, seconds: float) -> "Iterator[Row]":
    """Run the tests marked gpu in a process of their own, so that a crash ends them alone."""
    from alexnet.tools.gpu_check.limits import Row

    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests", "-q", f"--junitxml={junit}"]
        command.append("--continue-on-collection-errors")  # a broken file elsewhere must not cost the lease
        done = subprocess.run(
            command, cwd=_project(), timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not junit.exists():
            raise RuntimeError(f"pytest ended with {done.returncode} and no result: {done.stdout[-_TAIL_CHARACTERS:]}")
        suites = list(xml.etree.ElementTree.parse(junit).getroot().iter("testsuite"))
    counts = {name: sum(int(s.get(name, 0)) for s in suites) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    report.tests = {"ran": True, "passed": passed, "failed": failed, "skipped": counts["skipped"]}
    if failed:
        report.failed = True
        report.tests["output"] = done.stdout[-_TAIL_CHARACTERS:]
    note = f"{failed} failed, {counts['skipped']} skipped" if counts["tests"] else "none collected"
    yield Row(name="tests marked gpu", value=passed, unit="passed", note=note)


def _project() -> Path:
    return Path(alexnet.__file__).parent.parent


def _print(report: Report) -> None:
    from alexnet.tools.gpu_check.limits import figure

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    table = Table("what", "", "unit", "note")
    table.columns[1].justify = "right"
    for row in report.rows:
        table.add_row(row.name, figure(row.value), row.unit, row.note)
    console.print(table)
    for entry in report.left_out:
        console.print(f"left out: {entry['name']}: {entry['why']}", highlight=False, markup=False)
