"""What is struck in forks: the commands with their workers' work done in their own process, so that calls are ordered.

Imported by `tests.crash.server`, never by tests.
"""

from typing import Any

import alexnet.tools.convert.run
import alexnet.tools.synth.run  # noqa: F401
from alexnet.shards.processes import Pool
from alexnet.tools.convert import engines
from alexnet.tools.prep import main
from alexnet.tools.synth import archives


def _pool_of_none(function: Any, _: int, **options: Any) -> Pool[Any, Any]:
    """Stand for the converter's pool."""
    return Pool(function, 0, **options)


def prep(arguments: list[str]) -> None:
    vars(engines)["Pool"] = _pool_of_none
    vars(archives)["Pool"] = _pool_of_none
    main(arguments)
