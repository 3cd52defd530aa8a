"""Start from the weights of another network, as the 2012 network with a sixth convolution did.

Parameters are taken by name where the shape is the same: from a checkpoint, from safetensors, or from a state dict of
PyTorch's, such as torchvision's `alexnet`, whose names and shapes `alexnet-owt` shares. What wrappers of a network have
put into its names is taken out. Nothing is unpickled but tensors.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alexnet.model.checkpoint import NETWORK, PROGRESS, load_checkpoint, under
from alexnet.model.networks.build import Network
from alexnet.model.weights import digest, misfit, read_weights, shapes_of
from alexnet.shards.errors import InputError

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What DataParallel, torch.compile and others put before the names of whatever they wrap, a network or a part of it."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Say which layers came from a file; `sha256` names all the parameters that it holds, whatever its format."""

    layers: tuple[str, ...]
    sha256: str


@torch.no_grad()
def take_weights(net: Network, file: Path, up_to: str = "") -> WarmStart:
    """Copy parameters of a file, or of a checkpoint's folder, into the network.

    `up_to`: the last layer to take, all that fit if empty; those above keep the values that they have. Raises
    InputError if one up to there does not fit, or if none does, or one that stands on a layer that does not: what it
    has learnt to read is not said by drawn values.
    """
    with torch.device("meta"):  # every tower, so that processes that hold one each take the same layers
        whole = Network(net.settings)
    shapes = shapes_of(dict(whole.named_parameters()))
    stored = _as_named(_read(file), shapes, file)
    layers = _names_by_layer(whole)
    wanted = list(layers)[: list(layers).index(up_to) + 1] if up_to else list(layers)
    misfits = {layer: _misfit(layers[layer], shapes, stored) for layer in wanted}
    taken = tuple(itertools.takewhile(lambda layer: not misfits[layer], wanted))
    if up_to and len(taken) < len(wanted):
        why = misfits[wanted[len(taken)]]
        raise InputError(f"--init {file}: {why}; lower init.up_to={up_to}, or give another file")
    _check_order(file, net.settings.arch, misfits, taken)
    if not taken:
        first, found = next(iter(shapes)), next(iter(stored), "nothing")
        raise InputError(
            f"--init {file}: no layer fits {net.settings.arch}; its first is called {first}, the file's {found}"
        )
    parameters = dict(net.named_parameters())
    for name in itertools.chain.from_iterable(layers[layer] for layer in taken):
        if name in parameters:
            parameters[name].copy_(stored[name])
    return WarmStart(layers=taken, sha256=digest(stored))


def _read(file: Path) -> dict[str, Tensor]:
    if file.is_dir() and not (file / PROGRESS).exists():
        what = "is no run folder, and no whole checkpoint of one"
        raise InputError(f"--init {file}: {what}; give one of these, safetensors, or a state dict of PyTorch's")
    try:
        tensors = load_checkpoint(file).tensors if file.is_dir() else read_weights(file).tensors
    except InputError as error:
        raise InputError(f"--init {error}") from None
    return under(NETWORK, tensors) or tensors


def _as_named(stored: Mapping[str, Tensor], names: Iterable[str], file: Path) -> dict[str, Tensor]:
    """Return tensors under the network's own names: without wrappers, and without what stands before all of them."""
    bare: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in bare:
            raise InputError(f"--init {file}: holds {short} more than once, as {name}, too; give a file of one network")
        bare[short] = tensor
    wanted = tuple(f".{name}" for name in names)
    before = {f".{name}".removesuffix(end) for name in bare for end in wanted if f".{name}".endswith(end)}
    if not before or "" in before:
        return bare
    if len(before) > 1:
        found = ", ".join(prefix.removeprefix(".") for prefix in sorted(before))
        raise InputError(f"--init {file}: holds several such networks, {found}; give a file of one of them")
    prefix = f"{before.pop().removeprefix('.')}."
    return {name.removeprefix(prefix): tensor for name, tensor in bare.items() if name.startswith(prefix)}


def _names_by_layer(whole: Network) -> dict[str, list[str]]:
    """Return the names of each layer's parameters."""
    named = {parameter: name for name, parameter in whole.named_parameters()}
    return {
        layer: [named[parameter] for module in modules if module for parameter in module.parameters()]
        for layer, modules in whole.weighted().items()
    }


def _check_order(file: Path, arch: str, misfits: Mapping[str, str], taken: tuple[str, ...]) -> None:
    """Raise InputError if a layer fits that stands on one that does not."""
    fits = [layer for layer, misfit in misfits.items() if not misfit]
    if len(fits) == len(taken):
        return
    order = list(misfits)
    drawn = [layer for layer in order[: order.index(fits[-1])] if misfits[layer]]
    mend = f"--set init.up_to={taken[-1]} takes what is below" if taken else "give a file that has these"
    raise InputError(
        f"--init {file}: {', '.join(fits)} fit {arch}, but {', '.join(drawn)} would be drawn, and layers above have "
        f"learnt to read others ({misfits[drawn[0]]}); {mend}"
    )


def _misfit(names: list[str], shapes: Mapping[str, torch.Size], stored: Mapping[str, Tensor]) -> str:
    """Say why a layer's parameters cannot be taken; '' if they can."""
    if why := misfit(shapes_of(stored), {name: shapes[name] for name in names}):
        return why
    if odd := next((name for name in names if not stored[name].is_floating_point()), None):
        return f"{odd} holds {str(stored[odd].dtype).removeprefix('torch.')}, not floating-point numbers"
    return ""
