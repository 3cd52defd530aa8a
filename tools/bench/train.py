"""`alexnet-bench train`: real data through the real trainer, beside the loader alone and the network alone.

All three are measured in the same run, in turn: so the difference between what training makes and what the slower of
the two allows can be told in a sentence.
"""

from dataclasses import replace
from pathlib import Path

from alexnet.model.placement import Parallel, Precision, choose_placement
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader
from alexnet.shards.resources import usable_cores
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.measure import Case, Say, Timing, measure_report
from alexnet.tools.bench.model import case_of, default_precisions, refuse_layouts
from alexnet.tools.bench.networks import WAITS, Task, loader
from alexnet.tools.bench.report import Asked, Report, Row, clock_of, ratios_of

_CPU_BATCH, _GPU_BATCH = 64, 128
_SMALL = 0.03  # of a rate: what is less was not measured


def measure_train(
    say: Say,
    *,
    data: Path,
    why: str,
    arch: str = "alexnet-2012",
    recipe: str | None = None,
    precision: Precision | None = None,
    batch_images: int | None = None,
    scaling: tuple[int, ...] = (),
    parallel: Parallel = "towers",
    device: str | None = None,
    threads: int | None = None,
    timing: Timing,
) -> Report:
    """Measure loader, network and both together in each number of processes. None: what suits the machine.

    Raises InputError if network, data and layouts do not go together.
    """
    kind = choose_placement(device, gpus=1, precision="auto").device.type
    images, threads, scaling = len(SplitReader(data, "train")), threads or usable_cores(), scaling or (1,)
    batch = batch_images or min(_CPU_BATCH if kind == "cpu" else _GPU_BATCH, images)
    if not images:
        raise InputError(f"{data}: has no training images; give data that have them")
    if not 1 <= batch <= images:
        raise InputError(f"--batch {batch}: must be at most {images}, the training images in {data}")
    task = Task(
        arch=arch, precision=precision or default_precisions(kind)[-1], batch_images=batch, device=kind,
        threads=threads, recipe=recipe, data=str(data.absolute()),
    )  # fmt: skip
    tasks = [replace(task, gpus=count, parallel=parallel if count > 1 else "towers") for count in scaling]
    refuse_layouts(tasks)
    task.settings()
    described = LoaderTask(data=task.data, split="train", batch_images=batch, threads=threads).describe(why)
    report = measure_report("train", _cases(tasks), timing, say, device=kind, threads=threads, data=described)
    rows = report.named()
    explained = [
        explain(rows[f"train-{count}"], rows["loader"], rows[f"model-{count}"])
        for count in scaling
        if {f"train-{count}", f"model-{count}", "loader"} <= rows.keys()
    ]
    verdict = " ".join(explained) or "No verdict: loader, network or training is missing."
    return replace(report, ratios=ratios_of(rows, _asked(scaling)), verdict=verdict)


def _cases(tasks: list[Task]) -> list[Case]:
    """Return the loader, then the network on synthetic batches and on the data, for each number of processes."""
    cases = [case_of(tasks[0], "loader", "the stream alone", "limit", make=loader)]
    for task in tasks:
        cases.append(case_of(task, f"model-{task.gpus}", f"synthetic batches: {task.title}", "limit"))
        cases.append(case_of(replace(task, synthetic=False), f"train-{task.gpus}", f"real data: {task.title}"))
    return cases


def _asked(scaling: tuple[int, ...]) -> list[Asked]:
    """Ask for real data over synthetic batches for each number of processes, and for each number over the first."""
    words = {n: f"{n} process{'es' * (n > 1)}" for n in scaling}
    asked = [Asked(f"train-{n}", f"model-{n}", f"real data over synthetic batches, {words[n]}") for n in scaling]
    first = scaling[0]
    return asked + [Asked(f"train-{n}", f"train-{first}", f"{first} to {words[n]}") for n in scaling[1:]]


def explain(train: Row, loader: Row, model: Row) -> str:
    """Say how far training is from the slower of loader and network, and why.

    On a CPU the two share the cores: an image takes the time of both. By CPU time where others disturbed a row.
    """
    on_cpu = train.cpu is not None
    clock = clock_of(train, loader, model)
    made, loads, computes = (row.rate(clock) for row in (train, loader, model))
    slower, bound = min((loads, "the loader"), (computes, "the network"))
    expected = 1 / (1 / loads + 1 / computes) if on_cpu else slower
    processes = "1 process" if train.options["gpus"] == 1 else f"{train.options['gpus']} processes"
    said = (
        f"In {processes}, real data make {made:,.1f} images/s by {clock} time, {made / computes:.0%} of synthetic "
        f"batches; alone, the loader makes {loads:,.1f} and the network {computes:,.1f}, so {bound} bounds training at "
        f"{slower:,.1f}, and training waits for data {train.figures[WAITS]:.0f}% of the time."
    )
    if on_cpu:
        said += f" Both share the cores, and decoding leaves {expected:,.1f}, {1 - expected / slower:.1%} less"
    rest = 1 - made / expected
    if rest <= -_SMALL:
        return f"{said}; training makes {-rest:.1%} more than that: rounds differ by more than is to be told apart."
    said += f"; training stays {1 - made / slower:.1%} below the bound"
    if rest < _SMALL:
        return f"{said}, and what remains is less than was measured."
    likely = "caches and turns of the scheduler" if on_cpu else "copies, and crops normalised on the same GPU"
    return f"{said}, and {rest:.1%} remain for {likely}, which were not measured apart."
