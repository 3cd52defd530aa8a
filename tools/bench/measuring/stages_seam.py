"""What a stage is: something that can be run for a while and counted, and on what it works.

A stage yields (images, amount) each time it has finished something. The amount is in what the row counts beside images:
bytes as they are stored or copied, or floating-point operations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from alexnet.shards.manifest import Split

Work = Iterator[tuple[int, int]]


class CannotRunError(Exception):
    """Say in one line why a row cannot be measured here."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Settle on what a stage works. `threads`: of decoders, or worker processes where a peer has those."""

    made_by: ClassVar[str] = "loader.stages"
    data: Path
    split: Split
    batch_images: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class NetStageSettings:
    """Settle where networks are measured, and on which data: None for batches that are made up.

    `threads`: of one process that has the machine to itself.
    """

    made_by: ClassVar[str] = "networks.net_stages"
    device: str
    threads: int
    data: Path | None = None


AnySettings = StageSettings | NetStageSettings
"""`made_by` names the module whose `make_stage` makes the stages of rows with such settings."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Hold a stage that can be run.

    `work`: begins a pass; most never end, and are then begun once. `starts_over`: every round begins one, as what the
    round before left is no longer what it was. `settings`: what it was told, in words.
    `ready_batches`: what it may have finished before it is asked. `least_batches`: of a round, however long they take.
    `before_pass`, `after_round`: are not timed. `more`: asked after a round for what else is to be told of it.
    """

    work: Callable[[], Work]
    settings: str
    starts_over: bool = False
    ready_batches: int = 0
    least_batches: int = 16  # loaders with worker processes deliver in bursts
    before_pass: Callable[[], None] = lambda: None
    after_round: Callable[[], None] = lambda: None
    more: Callable[[], dict[str, Any]] = dict
    versions: dict[str, str] = field(default_factory=dict)
