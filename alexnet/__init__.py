"""AlexNet, trained the way the bottleneck demands: the data pipeline first.

The package is four folders, and imports only ever point downwards:

    tools                the commands; the only folder that joins the two below
    pipeline | model     shards -> batches | networks, training
    shards               the on-disk format; neither torch nor DALI

Importing `alexnet` loads none of them.
"""

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: that takes 50 ms, in which Ctrl-C would end in a traceback."""
    if name != "__version__":
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("alexnet")
    except PackageNotFoundError:  # a source tree on PYTHONPATH, as on a machine where nothing can be installed
        return "0+uninstalled"
