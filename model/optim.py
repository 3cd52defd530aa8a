"""Stochastic gradient descent with momentum, by the paper's rule (section 5).

    v <- 0.9 v - lr (0.0005 w + g);   w <- w + v

The learning rate lives inside the velocity. PyTorch keeps a buffer b with v = -lr b, so when the rate changes from lr0
to lr1 the paper's rule reads b <- 0.9 (lr0 / lr1) b + g: one step with a scaled momentum, at no cost.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Settle the update rule.

    `bias_lr_scale`: the biases' learning rate is the weights' times this (the 2012 code: 2). `bias_lr`: `scheduled`
    falls with the weights' rate, `constant` stays where it began (the 2012 code). `bias_decay`: weight decay on biases,
    too, as the paper's formula says; the 2012 code has none. `full_decay_scale`: weight decay of fully connected layers
    is `weight_decay` times this (cuda-convnet).
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0005
    bias_lr_scale: float = 1.0
    bias_lr: Literal["scheduled", "constant"] = "scheduled"
    bias_decay: bool = True
    full_decay_scale: float = 1.0

    def __post_init__(self) -> None:
        for field in ("lr", "bias_lr_scale"):
            if not getattr(self, field) > 0:
                raise InputError(f"optim.{field}={getattr(self, field)}: must be above 0")
        if not 0 <= self.momentum < 1:
            raise InputError(f"optim.momentum={self.momentum}: must be at least 0 and below 1")
        for field in ("weight_decay", "full_decay_scale"):
            if not getattr(self, field) >= 0:
                raise InputError(f"optim.{field}={getattr(self, field)}: must not be negative")


@dataclass(frozen=True)
class _Kind:
    """Name a group of parameters by what they have in common: biases or not, of which layers."""

    bias: bool
    full: bool
    first_layer: bool

    def __str__(self) -> str:
        where = "first layer" if self.first_layer else "fully connected" if self.full else "convolutions"
        return f"{where}, {'biases' if self.bias else 'weights'}"

    def rate(self, settings: OptimSettings, rate: float, first_layer_factor: float) -> float:
        """Return this group's learning rate when the schedule says `rate`; 0: it is frozen."""
        if self.first_layer:
            rate *= first_layer_factor
        if self.bias and rate:
            return settings.bias_lr_scale * (settings.lr if settings.bias_lr == "constant" else rate)
        return rate

    def decay(self, settings: OptimSettings) -> float:
        """Return this group's weight decay."""
        if self.bias and not settings.bias_decay:
            return 0.0
        return settings.weight_decay * (settings.full_decay_scale if self.full else 1.0)


class MomentumSGD:
    """Apply the paper's rule with PyTorch's fused SGD (4.3 times the speed of its default on a CPU).

    `first_layer`: the modules whose rate a schedule may lower on its own.
    """

    def __init__(self, net: nn.Module, settings: OptimSettings, first_layer: Collection[nn.Module] = ()) -> None:
        self._settings = settings
        self._parameters = dict(net.named_parameters())
        members: dict[_Kind, list[nn.Parameter]] = {}
        for module in net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                kind = _Kind(name == "bias", isinstance(module, nn.Linear), module in first_layer)
                members.setdefault(kind, []).append(parameter)
        groups = [{"params": ps, "kind": kind, "weight_decay": kind.decay(settings)} for kind, ps in members.items()]
        self._sgd = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)

    def step(self, rate: float, first_layer: float = 1.0) -> None:
        """Update every parameter, then drop the gradients.

        `rate`: the weights' learning rate, above 0. `first_layer`: what the first layer's is multiplied with; at 0 that
        layer stays as it is.
        """
        for parameters, (wanted, _) in zip(self.groups(), self.set_rates(rate, first_layer), strict=True):
            for parameter in () if wanted else parameters:
                parameter.grad = None
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)

    def set_rates(self, rate: float, first_layer: float = 1.0) -> list[tuple[float, float]]:
        """Set what the next update goes by; return learning rate and momentum of each group, 0 and 0 if frozen."""
        rates: list[tuple[float, float]] = []
        for group in self._sgd.param_groups:
            wanted = group["kind"].rate(self._settings, rate, first_layer)
            if wanted:
                group["momentum"] = self._settings.momentum * group["lr"] / wanted
                group["lr"] = wanted
            rates.append((wanted, group["momentum"] if wanted else 0.0))
        return rates

    def groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters that are updated alike, group by group."""
        return [group["params"] for group in self._sgd.param_groups]

    def decays(self) -> list[float]:
        """Return each group's weight decay."""
        return [group["weight_decay"] for group in self._sgd.param_groups]

    def rates(self) -> dict[str, float]:
        """Return, for each group of parameters, the learning rate that is inside its velocity."""
        return {str(group["kind"]): group["lr"] for group in self._sgd.param_groups}

    def momentum_buffers(self) -> dict[str, torch.Tensor]:
        """Return the velocity buffers by parameter name; empty before the first step."""
        state = self._sgd.state
        return {name: state[p]["momentum_buffer"] for name, p in self._parameters.items() if p in state}

    def hold_momentum(self, buffers: dict[str, torch.Tensor]) -> None:
        """Keep the velocity in these tensors from now on, by parameter name; each with its parameter's strides."""
        for name, p in self._parameters.items() if self._settings.momentum else ():
            self._sgd.state[p]["momentum_buffer"] = buffers[name]

    @torch.no_grad()
    def restore(self, buffers: dict[str, torch.Tensor], rates: dict[str, float]) -> None:
        """Continue with the buffers and the rates of a checkpoint."""
        self._sgd.state.clear()
        for name, p in self._parameters.items():
            if name in buffers:
                # The fused update walks parameter and buffer in memory order: both need the same strides.
                self._sgd.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(buffers[name])
        for group in self._sgd.param_groups:
            group["lr"] = rates[str(group["kind"])]


_PIECE = 1 << 16


def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all values together, fp32; does not wait for the device.

    On a CPU in pieces of 65,536 values: there PyTorch adds up squares from end to end in fp32, and the norm of as many
    values as fc6 has, 37.7 million, comes out 2.6e-3 too small; so, within 2e-7, at 1.3 times the cost. A GPU adds up
    in a tree, and 954 pieces would be as many kernels.
    """
    pieces = [piece for tensor in tensors for piece in _pieces(tensor.detach())]
    if any(piece.dtype == torch.bfloat16 for piece in pieces):  # whose own norms would be rounded to three digits
        norms = torch.stack(list(torch._foreach_norm(pieces, dtype=torch.float32)))
        return get_total_norm([norms])
    return get_total_norm(pieces)


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.flatten().split(_PIECE) if tensor.device.type == "cpu" else (tensor,)


class DivergedError(Exception):
    """Say what is no longer finite, after which step (counted from 1), and with which learning rate."""

    def __init__(self, what: str, step: int, rate: float) -> None:
        super().__init__(f"{what} at step {step:,}, learning rate {rate:g}")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether every value is finite; waits for the device. One pass, without a temporary copy of any tensor."""
    return bool(get_total_norm([tensor.detach() for tensor in tensors]).isfinite())
