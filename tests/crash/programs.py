"""What is struck in forks: the commands with their workers' work done in their own process, so that calls are ordered.

Imported by `tests.crash.server`, never by tests.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Self

import alexnet.tools.convert.run
import alexnet.tools.synth.run  # noqa: F401
from alexnet.tools.convert import build
from alexnet.tools.convert.pool import raise_unless_done
from alexnet.tools.convert.work import ShardJob, attempt_shard
from alexnet.tools.prep import main
from alexnet.tools.synth import archives
from alexnet.tools.synth.parts import Part


class _Here:
    """Stand for the converter's pool."""

    def run(self, jobs: Iterator[ShardJob]) -> None:
        for job in jobs:
            raise_unless_done(attempt_shard(job))


class _WorkersHere:
    """Stand for the processes that draw archives."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, parts: Sequence[Part], on_part: Callable[[Part], None]) -> None:
        for part in parts:
            if not part.path.exists():
                part.write(lambda: None)
            on_part(part)


def prep(arguments: list[str]) -> None:
    build.engine_of = lambda *_: _Here()
    vars(archives)["Workers"] = _WorkersHere
    main(arguments)
