"""AlexNet, trained the way the bottleneck demands: the data pipeline first.

    from alexnet import ImageStream

The package is four folders, and imports only ever point downwards:

    tools                the commands; the only folder that joins the two below
    pipeline | model     shards -> batches | networks, training
    shards               the on-disk format; neither torch nor DALI

Importing `alexnet` loads none of them, and asking it for the stream loads neither torch nor DALI.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet.pipeline import AugmentSettings, BatchPlan, ImageStream, StreamSettings

__all__ = ["AugmentSettings", "BatchPlan", "ImageStream", "StreamSettings"]
__version__: str


def __getattr__(name: str) -> Any:
    """Look up what is asked for: loading it takes 50 ms and more, in which Ctrl-C would end in a traceback."""
    if name in __all__:
        import alexnet.pipeline

        return getattr(alexnet.pipeline, name)
    if name != "__version__":
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("alexnet")
    except PackageNotFoundError:  # a source tree on PYTHONPATH, as on a machine where nothing can be installed
        return "0+uninstalled"


def __dir__() -> list[str]:
    """List what `__getattr__` finds as well, so that a shell completes it."""
    return sorted({*globals(), *__all__, "__version__"})
