"""`alexnet-bench model`: what networks make on this machine, beside its rooflines and beside the naive version."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from alexnet.model.networks.settings import NetSettings, architecture_named
from alexnet.model.placement import Parallel, Precision, choose_placement, cpu_has_bf16
from alexnet.shards.errors import InputError
from alexnet.shards.resources import usable_cores
from alexnet.tools.bench.gpu_steps import LAYERS, WAYS
from alexnet.tools.bench.measure import Bounds, Case, Say, Timing, measure_report
from alexnet.tools.bench.naive import ARCH as NAIVE_ARCH
from alexnet.tools.bench.naive import naive as naive_stage
from alexnet.tools.bench.networks import Task, kernels, network
from alexnet.tools.bench.report import Asked, Clock, Group, Options, Report, Row, clock_of, ratios_of
from alexnet.tools.bench.rooflines import bounds, copy, matmul, step_work
from alexnet.tools.bench.stage import Stage
from alexnet.tools.bench.step_parts import PARTS

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
    say: Say,
    *,
    archs: tuple[str, ...],
    precisions: tuple[Precision, ...] = (),
    batches: tuple[int, ...] = (),
    gpus: tuple[int, ...] = (),
    parallel: tuple[Parallel, ...] = (),
    device: str | None = None,
    threads: int | None = None,
    timing: Timing,
    naive: bool = True,
) -> Report:
    """Measure each network in every precision, batch and layout that is asked for; none: what suits the machine.

    Raises InputError, before anything is measured, for layouts that a network or the machine cannot have.
    """
    kind = choose_placement(device, gpus=1, precision="auto").device.type
    archs, threads = archs or (NAIVE_ARCH,), threads or usable_cores()
    precisions = precisions or default_precisions(kind)
    batches = batches or (_CPU_BATCHES if kind == "cpu" else _GPU_BATCHES)
    two_towers = all(architecture_named(arch).towers == 2 for arch in archs)
    gpus = gpus or ((1, 2) if kind == "cpu" and threads > 1 and two_towers else (1,))
    where: dict[str, Any] = {"device": kind, "threads": threads}
    tasks = tasks_of(archs, precisions, batches, gpus, parallel or ("towers",), **where)
    refuse_layouts(tasks)
    ways = _in_other_ways(tasks) if kind == "cuda" else []
    cases = [
        *_limits(precisions, **where),
        *(case_of(task, task.name, task.title, bounds=_bounds(task)) for task in tasks),
        *(_kernels(task) for task in [*tasks, *ways] if task.batch_images == min(batches) and _is_profiled(task)),
        *(case_of(task, task.name, task.title, bounds=_bounds(task)) for task in ways),
    ]
    for batch in batches if naive and NAIVE_ARCH in archs else ():
        task = Task(arch=NAIVE_ARCH, precision="fp32", batch_images=batch, **where)
        cases.append(case_of(task, _naive(batch), f"naive {task.title}", "baseline", make=naive_stage))
    report = measure_report("model", cases, timing, say, device=kind, threads=threads)
    return replace(report, ratios=ratios_of(report.named(), _asked([*tasks, *ways])), verdict=_verdict(report))


def _in_other_ways(tasks: Iterable[Task]) -> list[Task]:
    """Return what training takes on a GPU by default, in the other ways to take a step, batch by batch."""
    usual = [task for task in tasks if task.gpus == 1 and task.precision == default_precisions("cuda")[-1]]
    return [replace(task, way=way) for task in usual for way in WAYS]


def _is_profiled(task: Task) -> bool:
    return task.device == "cuda" and task.gpus == 1 and task.way in ("", LAYERS[0])


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


def case_of(
    task: Task, name: str, title: str, group: Group = "row", *, make: Callable[..., Stage] = network, **more: Any
) -> Case:
    """Return the case of a task. `more`: fields of it."""
    return Case(
        name=name,
        title=title,
        group=group,
        make=make,
        options=asdict(task),
        cores=min(task.threads, usable_cores()),
        on_gpu=task.device == "cuda",
        alone=task.device == "cuda",
        step_seconds=_IMAGE_SECONDS * task.batch_images,
        environment=_SHORT_WAITS,
        **more,
    )


def _limits(precisions: Iterable[Precision], *, device: str, threads: int) -> list[Case]:
    """Return the rates of the machine: of arithmetic in each precision, and of memory."""
    where: Options = {"device": device, "threads": threads}
    memory = Case(
        name="copy", title="memory copy", group="limit", make=copy, unit="bytes", options=where,
        cores=min(threads, usable_cores()), on_gpu=device == "cuda", alone=device == "cuda",
    )  # fmt: skip
    product = replace(memory, make=matmul, unit="flop")
    products = [
        replace(product, name=f"matmul-{p}", title=f"matrix product, {p}", options={"precision": p, **where})
        for p in precisions
    ]
    return [*products, memory]


def _bounds(task: Task) -> Bounds:
    """Return the two rooflines of a task."""

    def allowed(rows: Mapping[str, Row], clock: Clock) -> dict[str, float]:
        product, memory = rows.get(f"matmul-{task.precision}"), rows.get("copy")
        if product is None or memory is None:
            return {}
        settings = NetSettings(arch=task.arch, classes=task.classes)
        work = step_work(settings, task.batch_images, _VALUE_BYTES[task.precision])
        devices = task.gpus if task.device == "cuda" else 1
        return bounds(work, task.batch_images, devices * product.rate(clock), devices * memory.rate(clock))

    return allowed


def _kernels(task: Task) -> Case:
    return case_of(task, f"{task.name}-kernels", f"kernels of {task.title}, under the profiler", "part", make=kernels)


def _naive(batch_images: int) -> str:
    return f"naive-b{batch_images}"


def _asked(tasks: Iterable[Task]) -> Iterator[Asked]:
    """Ask for each network over the naive version in the same batch, and several processes over one."""
    for task in tasks:
        guarded = (task.device, task.arch, task.batch_images) == ("cpu", NAIVE_ARCH, GUARDED_BATCH)
        if task.arch == NAIVE_ARCH:
            wanted = guarded and task.precision == "bf16" and task.gpus == 1 and cpu_has_bf16()
            about = f"{task.title} over the naive version"
            yield Asked(task.name, _naive(task.batch_images), about, OVER_NAIVE if wanted else None)
        if task.way:
            usual = replace(task, way="")
            yield Asked(usual.name, task.name, f"{usual.title} over {WAYS[task.way]}")
        if task.gpus > 1:
            wanted = guarded and (task.gpus, task.parallel) == (2, "towers")
            wanted = wanted and task.precision == default_precisions("cpu")[-1]  # what training would take
            one, about = replace(task, gpus=1).name, f"{task.title} over one process"
            yield Asked(task.name, one, about, PAIR_OVER_ONE if wanted else None)


def _verdict(report: Report) -> str:
    rows = [row for row in report.rows if row.group == "row"]
    if not rows:
        return "No verdict: no network was measured."
    best = max(rows, key=lambda row: row.wall.median)
    sentences = [f"The fastest is {best.title}: {best.wall.median:,.1f} images/s."]
    if best.shares:
        clock = clock_of(best)
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
