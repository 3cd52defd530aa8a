"""The names of the networks, and what a recipe may settle: which one, for how many classes, and experiments on it.

The experiments are the paper's own comparisons. Each is an edit of the architecture, and an edit that would change
nothing is refused: a run that claims to be without normalisation must have had some to lose.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from alexnet.model.networks.architecture import Activation, Architecture, Drop, NormAcrossMaps, NormInMap, Pool
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.shards.errors import InputError, nearest


def architecture_named(name: str) -> Architecture:
    """Return a network's architecture. Raises InputError, with the nearest name, if there is none."""
    if name not in ARCHITECTURES:
        raise InputError(f"net.arch={name}: must be one of {', '.join(ARCHITECTURES)}{nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


PAPERS_DROPOUT = 0.5
_MOST_CLASSES = 1 << 31  # labels are int32
_MOST_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Settle the network.

    `arch`: its name. `classes`: outputs. `channels`: of its input, 0 for what it was made for; with 1, it reads the
    mean of the colours. `dropout`: rate, where it has dropout. `activation`: `tanh` for every rectifier, or the
    reverse. `response_norm`: `off` leaves normalisation out. `pooling`: `disjoint` shrinks each window to its stride.
    `drawn` leaves things as the network's paper has them.
    """

    arch: str = "alexnet-2012"
    classes: int = 1000
    channels: int = 0
    dropout: float = PAPERS_DROPOUT
    activation: Literal["drawn", "relu", "tanh"] = "drawn"
    response_norm: Literal["drawn", "off"] = "drawn"
    pooling: Literal["drawn", "disjoint"] = "drawn"

    def __post_init__(self) -> None:
        architecture_named(self.arch)
        if not 1 <= self.classes < _MOST_CLASSES:
            raise InputError(f"net.classes={self.classes}: must be at least 1, and below {_MOST_CLASSES:,}")
        if not 0 <= self.channels <= _MOST_CHANNELS:
            allowed = f"must be at least 1 and at most {_MOST_CHANNELS:,}, or 0 for what the network is made for"
            raise InputError(f"net.channels={self.channels}: {allowed}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"net.dropout={self.dropout}: must be at least 0 and below 1")

    @property
    def input_channels(self) -> int:
        """Return the channels of the input."""
        return self.channels or architecture_named(self.arch).channels


def architecture_of(settings: NetSettings) -> Architecture:
    """Return a network with the experiments done to it. Raises InputError for one that changes nothing."""
    architecture = architecture_named(settings.arch)
    layers = architecture.layers
    if settings.activation != "drawn":
        function = Activation(settings.activation)
        layers = tuple(function if isinstance(layer, Activation) else layer for layer in layers)
        _refuse_without_effect(layers != architecture.layers, settings, "activation", "has no other")
    if settings.response_norm == "off":
        normalised, layers = layers, tuple(x for x in layers if not isinstance(x, NormAcrossMaps | NormInMap))
        _refuse_without_effect(layers != normalised, settings, "response_norm", "has none")
    if settings.pooling == "disjoint":
        overlapping = layers
        layers = tuple(dataclasses.replace(x, window=x.stride) if isinstance(x, Pool) else x for x in layers)
        _refuse_without_effect(layers != overlapping, settings, "pooling", "has no pooling windows that overlap")
    if settings.dropout != PAPERS_DROPOUT:
        _refuse_without_effect(any(isinstance(x, Drop) for x in layers), settings, "dropout", "has none")
    return dataclasses.replace(architecture, layers=layers)


def _refuse_without_effect(effect: bool, settings: NetSettings, key: str, why: str) -> None:
    if not effect:
        raise InputError(f"net.{key}={getattr(settings, key)}: {settings.arch} {why}; leave the key out")
