"""What is struck in forks: the commands with their workers' work done in their own process, so that calls are ordered.

Imported by `tests.crash.server`, never by tests.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import alexnet.tools.convert.run
import alexnet.tools.synth.run  # noqa: F401
from alexnet.shards.processes import Pool
from alexnet.tools.convert import engines
from alexnet.tools.prep import main
from alexnet.tools.synth import archives
from alexnet.tools.synth.parts import Part


def _pool_of_none(function: Any, _: int, **options: Any) -> Pool[Any, Any]:
    """Stand for the converter's pool."""
    return Pool(function, 0, **options)


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
    vars(engines)["Pool"] = _pool_of_none
    vars(archives)["Workers"] = _WorkersHere
    main(arguments)
