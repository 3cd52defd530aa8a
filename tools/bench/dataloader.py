"""`alexnet-bench dataloader`: what the data path makes on this machine, beside its limits and beside other loaders.

A number without its bound and its conditions is worth little, so every row has both.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet.model.placement import choose_placement
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.shards.processes import usable_cores
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.conditions import conditions_before, describe_data
from alexnet.tools.bench.loader_rows import GUARDED, cases_of
from alexnet.tools.bench.loader_stages import LoaderTask
from alexnet.tools.bench.measure import Case, Timing, measure_rows
from alexnet.tools.bench.report import Clock, Data, Options, Ratio, Report, Row, StageCost, ratio_of

_THREADS_SHARE = 0.95
"""Of a gain by the number of threads, 1.9 for two; by CPU time, as a stream of one thread reads on another core."""
_BESIDE_TRAINER = 0.9
"""The stream while the process that takes its batches trains on the other cores, over the stream alone."""
_DECODING_IS_MOST = 0.5  # of the time: images of 28 px take longer to plan and to hand over than to decode
_TUNE_SECONDS, _TUNE_ROUNDS = 0.5, 15
_LEAST_GAIN, _AGREE = 1.03, 0.75  # of rounds

_STAGES = (
    ("read", ("read",), (), "row `read`"),
    ("entropy decoding", ("jpeg-entropy",), (), "libjpeg-turbo asked for the crop's last pixel only"),
    ("inverse DCT, colour, mirror", ("jpeg-window",), ("jpeg-entropy",), "the crop to uint8, less entropy decoding"),
    ("to float32: mean, scale, write", ("jpeg-float32",), ("jpeg-window",), "the crop to float32, less to uint8"),
    ("plan, queues, Python", ("stream-float32",), ("jpeg-float32", "read"), "the stream, less decoder, less reading"),
)


def measure_dataloader(
    say: Callable[[str], None],
    *,
    data: Path,
    why: str,
    split: Split,
    batch_images: int,
    threads: int | None,
    device: str | None,
    timing: Timing,
    quick: bool,
    rows: tuple[str, ...],
    baselines: tuple[str, ...],
    tune_seconds: float,
) -> Report:
    """Measure the rows that are asked for, then candidates of the stream's options if there is time for them."""
    images = len(SplitReader(data, split))
    if not images:
        raise InputError(f"{data}: its {split} split has no images; give --split with the other")
    batch, cores = min(batch_images, images), usable_cores()
    task = LoaderTask(data=str(data.absolute()), split=split, batch_images=batch, threads=threads or cores)
    kind = choose_placement(device, gpus=1, precision="auto").device.type
    cases = cases_of(task, cores, kind, quick=quick, names=rows, baselines=baselines)
    described = describe_data(data, split, batch, why)
    conditions = conditions_before(kind, task.threads, timing.rounds, timing.seconds, described)
    found, missing, complete = measure_rows(cases, timing, say)
    notes: tuple[str, ...] = ()
    if tune_seconds and complete:
        notes, complete = tune(task, cores, kind, tune_seconds, say)
    by_name = {row.name: row for row in found}
    return Report(
        command="dataloader",
        complete=complete,
        conditions=conditions,
        rows=found,
        missing=missing,
        stages=stages_of(by_name),
        ratios=ratios_of(by_name, min(task.threads, cores)),
        notes=notes,
        verdict=verdict_of(by_name, described),
    )


def ratios_of(rows: dict[str, Row], busy_cores: int) -> tuple[Ratio, ...]:
    """Return each guarded ratio whose rows were measured; more threads than cores are not asked for more."""
    found = [
        ratio_of(rows[row], rows[over], about, at_least)
        for (row, over), (at_least, about) in GUARDED.items()
        if {row, over} <= rows.keys()
    ]
    fewer = sorted((row.options["threads"], name) for name, row in rows.items() if name.endswith(("thread", "threads")))
    if fewer and "stream-float32" in rows and fewer[0][0] == 1:
        about = f"1 to {rows['stream-float32'].options['threads']} threads"
        gain = _THREADS_SHARE * busy_cores
        found.append(ratio_of(rows["stream-float32"], rows["stream-1-thread"], about, gain, by="cpu"))
    if fewer and "stream-beside-trainer-here" in rows:  # by wall time: the trainer's CPU time is in it
        about = "the stream beside a trainer in this process over the stream alone"
        beside, alone = rows["stream-beside-trainer-here"], rows[fewer[-1][1]]
        found.append(ratio_of(beside, alone, about, _BESIDE_TRAINER, by="wall"))
    return tuple(found)


def stages_of(rows: dict[str, Row]) -> tuple[StageCost, ...]:
    """Tell where the CPU time of the float32 stream goes, by differences between rows; nothing if one is missing."""
    needed = {name for _, plus, minus, _ in _STAGES for name in (*plus, *minus)}
    if not needed <= rows.keys():
        return ()
    costs = {name: [1e6 * r.cpu_seconds / r.amount for r in rows[name].rounds] for name in needed}
    medians = {name: statistics.median(values) for name, values in costs.items()}
    stages = []
    for name, plus, minus, how in _STAGES:
        cost = sum(medians[n] for n in plus) - sum(medians[n] for n in minus)
        open_us = math.hypot(*(_standard_error(costs[n]) for n in (*plus, *minus)))
        share = cost / medians["stream-float32"]
        stages.append(StageCost(name=name, cpu_us=cost, plus_minus_us=open_us, share=share, how=how))
    return tuple(stages)


def _standard_error(values: Sequence[float]) -> float:
    """Return the median's, from the spread (1.25: a median's over a mean's, for normal values)."""
    return 1.25 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def verdict_of(rows: dict[str, Row], data: Data) -> str:
    """Say in a few sentences what bounds the pipeline; of what was measured, and what was not."""
    stream = rows.get("stream-cuda") or rows.get("stream-float32")
    if stream is None:
        return "No verdict: the full pipeline was not measured."
    sentences = [_bound(stream, rows)]
    if data.repeated:
        sentences.append("The data are smaller than eight batches and lay in the CPU's cache: do not quote.")
    if any(row.disturbed for row in rows.values()):
        sentences.append("Others used this machine meanwhile: judge by the column for CPU time.")
    return " ".join(sentences)


def _bound(stream: Row, rows: dict[str, Row]) -> str:
    limit = next(iter(stream.shares), "")
    disturbed = any(row.disturbed for row in (stream, rows.get(limit, stream)))
    clock: Clock = "cpu" if stream.disturbed else "wall"
    rate = stream.rate(clock)
    share = stream.shares[limit].get("cpu" if disturbed else "wall", stream.shares[limit]["wall"]) if limit else 0.0
    if stream.name == "stream-cuda":
        of_limit = f", {share:.0%} of what nvJPEG alone does with whole images" if limit else ""
        return f"The pipeline to the GPU makes {rate:,.0f} images/s{of_limit}."
    cold = rows.get("storage-cold")
    if cold is not None and cold.wall.median < rate:
        return (
            f"Storage bounds this pipeline when nothing is cached: it gives {cold.wall.median:,.0f} images/s from "
            f"front to back, decoding makes {rate:,.0f}. Data that fit in memory are read once."
        )
    if not limit:
        return f"The full pipeline makes {rate:,.0f} images/s; its limit was not measured."
    read = f"; reading could feed {rows['read'].rate(clock) / rate:,.0f} times that" if "read" in rows else ""
    made = f"{rate:,.0f} images/s, {share:.0%} of what libjpeg-turbo alone does with the same crops on the same cores"
    if share < _DECODING_IS_MOST:
        return f"What lies around decoding bounds this pipeline: {made}{read}. Larger batches have less of it."
    return f"Decoding on the CPU bounds this pipeline: {made}{read}."


def tune(
    task: LoaderTask, cores: int, device: str, budget_seconds: float, say: Callable[[str], None]
) -> tuple[tuple[str, ...], bool]:
    """Search for the options of the stream that are fastest here; return what each made and which to use, in lines.

    And whether it came to its end: after Ctrl-C nothing is recommended. Candidates differ from the default in one thing
    at a time and take turns, the likeliest first; what cannot be told from the default is not recommended.
    """
    candidates = candidates_of(task, cores, device)
    timing = Timing(rounds=_TUNE_ROUNDS, seconds=_TUNE_SECONDS, budget_seconds=budget_seconds)
    rows, missing, complete = measure_rows(candidates, timing, say)
    if not complete:
        return ("tuning was interrupted: no options are recommended",), False
    lines = [f"{row.title}: {row.wall.median:,.0f} images/s" for row in rows]
    lines += [f"{one.title}: {one.why}" for one in missing]
    return (*lines, recommendation(rows)), True


def candidates_of(task: LoaderTask, cores: int, device: str) -> list[Case]:
    """Return the default, then what most often helps first."""
    (default,) = cases_of(task, cores, "cpu", names=("stream-float32",))
    decoders = ("host", "split=0.75", "split=0.5") if device == "cuda" else ("dali",)
    n = task.threads
    changes: list[tuple[str, str | int]] = [("device", device), ("depth", 4), *(("decode", d) for d in decoders)]
    changes += [("threads", m) for m in (n + 1, n - 1, 2 * n) if m > 0 and m != n]
    changes += [("read_ahead_batches", 0), ("depth", 1), ("read_ahead_batches", 32)]
    found = []
    for name, value in dict.fromkeys(changes):
        title = "the default" if name == "device" else f"--set stream.{name}={value}"
        options: Options = default.options | {"device": device, name: value}
        found.append(Case(name=title, title=title, group="row", make=default.make, options=options, cores=cores))
    return found


def recommendation(rows: Sequence[Row]) -> str:
    """Say which candidate to use: one that gains 3%, as the median of its rounds over the default's, of which most."""
    if not rows or rows[0].name != "the default":
        return "tuning failed: the default was not measured"
    gains = []
    for row in rows[1:]:
        ratios = [a / b for a, b in zip(row.rates("wall"), rows[0].rates("wall"), strict=False)]
        if sum(ratio > 1 for ratio in ratios) >= _AGREE * len(ratios):
            gains.append((statistics.median(ratios), row.name, len(ratios)))
    gain, name, rounds = max(gains, default=(0.0, "", 0))
    if gain < _LEAST_GAIN:
        return "use the defaults: no candidate was 3% faster"
    return f"use {name}: {gain - 1:+.0%} over the default, median of {rounds} rounds"
