"""`alexnet-bench`: how fast data path, networks, training and converter are on this machine, beside their limits."""

from alexnet.tools.bench.command import main

__all__ = ["main"]
