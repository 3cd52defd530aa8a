"""Search for the options of the stream that are fastest here, within a budget of time.

Candidates differ from the default in one thing at a time: a search of all combinations would take an hour and find
noise. They take turns, as rows do, the likeliest first: a small budget leaves out the others. What cannot be told from
the default is not recommended.
"""

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import click

from alexnet.tools.bench.measuring.rounds import Measured, Timing, measure_rows
from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.measuring.stages_seam import StageSettings

_SECONDS = 0.5  # of a candidate in a round
_LEAST_GAIN = 1.03
_MOST_ROUNDS = 15


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Name options of the stream, as `alexnet-train` takes them."""

    words: str
    options: dict[str, Any] = field(default_factory=dict)


def tune(settings: StageSettings, device: str, budget_seconds: float) -> tuple[list[str], bool]:
    """Measure candidates until the budget is spent; return what each made and the options to use, in lines.

    And whether it came to its end: after Ctrl-C nothing is recommended.
    """
    begin = time.monotonic()
    rows = [
        Row(name=c.words, title=c.words, group="row", kind="stream", options={"device": device} | c.options)
        for c in candidates_of(settings.threads, device)
    ]
    click.echo(f"tuning: at most {len(rows)} candidates, {_MOST_ROUNDS} rounds of {_SECONDS:g} s")
    timing = Timing(rounds=_MOST_ROUNDS, seconds=_SECONDS, budget_seconds=budget_seconds)
    measured, complete = measure_rows(rows, settings, timing, lambda _: None)
    if not complete:
        return ["tuning was interrupted: no options are recommended"], False
    return [*recommendation(measured), f"tuning took {time.monotonic() - begin:.0f} s"], True


def candidates_of(threads: int, device: str) -> list[Candidate]:
    """Return the default, then what most often helps first."""
    decoders = ("host", "split=0.75", "split=0.5") if device == "cuda" else ("dali",)
    changes: list[tuple[str, Any]] = [("depth", 4), *(("decode", d) for d in decoders)]
    changes += [("threads", n) for n in (threads + 1, threads - 1, 2 * threads) if n > 0 and n != threads]
    changes += [("read_ahead_batches", 0), ("depth", 1), ("read_ahead_batches", 32)]
    found = [Candidate(words="the default")]
    for name, value in dict.fromkeys(changes):
        found.append(Candidate(words=f"--set stream.{name}={value}", options={name: value}))
    return [Candidate(words=c.words, options={"output": "float32"} | c.options) for c in found]


def recommendation(measured: list[Measured]) -> list[str]:
    """Say what each candidate made, and what to use: a candidate only if it beats the default in most rounds."""
    default, *others = measured
    if not default.rounds:
        return [f"tuning failed: {default.why or 'it was interrupted'}"]
    lines = [
        f"  {one.row.title}: {_rate(one):,.0f} images/s" if one.rounds else f"  {one.row.title}: {one.why}"
        for one in measured
    ]
    better = [(gain, one) for one in others if one.rounds and (gain := _gain(one, default)) >= _LEAST_GAIN]
    if not better:
        return [*lines, "use the defaults: no candidate was 3% faster"]
    gain, best = max(better, key=lambda pair: pair[0])
    return [*lines, f"use {best.row.title}: {gain - 1:+.0%} over the default, median of {len(best.rounds)} rounds"]


def _rate(one: Measured) -> float:
    return float(statistics.median(r["images"] / r["seconds"] for r in one.rounds))


def _gain(one: Measured, default: Measured) -> float:
    """Return the median over rounds of the ratio to the default; 0 unless three rounds of four agree that it gains."""
    ratios = [
        (a["images"] / a["seconds"]) / (b["images"] / b["seconds"])
        for a, b in zip(one.rounds, default.rounds, strict=False)
    ]
    if sum(ratio > 1 for ratio in ratios) < 0.75 * len(ratios):
        return 0.0
    return float(statistics.median(ratios))
