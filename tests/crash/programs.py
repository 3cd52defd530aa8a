"""What is struck in forks: commands with all that they import, and no worker processes, so that calls are ordered."""

from collections.abc import Callable
from typing import Any

from alexnet.shards.processes import WorkerPool

Program = Callable[[list[str]], object]


def prep() -> Program:
    """Return `alexnet-prep`."""
    import alexnet.tools.convert.run
    import alexnet.tools.synth.run  # noqa: F401
    from alexnet.tools.convert import engines
    from alexnet.tools.prep import main
    from alexnet.tools.synth import archives

    def pool_of_none(function: Any, _: int, **options: Any) -> WorkerPool[Any, Any]:
        return WorkerPool(function, 0, **options)

    for module in (engines, archives):
        vars(module)["WorkerPool"] = pool_of_none
    return main


def train() -> Program:
    """Return `alexnet-train`."""
    import alexnet.tools.run.training  # noqa: F401
    from alexnet.tools.train import main

    return main
