"""What is struck in forks: commands with all that they import, and no worker processes, so that calls are ordered."""

from collections.abc import Callable

Program = Callable[[list[str]], object]


def prep() -> Program:
    """Return `alexnet-prep`."""
    import alexnet.tools.convert.run
    import alexnet.tools.synth.run  # noqa: F401
    from alexnet.tools.convert import engines
    from alexnet.tools.decode import build
    from alexnet.tools.prep import main
    from alexnet.tools.synth import archives
    from tests.conftest import pool_of_none

    for module in (engines, archives, build):
        vars(module)["WorkerPool"] = pool_of_none
    return main


def train() -> Program:
    """Return `alexnet-train`."""
    import alexnet.tools.run.training  # noqa: F401
    from alexnet.tools.train import main

    return main
