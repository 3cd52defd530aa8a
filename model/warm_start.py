"""Start from the weights of another network, as the 2012 network with a sixth convolution did.

Parameters are taken by name where the shape is the same: from a checkpoint, from safetensors, or from a state dict of
PyTorch's, such as torchvision's `alexnet`, whose names and shapes `alexnet-owt` shares. Nothing is unpickled but
tensors.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alexnet.model.checkpoint import PROGRESS, load_checkpoint
from alexnet.model.networks.network import Network
from alexnet.model.weights_file import read_weights
from alexnet.shards.errors import InputError

PREFIX = "net."
"""What a checkpoint calls the network's parameters, beside the optimizer's."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Say which layers came from a file; `sha256` names all the parameters that it holds, whatever its format."""

    layers: tuple[str, ...]
    sha256: str


@torch.no_grad()
def take_weights(net: Network, file: Path, up_to: str = "") -> WarmStart:
    """Copy parameters of a file, or of a checkpoint's folder, into the network.

    `up_to`: the last layer to take, all if empty. Other layers keep the values they have, and so does one of which the
    file has nothing or another shape, unless `up_to` asked for it. Raises InputError then, and if no layer fits.
    """
    stored = _read(file)
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
    return WarmStart(layers=tuple(taken), sha256=_digest(stored))


def network_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's parameters among a checkpoint's tensors, under the names that the network gives them."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}


def _read(file: Path) -> dict[str, Tensor]:
    if file.is_dir() and not (file / PROGRESS).exists():
        what = "is no run folder, and no whole checkpoint of one"
        raise InputError(f"--init {file}: {what}; give one of these, safetensors, or a state dict of PyTorch's")
    try:
        tensors = load_checkpoint(file).tensors if file.is_dir() else read_weights(file).tensors
    except InputError as error:
        raise InputError(f"--init {error}") from None
    return network_tensors(tensors) or tensors


def _digest(stored: dict[str, Tensor]) -> str:
    """Name the stored values: sha256 over names, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(stored.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _misfit(name: str, parameter: nn.Parameter, stored: dict[str, Tensor]) -> str | None:
    """Say why a parameter cannot be taken, or nothing if it can."""
    if name not in stored:
        return f"has no {name}"
    if stored[name].shape != parameter.shape:
        return f"{name} is {tuple(stored[name].shape)}, this network's is {tuple(parameter.shape)}"
    return None
