"""What is struck in forks: `alexnet-train`, with all that it imports. `tests.crash.server` imports it."""

import alexnet.tools.run.training  # noqa: F401
from alexnet.tools.train import main

__all__ = ["main"]
