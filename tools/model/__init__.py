"""`alexnet-model`: look at networks in numbers, and use trained ones: evaluate, predict, export, report."""

from alexnet.tools.model.command import main

__all__ = ["main"]
