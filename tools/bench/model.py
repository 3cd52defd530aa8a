"""`alexnet-bench model`: what networks make on this machine, beside its rooflines and beside the naive version."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

from alexnet.model.networks.settings import NetSettings, architecture_named
from alexnet.model.placement import Parallel, Precision, choose_placement, cpu_has_bf16
from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.bench.conditions import conditions_before
from alexnet.tools.bench.measure import Case, Timing, measure_rows
from alexnet.tools.bench.naive import ARCH as NAIVE_ARCH
from alexnet.tools.bench.networks import PARTS, Task
from alexnet.tools.bench.report import Clock, Group, Options, Ratio, Report, Row, ratio_of
from alexnet.tools.bench.rooflines import bounds, step_work

GUARDED_BATCH = 64
OVER_NAIVE = 2.5
"""The network in bf16 over the naive one, on a CPU that multiplies bf16, in batches of 64."""
PAIR_OVER_ONE = 1.0
"""Two processes of one thread over gloo, over one process of two threads, in the same batches."""

_CPU_BATCHES, _GPU_BATCHES = (GUARDED_BATCH,), (128, 512, 1024)
_VALUE_BYTES = {"fp32": 4, "bf16": 2}
_SHORT_WAITS = {"GOMP_SPINCOUNT": "1000"}  # threads that spin for others, on shared cores, took as much CPU time again
_IMAGE_SECONDS = 0.3  # that a step may take on a slow machine: the naive network takes 0.06 on two cores


def measure_model(
    say: Callable[[str], None],
    *,
    archs: tuple[str, ...],
    precisions: tuple[Precision, ...] = (),
    batches: tuple[int, ...] = (),
    gpus: tuple[int, ...] = (),
    parallel: tuple[Parallel, ...] = ("towers",),
    device: str | None = None,
    threads: int | None = None,
    timing: Timing,
    naive: bool = True,
) -> Report:
    """Measure each network in every precision, batch and layout that is asked for; none: what suits the machine.

    Raises InputError, before anything is measured, for layouts that a network or the machine cannot have.
    """
    kind = choose_placement(device, gpus=1, precision="auto").device.type
    threads = threads or usable_cores()
    precisions = precisions or default_precisions(kind)
    batches = batches or (_CPU_BATCHES if kind == "cpu" else _GPU_BATCHES)
    two_towers = all(architecture_named(arch).towers == 2 for arch in archs)
    gpus = gpus or ((1, 2) if kind == "cpu" and threads > 1 and two_towers else (1,))
    where: Options = {"device": kind, "threads": threads}
    tasks = tasks_of(archs, precisions, batches, gpus, parallel, **where)
    refuse_layouts(tasks)
    if kind == "cuda":
        tasks += [replace(task, capture=True) for task in tasks if task.gpus == 1]
    cases = [*_limits(precisions, where), *(case_of(task, task.name, task.title) for task in tasks)]
    for batch in batches if naive and NAIVE_ARCH in archs else ():
        task = Task(arch=NAIVE_ARCH, precision="fp32", batch_images=batch, **where)  # type: ignore[arg-type]
        cases.append(case_of(task, f"naive-b{batch}", f"naive {task.title}", "baseline", "naive:naive"))
    conditions = conditions_before(kind, threads, timing.rounds, timing.seconds)
    found, missing, complete = measure_rows(cases, timing, say)
    rows = with_rooflines(found)
    ratios = _ratios(rows, kind)
    return Report(
        command="model",
        complete=complete,
        conditions=conditions,
        rows=rows,
        missing=missing,
        ratios=ratios,
        verdict=_verdict([row for row in rows if row.group == "row"]),
    )


def default_precisions(device: str) -> tuple[Precision, ...]:
    """Return fp32, and bf16 where the device multiplies it."""
    return ("fp32", "bf16") if device == "cuda" or cpu_has_bf16() else ("fp32",)


def tasks_of(
    archs: Iterable[str],
    precisions: Iterable[Precision],
    batches: Iterable[int],
    gpus: Iterable[int],
    parallel: Iterable[Parallel],
    **where: Any,
) -> list[Task]:
    """Return a task for each combination; how a network is divided says nothing where there is one process."""
    tasks: dict[str, Task] = {}
    for arch, batch, precision, count, how in itertools.product(archs, batches, precisions, gpus, parallel):
        divided = "data" if how == "towers" and architecture_named(arch).towers == 1 else how
        layout: Parallel = divided if count > 1 else "towers"
        task = Task(arch=arch, precision=precision, batch_images=batch, gpus=count, parallel=layout, **where)
        tasks[task.name] = task
    return list(tasks.values())


def refuse_layouts(tasks: Iterable[Task]) -> None:
    """Raise InputError for what cannot be: before anything is measured."""
    for task in tasks:
        task.placement()
        if task.batch_images < task.gpus:
            raise InputError(f"--batch {task.batch_images}: must be at least {task.gpus}, one image for each process")


def case_of(task: Task, name: str, title: str, group: Group = "row", make: str = "networks:network") -> Case:
    """Return the case of a task; `make`: its stage, as MODULE:FUNCTION of this folder."""
    return Case(
        name=name,
        title=title,
        group=group,
        make=f"alexnet.tools.bench.{make}",
        options=asdict(task),
        cores=min(task.threads, usable_cores()),
        on_gpu=task.device == "cuda",
        step_seconds=_IMAGE_SECONDS * task.batch_images,
        environment=_SHORT_WAITS,
    )


def _limits(precisions: Iterable[Precision], where: Options) -> list[Case]:
    """Return the rates of the machine: of arithmetic in each precision, and of memory."""
    copy = Case(
        name="copy", title="memory copy", group="limit", make="alexnet.tools.bench.rooflines:copy", unit="bytes",
        options=where, cores=min(int(where["threads"] or 1), usable_cores()), on_gpu=where["device"] == "cuda",
    )  # fmt: skip
    product = replace(copy, make="alexnet.tools.bench.rooflines:matmul", unit="flop")
    products = [
        replace(product, name=f"matmul-{p}", title=f"matrix product, {p}", options={"precision": p, **where})
        for p in precisions
    ]
    return [*products, copy]


def with_rooflines(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows, those of networks with their shares of the two rooflines."""
    by_name = {row.name: row for row in rows}
    return tuple(_with_rooflines(row, by_name) for row in by_name.values())


def _with_rooflines(row: Row, by_name: dict[str, Row]) -> Row:
    matmul, copy = by_name.get(f"matmul-{row.options.get('precision')}"), by_name.get("copy")
    if row.group != "row" or matmul is None or copy is None:
        return row
    task = Task(**row.options)  # type: ignore[arg-type]
    work = step_work(NetSettings(arch=task.arch, classes=task.classes), task.batch_images, _VALUE_BYTES[task.precision])
    devices = task.gpus if task.device == "cuda" else 1
    shares: dict[str, dict[Clock, float]] = {"arithmetic": {}, "layers": {}}
    clocks: tuple[Clock, ...] = ("wall", "cpu") if row.cpu else ("wall",)
    for clock in clocks:
        allowed = bounds(work, task.batch_images, devices * matmul.rate(clock), devices * copy.rate(clock))
        for name, rate in allowed.items():
            shares[name][clock] = row.rate(clock) / rate
    return replace(row, shares=shares)


def _ratios(rows: tuple[Row, ...], device: str) -> tuple[Ratio, ...]:
    """Return each network over the naive version in the same batch, and several processes over one."""
    tasks = {row.name: (row, Task(**row.options)) for row in rows if row.group == "row"}  # type: ignore[arg-type]
    naive = {row.options["batch_images"]: row for row in rows if row.group == "baseline"}
    found = []
    for row, task in tasks.values():
        guarded = device == "cpu" and (task.arch, task.batch_images) == (NAIVE_ARCH, GUARDED_BATCH)
        if task.arch == NAIVE_ARCH and task.batch_images in naive:
            asked = guarded and task.precision == "bf16" and task.gpus == 1 and cpu_has_bf16()
            about = f"{row.title} over the naive version"
            found.append(ratio_of(row, naive[task.batch_images], about, OVER_NAIVE if asked else None))
        one = tasks.get(replace(task, gpus=1).name)
        if task.gpus > 1 and one:
            asked = guarded and (task.gpus, task.parallel) == (2, "towers")
            asked = asked and task.precision == default_precisions("cpu")[-1]  # what training would take
            found.append(ratio_of(row, one[0], f"{row.title} over one process", PAIR_OVER_ONE if asked else None))
    return tuple(found)


def _verdict(rows: list[Row]) -> str:
    if not rows:
        return "No verdict: no network was measured."
    best = max(rows, key=lambda row: row.wall.median)
    sentences = [f"The fastest is {best.title}: {best.wall.median:,.1f} images/s."]
    if best.shares:
        clock: Clock = "cpu" if best.disturbed and best.cpu else "wall"
        arithmetic, layers = best.shares["arithmetic"][clock], best.shares["layers"][clock]
        sentences.append(
            f"That is {arithmetic:.0%} of what arithmetic alone would allow at the rate of a matrix product, and "
            f"{layers:.0%} of what arithmetic and memory allow layer by layer, by {clock} time."
        )
    if parts := {name: best.figures[f"{name} ms"] for name in PARTS if f"{name} ms" in best.figures}:
        most = max(parts, key=lambda name: parts[name])
        sentences.append(f"Most of a step is {most}: {parts[most] / best.figures['step ms']:.0%}.")
    if any(row.disturbed for row in rows):
        sentences.append("Others used this machine meanwhile: compare by CPU time only.")
    return " ".join(sentences)
