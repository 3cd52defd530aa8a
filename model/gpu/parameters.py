"""Every parameter of a network in one flat buffer, and beside it momentum, gradients and the weights to compute with.

Parameters that are updated alike follow each other, so that the update is one kernel for each kind; within a kind the
towers of a layer do, so that both together are one weight of twice the rows. The network's own parameters become views
of the buffer, and so does their momentum: the plain step, checkpoints and validation find them as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from alexnet.model.gpu.elementwise import sgd_
from alexnet.model.networks.build import Network
from alexnet.model.optim import MomentumSGD

_ALIGNED = 64
"""Values that a layer begins at a multiple of: 128 bytes in bf16, what vector loads and matrix products are fast on."""


@dataclass(frozen=True)
class _Place:
    """Say where a layer's weight or bias lies: of all towers here, one after the other. `rows`: of each tower."""

    start: int
    shape: tuple[int, ...]
    rows: tuple[int, ...]

    def of(self, flat: Tensor) -> Tensor:
        """Return the view: of four dimensions in channels-last memory."""
        values = flat[self.start : self.start + prod(self.shape)]
        if len(self.shape) != 4:
            return values.view(self.shape)
        maps, read, height, width = self.shape
        return values.view(maps, height, width, read).permute(0, 3, 1, 2)


class FlatParameters:
    """Take over a network's parameters and the momentum of their update rule.

    `dtype`: what the network computes in. In fp32 it computes with the parameters themselves, in bf16 with a copy that
    each update writes: per parameter the update reads and writes 20 bytes.
    """

    def __init__(self, net: Network, optim: MomentumSGD, dtype: torch.dtype) -> None:
        self._optim = optim
        self._places: dict[tuple[str, str], _Place] = {}
        self._kinds: list[slice] = []
        groups = [{id(parameter) for parameter in group} for group in optim.groups()]
        end = 0
        for members in groups:
            start = end
            for (layer, what), parts in _by_layer(net).items():
                if id(parts[0]) in members:
                    rows = tuple(len(part) for part in parts)
                    place = self._places[layer, what] = _Place(end, (sum(rows), *parts[0].shape[1:]), rows)
                    end += -(-prod(place.shape) // _ALIGNED) * _ALIGNED
            self._kinds.append(slice(start, end))
        device = next(net.parameters()).device
        self._weights, self._momentum = (torch.zeros(end, device=device) for _ in range(2))
        self.gradient = torch.zeros(end, dtype=dtype, device=device)
        self._take_over(net)
        self._computed = self._weights if dtype == torch.float32 else self._weights.to(dtype)
        self._rates = torch.zeros(len(groups), 2, device=device)
        self._told = [(0.0, 0.0)] * len(groups)

    @torch.no_grad()
    def _take_over(self, net: Network) -> None:
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        velocity, momentum = self._optim.momentum_buffers(), dict[str, Tensor]()
        self._named: dict[str, tuple[str, str, int]] = {}
        for key, parts in _by_layer(net).items():
            place = self._places[key]
            views = [place.of(flat).split(place.rows) for flat in (self._weights, self._momentum)]
            for tower, (parameter, weights, momenta) in enumerate(zip(parts, *views, strict=True)):
                name = names[id(parameter)]
                weights.copy_(parameter)
                parameter.data = weights
                if name in velocity:
                    momenta.copy_(velocity[name])
                momentum[name], self._named[name] = momenta, (*key, tower)
        self._optim.hold_momentum(momentum)

    def weight(self, layer: str, what: str, tower: int | None = None) -> tuple[Tensor, Tensor]:
        """Return a layer's `weight` or `bias` to compute with, and where its gradient belongs.

        Of all towers that are here together, or of one of them.
        """
        place = self._places[layer, what]
        computed, gradient = place.of(self._computed.detach()), place.of(self.gradient)
        if tower is None:
            return computed, gradient
        return computed.split(place.rows)[tower], gradient.split(place.rows)[tower]

    def named(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the same by parameter name."""
        return {name: self.weight(*place) for name, place in self._named.items()}

    def set_rates(self, rates: Sequence[tuple[float, float]]) -> None:
        """Set learning rate and momentum of each kind of parameter for the next updates; 0 and 0: it is frozen.

        They lie on the device, where a captured update reads them; what has not changed is not written.
        """
        for kind, (old, new) in enumerate(zip(self._told, rates, strict=True)):
            for place in range(2):
                if old[place] != new[place]:
                    self._rates[kind, place].fill_(new[place])  # a kernel's argument: the CPU does not wait
        self._told = list(rates)

    def freeze(self) -> None:
        """Let the next updates change nothing."""
        self.set_rates([(0.0, 0.0)] * len(self._kinds))

    def update(self) -> None:
        """Update every parameter by its gradient, and what the network computes with."""
        for kind, decay, rates in zip(self._kinds, self._optim.decays(), self._rates.unbind(), strict=True):
            computed = None if self._computed is self._weights else self._computed[kind]
            sgd_(self._weights[kind], self._momentum[kind], self.gradient[kind], computed, rates, decay)


def _by_layer(net: Network) -> dict[tuple[str, str], list[torch.nn.Parameter]]:
    """Return each layer's weights and biases, those of all towers that are here."""
    return {
        (layer, what): [module.get_parameter(what) for module in modules if module is not None]
        for layer, modules in net.weighted().items()
        for what in ("weight", "bias")
    }
