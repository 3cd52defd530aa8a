"""Other loaders doing the same work: each as its own documentation recommends, and nobody made of straw.

The work: JPEGs of a data set in shuffled order; of each a random window, mirrored half of the time; the channels' mean
subtracted; float32 batches as torch tensors, (n, 3, crop, crop). Labels come along. A peer that needs its data in
another form gets it made, in a temporary folder, before the clock starts.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings

_MODULES = {
    "torch": "torch_loader",
    "webdataset": "webdataset_loader",
    "dali": "dali_graph",
    "ffcv": "ffcv_loader",
    "spdl": "spdl_pipeline",
    "nvimagecodec": "batch_decoders",
    "torchvision": "batch_decoders",
}
_NEEDS = {
    "torch": ("torch",),
    "webdataset": ("webdataset", "torch"),
    "dali": ("nvidia-dali-cuda130", "torch"),
    "ffcv": ("ffcv", "torch"),
    "spdl": ("spdl", "torch"),
    "nvimagecodec": ("nvidia-nvimgcodec-cu13", "torch"),
    "torchvision": ("torchvision", "torch"),
}
_DECODERS = {"simplejpeg": ("simplejpeg",), "pil": ("pillow-simd",)}


def make_peer(kind: str, options: dict[str, Any], settings: StageSettings) -> Stage:
    """Make a peer's stage. Raises CannotRunError if it is not installed."""
    packages = (*_NEEDS[kind], *_DECODERS.get(str(options.get("decoder")), ()))
    versions = {package: _version(package) for package in packages}
    module = import_module(f"alexnet.tools.bench.loader.peers.{_MODULES[kind]}")
    stage: Stage = module.make(options, settings, versions)
    return stage


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise CannotRunError(f"{package} is not installed") from None
