"""Start from the weights of another network, as the 2012 network with a sixth convolution did.

Parameters are taken by name where the shape is the same, from a safetensors file; nothing is unpickled. A checkpoint's
`tensors.safetensors` is such a file, and so are torchvision's weights for `alexnet-owt` once they are in that format.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alexnet.model.networks.network import Network
from alexnet.shards.errors import InputError

_PREFIX = "net."  # what a checkpoint calls the network's parameters, beside the optimizer's


@torch.no_grad()
def take_weights(net: Network, file: Path, up_to: str = "") -> list[str]:
    """Copy parameters of a file into the network; return the names of the layers that came from it.

    `up_to`: the last layer to take, all if empty. Other layers keep the values they have, and so does one of which the
    file has nothing or another shape, unless `up_to` asked for it. Raises InputError then, and if no layer fits.
    """
    stored = {name.removeprefix(_PREFIX): tensor for name, tensor in _read(file).items()}
    named = {parameter: name for name, parameter in net.named_parameters()}
    layers = net.weighted()
    names = list(layers)
    taken = []
    for layer in names[: names.index(up_to) + 1] if up_to else names:
        parameters = [p for module in layers[layer] if module is not None for p in module.parameters()]
        misfit = next((text for p in parameters if (text := _misfit(named[p], p, stored))), None)
        if misfit is None:
            for parameter in parameters:
                parameter.copy_(stored[named[parameter]])
            taken.append(layer)
        elif up_to:
            raise InputError(f"--init {file}: {misfit}; lower init.up_to={up_to}, or give another file")
    if not taken:
        raise InputError(
            f"--init {file}: no layer fits {net.settings.arch}; its first is called {next(iter(named.values()))}"
        )
    return taken


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"--init {file}: cannot be read as safetensors ({error})") from None


def _misfit(name: str, parameter: nn.Parameter, stored: dict[str, Tensor]) -> str | None:
    """Say why a parameter cannot be taken, or nothing if it can."""
    if name not in stored:
        return f"has no {name}"
    if stored[name].shape != parameter.shape:
        return f"{name} is {tuple(stored[name].shape)}, this network's is {tuple(parameter.shape)}"
    return None
