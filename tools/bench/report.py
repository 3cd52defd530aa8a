"""What a benchmark found: rows with their rounds, conditions, and ratios of rows. Written and read as JSON.

The dataclasses are the format: docs/benchmarks.md explains their fields, and `msgspec.json.schema(Report)` is a JSON
Schema of them.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import read_json
from alexnet.tools.machine import Machine

SCHEMA = 3
"""Grows when a field changes its meaning or goes; new fields do not change it."""
FOREIGN_LOAD_MARK = 0.05
"""A row is disturbed if others kept more of the cores busy than this while it was measured."""

Clock = Literal["wall", "cpu"]
Group = Literal["limit", "row", "part", "baseline"]
Unit = Literal["images", "bytes", "flop"]
Command = Literal["dataloader", "model", "train", "prep"]
Options = dict[str, str | int | float | bool | None]

_MEND = "give a file that --json of this version wrote"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Summarise one value a round."""

    median: float
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """Hold what one round of a row gave.

    `amount`: what was finished, in the row's unit. `foreign_load`: share of all cores that others kept busy, 0 to 1.
    `peak_bytes`: the largest resident memory until then. `page_faults`: None in files of earlier versions. `figures`:
    what else the row tells, by name and unit.
    """

    amount: float
    seconds: float
    cpu_seconds: float
    foreign_load: float
    peak_bytes: int
    page_faults: int | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold a row that was measured, one round at least.

    `cores`: how many it can keep busy. `options`, `settings`, `versions`: what it was told, what that came to in words,
    and of which packages. `before_bytes`: memory before it began. `wall`: `unit` a second by wall time. `cpu`: the same
    by CPU time, as if `cores` were busy; None where a GPU works. `figures`: medians. `shares`: of what it cannot beat,
    by name, then by clock.
    """

    name: str
    title: str
    group: Group
    unit: Unit
    cores: int
    options: Options
    settings: str
    versions: dict[str, str]
    before_bytes: int
    wall: Spread
    cpu: Spread | None
    figures: dict[str, float]
    shares: dict[str, dict[Clock, float]]
    rounds: tuple[Round, ...]

    @property
    def foreign_load(self) -> float:
        """Return the share of the cores that others kept busy meanwhile."""
        return sum(r.foreign_load * r.seconds for r in self.rounds) / sum(r.seconds for r in self.rounds)

    @property
    def disturbed(self) -> bool:
        """Say whether others used the machine meanwhile."""
        return self.foreign_load > FOREIGN_LOAD_MARK

    def rates(self, clock: Clock) -> list[float]:
        """Return the rate of each round, `unit` a second."""
        return rates_of(self.rounds, self.cores if clock == "cpu" else None)

    def rate(self, clock: Clock) -> float:
        """Return the median rate by a clock; by wall time where CPU time says nothing."""
        return (self.cpu if clock == "cpu" and self.cpu else self.wall).median


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Say why a row was not measured."""

    name: str
    title: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Hold a row over another, taken round by round, and what is asked of it.

    `by`: the clock that decides. `at_least`: None where nothing is asked.
    """

    about: str
    row: str
    over: str
    wall: Spread
    cpu: Spread | None
    by: Clock
    at_least: float | None
    holds: bool

    def in_words(self) -> str:
        """Return the value, with as many digits as tell it from what is asked."""
        value = (self.cpu if self.by == "cpu" and self.cpu else self.wall).median
        digits = 4 if self.at_least is not None and f"{value:.2f}" == f"{self.at_least:.2f}" else 2
        asked = "" if self.at_least is None else f", at least {self.at_least:.2f}: {'holds' if self.holds else 'FAILS'}"
        return f"{self.about}: {value:.{digits}f} by {self.by} time{asked}"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Describe the data that were measured on.

    `why`: why these were taken. `manifest`: its digest; empty for images that are no shards. `repeated`: they are less
    than eight batches, so they lay in the CPU's cache. `cached`: share in the system's cache; None where it does not
    say.
    """

    path: str
    why: str
    images: int
    bytes_per_image: int
    batch_images: int = 0
    split: str = "train"
    manifest: str = ""
    size_px: int = 0
    repeated: bool = False
    cached: float | None = None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Describe machine, load and data. `seconds`: of a row in a round. `load_*`: of a minute, as `uptime` has it."""

    when: str
    machine: Machine
    governor: str
    device: str
    cores: int
    threads: int
    rounds: int
    seconds: float
    foreign_before: float
    load_before: float
    load_after: float
    data: Data | None = None


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Hold a part of a row's CPU time: microseconds an image, and what the spread of the rounds leaves open."""

    name: str
    cpu_us: float
    plus_minus_us: float
    share: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Hold what a command measured. `complete`: False if it was interrupted. `rows`: of all groups, limits first."""

    schema: int = SCHEMA
    command: Command
    complete: bool
    conditions: Conditions
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...] = ()
    stages: tuple[StageCost, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    notes: tuple[str, ...] = ()
    verdict: str = ""

    def named(self) -> dict[str, Row]:
        """Return the rows by name."""
        return {row.name: row for row in self.rows}

    def failed(self) -> list[str]:
        """Return a line for each ratio that fails."""
        return [ratio.in_words() for ratio in self.ratios if not ratio.holds]


@dataclass(frozen=True)
class _Version:
    schema: int = 0
    command: str = ""


def spread(values: Iterable[float]) -> Spread:
    """Return median, minimum and maximum."""
    found = list(values)
    return Spread(median=statistics.median(found), min=min(found), max=max(found))


def rates_of(rounds: Iterable[Round], busy_cores: int | None = None) -> list[float]:
    """Return the rate of each round by wall time, or by CPU time with so many cores busy."""
    if busy_cores is None:
        return [r.amount / r.seconds for r in rounds]
    return [busy_cores * r.amount / max(r.cpu_seconds, 1e-9) for r in rounds]


def medians(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each named figure over those that tell it."""
    names = dict.fromkeys(name for one in figures for name in one)
    return {name: statistics.median(one[name] for one in figures if name in one) for name in names}


def clock_of(*rows: Row) -> Clock:
    """Return the clock to compare rows by: CPU time where others disturbed one of them and it says something of all."""
    return "cpu" if all(row.cpu for row in rows) and any(row.disturbed for row in rows) else "wall"


class Asked(NamedTuple):
    """Ask for a ratio of two rows, by name. `by`: the clock that decides, else CPU time where others disturbed one."""

    row: str
    over: str
    about: str
    at_least: float | None = None
    by: Clock | None = None


def ratios_of(rows: Mapping[str, Row], asked: Iterable[Asked]) -> tuple[Ratio, ...]:
    """Return the ratios whose rows were measured, taken round by round.

    Rounds of one number ran within seconds of each other, so that a machine's drift cancels.
    """
    return tuple(_ratio(rows[one.row], rows[one.over], one) for one in asked if {one.row, one.over} <= rows.keys())


def _ratio(row: Row, over: Row, asked: Asked) -> Ratio:
    def by_clock(clock: Clock) -> Spread:
        return spread(a / b for a, b in zip(row.rates(clock), over.rates(clock), strict=False))

    wall, cpu = by_clock("wall"), by_clock("cpu") if row.cpu and over.cpu else None
    by = asked.by or clock_of(row, over)
    decides = cpu if cpu and by == "cpu" else wall
    holds = asked.at_least is None or decides.median >= asked.at_least
    return Ratio(
        about=asked.about, row=asked.row, over=asked.over, wall=wall, cpu=cpu, by=by, at_least=asked.at_least,
        holds=holds,
    )  # fmt: skip


def to_json(report: Report) -> bytes:
    """Return a report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def read_report(file: Path) -> Report:
    """Read a report. Raises InputError, in one line, for what is none, and for one of another version."""
    try:
        version = read_json(file, _Version, mend=_MEND)
        if version.command and version.schema != SCHEMA:
            raise InputError(
                f"{file}: has schema {version.schema} and this version of alexnet-bench reads {SCHEMA}; measure again"
            )
        report = read_json(file, Report, mend=_MEND)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{file}: cannot be read ({reason_of(error)}); {_MEND}") from None
    if any(not row.rounds or not _positive(row) for row in report.rows):
        raise InputError(f"{file}: has a row without a rate; {_MEND}")
    return report


def _positive(row: Row) -> bool:
    return all(math.isfinite(r.amount) and r.amount > 0 and r.seconds > 0 and r.cpu_seconds >= 0 for r in row.rounds)
