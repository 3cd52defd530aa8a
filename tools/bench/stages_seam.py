"""What a stage is: something that can be run for a while and counted, and on what it works.

A stage yields (images, bytes) each time it has finished something: of the bytes as they are stored, or copied.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.shards.manifest import Split

Work = Iterator[tuple[int, int]]


class CannotRunError(Exception):
    """Say in one line why a row cannot be measured here."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Settle on what a stage works. `threads`: of decoders, or worker processes where a peer has those."""

    data: Path
    split: Split
    batch_images: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Hold a stage that can be run.

    `work`: begins a pass; most never end, and are then begun once. `settings`: what it was told, in words.
    `ready_batches`: what it may have finished before it is asked. `before_pass`, `after_round`: are not timed.
    """

    work: Callable[[], Work]
    settings: str
    ready_batches: int = 0
    before_pass: Callable[[], None] = lambda: None
    after_round: Callable[[], None] = lambda: None
    versions: dict[str, str] = field(default_factory=dict)
