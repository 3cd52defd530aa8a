"""`alexnet-bench`: how fast each stage of the data path is on this machine and this data."""

from alexnet.tools.bench.command import main

__all__ = ["main"]
