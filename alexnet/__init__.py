"""AlexNet, trained the way the bottleneck demands: the data pipeline first.

The package is four rooms, and imports only ever point downwards:

    tools                the commands; the only room that joins the two below
    pipeline | model     shards -> batches | networks, training
    shards               the on-disk format; neither torch nor DALI

Importing `alexnet` loads none of them.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("alexnet")
except PackageNotFoundError:  # a source tree on PYTHONPATH, as on a machine where nothing can be installed
    __version__ = "0+uninstalled"
