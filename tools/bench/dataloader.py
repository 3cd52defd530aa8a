"""`alexnet-bench dataloader`: what the data path makes on this machine, beside its limits and beside other loaders.

A number without its bound and its conditions is worth little, so every row has both.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from alexnet.model.placement import choose_placement
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.shards.resources import usable_cores
from alexnet.shards.url import origin_of
from alexnet.tools.bench.bench_data import LoaderTask, planes_of
from alexnet.tools.bench.loader_rows import GUARDED, cases_of
from alexnet.tools.bench.measure import Case, Say, Timing, measure_report, measure_rows
from alexnet.tools.bench.own_formats import delete_written
from alexnet.tools.bench.remote_stages import on_disk
from alexnet.tools.bench.report import Asked, Data, Options, Report, Row, StageCost, clock_of, ratios_of

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
    say: Say,
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
    compare: tuple[str, ...],
    planes: Path | None,
    tune_seconds: float,
) -> Report:
    """Measure the rows that are asked for, then candidates of the stream's options if there is time for them."""
    cores = usable_cores()
    task = task_of(data, split, batch_images, threads or cores)
    kind = choose_placement(device, gpus=1, precision="auto").device.type
    with on_disk(task, say) if task.url else nullcontext((task, "")) as (task, no_copy):
        own, described = planes_of(task, planes), task.describe(why)
        cases = cases_of(task, cores, kind, quick=quick, names=rows, compare=compare, planes=own, no_copy=no_copy)
        report = measure_report("dataloader", cases, timing, say, device=kind, threads=task.threads, data=described)
        if own.data:
            report = replace(report, notes=(own.describe(task),))
        if tune_seconds and report.complete:
            notes, complete = tune(candidates_of(task, cores, kind), tune_seconds, say)
            report = replace(report, notes=(*report.notes, *notes), complete=complete)
    if task.url and compare:
        delete_written(task.url)
    found = report.named()
    return replace(
        report,
        stages=stages_of(found),
        ratios=ratios_of(found, asked_of(found, min(task.threads, cores))),
        verdict=verdict_of(found, described),
    )


def task_of(data: Path, split: Split, batch_images: int, threads: int) -> LoaderTask:
    """Return what is measured; `data`: a folder, perhaps one that stands in for a URL. Raises InputError if empty."""
    root = data.absolute()
    task = LoaderTask(
        data=str(root), split=split, batch_images=batch_images, threads=threads, url=origin_of(root) or ""
    )
    if not len(task.reader):
        raise InputError(f"{task.url or data}: its {split} split has no images; give --split with the other")
    return replace(task, batch_images=min(batch_images, len(task.reader)))


def asked_of(rows: Mapping[str, Row], busy_cores: int) -> list[Asked]:
    """Return the guarded ratios, with those of the threads; more threads than cores are not asked for more."""
    asked, stream = list(GUARDED), rows.get("stream-float32")
    fewer = sorted((int(row.options["threads"] or 0), name) for name, row in rows.items() if "thread" in name)
    if fewer and fewer[0][0] == 1 and stream:
        about, gain = f"1 to {stream.options['threads']} threads", _THREADS_SHARE * busy_cores
        asked.append(Asked(stream.name, "stream-1-thread", about, gain, "cpu"))
    if fewer:  # by wall time: the trainer's CPU time is in it
        about = "the stream beside a trainer in this process over the stream alone"
        asked.append(Asked("stream-beside-trainer-here", fewer[-1][1], about, _BESIDE_TRAINER, "wall"))
    return asked


def stages_of(rows: Mapping[str, Row]) -> tuple[StageCost, ...]:
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


def verdict_of(rows: Mapping[str, Row], data: Data) -> str:
    """Say in a few sentences what bounds the pipeline; of what was measured, and what was not."""
    stream = rows.get("stream-cuda") or rows.get("stream-float32")
    if stream is None:
        return _of_url(rows, data) or "No verdict: the full pipeline was not measured."
    sentences = [_bound(stream, rows), *_of_planes(stream, rows)]
    if data.repeated:
        sentences.append("The data are smaller than eight batches and lay in the CPU's cache: do not quote.")
    if any(row.disturbed for row in rows.values()):
        sentences.append("Others used this machine meanwhile: judge by the column for CPU time.")
    return " ".join(sentences)


def _of_url(rows: Mapping[str, Row], data: Data) -> str:
    """Say what the server gives, and how much of that and of the disk's speed the stream reaches."""
    server, said = rows.get("storage-remote"), []
    if server:
        rate = server.wall.median
        said.append(f"The server gives {rate:,.0f} images/s, {rate * data.bytes_per_image / 1e6:,.0f} MB/s of images.")
    for kind, how in (("cold", "an empty cache"), ("warm", "a warm one"), ("ranges", "no cache, by ranges,")):
        if row := rows.get(f"stream-remote-{kind}"):
            of = (f", {' / '.join(f'{v:.0%}' for v in share.values())} of {name}" for name, share in row.shares.items())
            said.append(f"From {how} the stream makes {row.wall.median:,.0f}{''.join(of)} (by wall / CPU time).")
    return " ".join(said)


def _of_planes(stream: Row, rows: Mapping[str, Row]) -> list[str]:
    """Compare the same stream of planes; nothing where it was not measured."""
    planes = rows.get(stream.name.replace("stream-", "stream-planes-"))
    if planes is None:
        return []
    clock = clock_of(stream, planes)
    rate = planes.rate(clock)
    said = f"From planes it makes {rate:,.0f} images/s, {rate / stream.rate(clock):.1f} times that"
    share = next((f", {share[clock]:.0%} of what memory allows" for share in planes.shares.values()), "")
    return [f"{said}{share}."]


def _bound(stream: Row, rows: Mapping[str, Row]) -> str:
    clock = clock_of(stream)
    rate, cold = stream.rate(clock), rows.get("storage-cold")
    limit, shares = next(iter(stream.shares.items()), ("", {}))
    share = shares[clock_of(stream, rows[limit])] if limit else 0.0
    if stream.name == "stream-cuda":
        of_limit = f", {share:.0%} of what nvJPEG alone does with whole images" if limit else ""
        return f"The pipeline to the GPU makes {rate:,.0f} images/s{of_limit}."
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


def tune(candidates: Sequence[Case], budget_seconds: float, say: Say) -> tuple[tuple[str, ...], bool]:
    """Search for the options of the stream that are fastest here; return what each made and which to use, in lines.

    And whether it came to its end: after Ctrl-C nothing is recommended. Candidates differ from the default in one thing
    at a time and take turns, the likeliest first; what cannot be told from the default is not recommended.
    """
    rows, missing, complete = measure_rows(candidates, Timing(_TUNE_ROUNDS, _TUNE_SECONDS, budget_seconds), say)
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
        found.append(replace(default, name=title, title=title, options=options))
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
