"""Write a trained network into one file, for others to use.

safetensors: the parameters under our names, with everything in its metadata that `evaluate`, `predict` and `--init`
need. torchvision: a state dict that `torchvision.models.alexnet` loads; its metadata say what that must be fed.
"""

from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from alexnet.model.networks.architecture import Drop
from alexnet.model.networks.others import OWT
from alexnet.model.networks.settings import architecture_of
from alexnet.model.weights import Weights, write_safetensors, write_state_dict
from alexnet.shards.errors import InputError
from alexnet.tools.console import interruptible
from alexnet.tools.use.trained import Trained

Format = Literal["safetensors", "torchvision"]

_CHANNELS = 3


def export(trained: Trained, to: Format, out: Path) -> None:
    """Write the file. Raises InputError if the network has no such form, or the file cannot be written."""
    if to == "torchvision":
        _check_torchvision(trained)
    whole = trained.exported()
    weights = Weights(tensors=whole.tensors, about={**whole.about, "feed": feed(trained)})
    write = write_state_dict if to == "torchvision" else write_safetensors
    try:
        with interruptible("interrupted; nothing was written"):
            write(out, weights)
    except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch's writer raises RuntimeError for a full disk
        raise InputError(f"--out {out}: {error}; give a file that can be written") from None


def feed(trained: Trained) -> dict[str, Any]:
    """Say what the network must be fed, in torchvision's terms: RGB of 0 to 1, then Normalize(mean, std).

    That is (pixel - mean) * scale on 0-255 written for pixel / 255. `mean` is absent where a mean image is subtracted.
    """
    normalization, size_px, crop_px = trained.normalization(), trained.data.size_px, trained.augment.crop_px
    prepared: dict[str, Any] = {
        "resize": f"the shorter side to {size_px} px, bicubic, antialiased",
        "crop": f"the centre, {crop_px} px",
        "values": "RGB, float32, 0 to 1 (`ToTensor`), then `Normalize(mean, std)`",
        "std": [1.0 / (255.0 * scale) for scale in normalization.scale.astype(float).tolist()],
    }
    if normalization.mean.ndim == 1:
        return {**prepared, "mean": [mean / 255.0 for mean in normalization.mean.astype(float).tolist()]}
    return {**prepared, "values": "RGB, 0-255, minus the centre of the tensor `mean_image`, divided by 255 * std"}


def _check_torchvision(trained: Trained) -> None:
    """Raise InputError unless torchvision's `alexnet` computes what this network computes."""
    net, mend = trained.net, "--to safetensors takes every network"
    if net.arch != OWT.name:
        raise InputError(f"--to torchvision: torchvision has {OWT.name} only, {trained.path} is {net.arch}; {mend}")
    if net.input_channels != _CHANNELS:
        raise InputError(f"--to torchvision: takes 3 channels, {trained.path} has {net.input_channels}; {mend}")
    drawn = [layer for layer in architecture_of(net).layers if not isinstance(layer, Drop)]
    if drawn != [layer for layer in OWT.layers if not isinstance(layer, Drop)]:
        raise InputError(
            f"--to torchvision: {trained.path} was trained with net.activation={net.activation}, net.pooling="
            f"{net.pooling}, which torchvision's alexnet has not; {mend}"
        )
    if trained.mean_image is not None:
        raise InputError(
            f"--to torchvision: {trained.path} was trained with augment.mean=image, which torchvision's transforms "
            f"have not; {mend}"
        )
