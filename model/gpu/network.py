"""A network as a GPU runs it in training: the same layers, in as few kernels as they can be had.

An architecture is read once, from top to bottom, and becomes a list of functions from values to values. Towers that are
here together are one tensor wherever a layer reads all of them (conv1, conv3, fc6 to fc8 in the paper's network: one
convolution, one matrix product), and a tensor each where they read their own (conv2, conv4 and conv5: two dense
convolutions, which cuDNN does faster than one in groups). What follows a convolution, up to its pooling, is one kernel,
which reads and writes either form, so that nothing is concatenated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.gpu.conv_epilogue import NORM_BETA, NORM_SIZE, Epilogue, conv_epilogue
from alexnet.model.gpu.elementwise import bias_relu_dropout, space_to_depth, weight_to_depth
from alexnet.model.gpu.parameters import FlatParameters
from alexnet.model.networks.architecture import (
    RELU,
    AllGather,
    Conv,
    Drop,
    Flatten,
    Full,
    Layer,
    NormAcrossMaps,
    PadEnd,
    Pool,
    Weighted,
)
from alexnet.model.networks.build import Network
from alexnet.model.networks.figures import Placed, trace

Values = list[Tensor]
"""What one layer gives to the next: one tensor of all towers that are here, or one of each."""

Run = Callable[[Values], Values]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Input:
    """Say how a batch is laid out before the first layer: zeros around it, and blocks of pixels made channels."""

    block: int
    pad_before: int
    side: int


class PlainNetwork:
    """Compute a network's scores from its flat parameters, layer by layer: what the fused one is measured against."""

    def __init__(self, net: Network, parameters: FlatParameters) -> None:
        self._net = net
        named = parameters.named()
        self._given = {name: computed.requires_grad_() for name, (computed, _) in named.items()}
        self.leaves = [(self._given[name], gradient) for name, (_, gradient) in named.items()]

    def __call__(self, prepared: Tensor) -> Tensor:
        """Return the scores, (n, classes)."""
        scores: Tensor = torch.func.functional_call(self._net, self._given, (prepared,))
        return scores

    def prepare(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Cast a batch to the type that is computed in."""
        return images.to(self.leaves[0][0].dtype) if out is None else out.copy_(images)


class FusedNetwork:
    """Compute a network's scores from its flat parameters, for images of one size.

    `leaves`: what autograd is asked the gradients of, each with where its gradient belongs; those of fully connected
    layers' weights are written there by the backward pass itself. `blocks`: turn squares of stride x stride pixels into
    channels, 11x11x3 every 4 pixels into 3x3x48: channels fill the units that multiply matrices, and three do not.
    """

    def __init__(self, net: Network, parameters: FlatParameters, px: int, *, blocks: bool = True) -> None:
        self.leaves: list[tuple[Tensor, Tensor]] = []
        self._net, self._parameters = net, parameters
        self._placed = trace(net.settings, px=px)
        self._towers = len(net.local_towers())
        self._input, skipped = self._choose_input(px, blocks)
        self._runs: list[Run] = []
        self._apart = False
        at = skipped
        while at < len(self._placed):
            at += self._add(at)

    def __call__(self, prepared: Tensor) -> Tensor:
        """Return the scores, (n, classes), of a batch that `prepare` laid out."""
        values = [prepared]
        for run in self._runs:
            values = run(values)
        whole = len(values) == 1 and self._towers == self._net.architecture.towers
        return values[0] if whole else self._net.exchange.all_scores(values)

    def prepare(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Lay out a batch (n, channels, px, px) as the first layer reads it, in one kernel."""
        if self._net.settings.input_channels == 1 and images.shape[1] > 1:
            images = images.mean(dim=1, keepdim=True)
        if out is None:
            shape = (len(images), images.shape[1] * self._input.block**2, self._input.side, self._input.side)
            kind = self._parameters.gradient.dtype
            out = torch.empty(shape, dtype=kind, device=images.device, memory_format=torch.channels_last)
        space_to_depth(images, out, self._input.block, self._input.pad_before)
        return out

    def _choose_input(self, px: int, blocks: bool) -> tuple[_Input, int]:
        """Return the layout of the input, and how many layers it does the work of."""
        padded = px
        skipped = 0
        if isinstance(first := self._placed[0].layer, PadEnd):
            padded, skipped = px + first.px, 1
        place = self._placed[skipped]
        conv = place.layer
        if blocks and isinstance(conv, Conv) and conv.stride > 1 and not conv.table:
            side = place.gives[1] - 1 + -(-conv.window // conv.stride)
            return _Input(conv.stride, conv.padding, side), skipped
        return _Input(1, 0, padded), skipped

    def _add(self, at: int) -> int:
        """Add what runs from a place on; return how many layers that is."""
        place = self._placed[at]
        match place.layer:
            case Conv(table=None):
                return self._add_conv(at)
            case Full():
                return self._add_full(at)
            case AllGather():
                self._runs.append(self._joined if self._towers > 1 else self._net.exchange.all_gather)
                self._apart = False
            case Drop():
                towers = range(self._towers) if self._apart else range(1)
                self._runs.append(_side_by_side([self._dropout(place, tower) for tower in towers]))
            case Flatten():
                self._runs.append(lambda values: [value.flatten(1) for value in values])
            case Weighted():
                self._runs.append(self._weighted(place))
            case _:
                self._separate()
                self._runs.append(self._modules(place))
        return 1

    def _add_conv(self, at: int) -> int:
        """Add a convolution and what follows it, up to its pooling."""
        place = self._placed[at]
        found, taken = _epilogue([follows.layer for follows in self._placed[at + 1 :]])
        joined = self._towers == 1 or self._gathered_after(at + 1 + taken)
        epilogue = Epilogue(**found, towers=self._towers, outputs=1 if joined else self._towers)
        bias = self._leaf(place, "bias")
        towers = range(self._towers) if self._apart else [None]
        convolved = _side_by_side([self._convolution(place, self._leaf(place, "weight", tower)) for tower in towers])

        def run(values: Values) -> Values:
            return list(conv_epilogue(convolved(values), bias, epilogue))

        self._runs.append(run)
        self._apart = not joined
        return 1 + taken

    def _convolution(self, place: Placed, weight: Tensor) -> Function:
        conv = place.layer
        assert isinstance(conv, Conv)
        if place.number == 1 and self._input.block > 1:
            return lambda value: F.conv2d(value, weight_to_depth(weight, conv.stride))
        return partial(F.conv2d, weight=weight, stride=conv.stride, padding=conv.padding)

    def _add_full(self, at: int) -> int:
        """Add a fully connected layer, with the ReLU and the dropout that follow it."""
        place = self._placed[at]
        following = [follows.layer for follows in self._placed[at + 1 : at + 3]]
        relu = following[:1] == [RELU]
        drop = relu and isinstance(following[-1], Drop)
        towers = range(self._towers) if self._apart else [None]
        runs = []
        for tower in towers:
            weight, gradient = self._parameters.weight(place.name, "weight", tower)
            bias = self._leaf(place, "bias", tower)
            finish = self._dropout(self._placed[at + 2 if drop else at], tower or 0, bias, relu=True, drop=drop)
            runs.append(_full(weight, gradient, bias, finish if relu else None))
        self._runs.append(_side_by_side(runs))
        if self._towers > 1 and not self._apart and not self._gathered_after(at + 1):
            self._separate()
        return 1 + relu + drop

    def _dropout(
        self, place: Placed, tower: int = 0, bias: Tensor | None = None, *, relu: bool = False, drop: bool = True
    ) -> Function:
        """Return bias, ReLU and dropout as one function; `tower`: the first of those whose units it is given."""
        layer, rate = place.layer, self._net.settings.dropout if drop else 0.0
        first_unit = self._net.local_towers()[tower] * place.reads[0]
        clock = self._net.clock.now if rate else None
        if bias is None and not rate:
            return lambda value: value
        scaled = isinstance(layer, Drop) and layer.scaled
        options: dict[str, Any] = {"relu": relu, "layer": place.number, "first_unit": first_unit}
        return lambda value: bias_relu_dropout(value, bias, clock, **options, rate=rate, scaled=scaled)

    def _weighted(self, place: Placed) -> Run:
        """Run a layer that only small networks of one tower have, by its own module."""
        given = {what: self._leaf(place, what) for what in ("weight", "bias")}
        (module,) = self._net.layer(place.name)
        return _side_by_side([lambda value: torch.func.functional_call(module, given, (value,))])

    def _modules(self, place: Placed) -> Run:
        """Run a layer without parameters by the towers' own modules."""
        return _side_by_side(self._net.layer(place.name))

    def _leaf(self, place: Placed, what: str, tower: int | None = None) -> Tensor:
        """Return a weight or bias that autograd gives a gradient for, which then belongs into the flat buffer."""
        leaf, gradient = self._parameters.weight(place.name, what, tower)
        self.leaves.append((leaf.requires_grad_(), gradient))
        return leaf

    def _gathered_after(self, at: int) -> bool:
        """Say whether whatever reads the values next reads those of all towers."""
        for place in self._placed[at:]:
            if isinstance(place.layer, AllGather | Weighted | NormAcrossMaps):
                return isinstance(place.layer, AllGather)
        return True  # the scores

    def _joined(self, values: Values) -> Values:
        return values if len(values) == 1 else [torch.cat(values, dim=1)]

    def _separate(self) -> None:
        """Give each tower a tensor of its own from here on."""
        if self._towers > 1 and not self._apart:
            self._runs.append(lambda values: list(values[0].chunk(self._towers, dim=1)))
            self._apart = True


def _side_by_side(functions: Sequence[Function]) -> Run:
    """Apply a function to each of as many values."""
    return lambda values: [function(value) for function, value in zip(functions, values, strict=True)]


def _epilogue(layers: Sequence[Layer]) -> tuple[dict[str, Any], int]:
    """Return what of the layers after a convolution is one kernel with it, and how many they are."""
    rest = list(layers)
    found: dict[str, Any] = {"relu": "none"}
    if rest[:1] == [RELU]:
        rest.pop(0)
        found["relu"] = "before"
    norm = rest[0] if rest else None
    if isinstance(norm, NormAcrossMaps) and (norm.size, norm.beta) == (NORM_SIZE, NORM_BETA):
        rest.pop(0)
        found["norm"] = (norm.alpha, norm.k)
    if rest and isinstance(pool := rest[0], Pool) and pool.kind == "max" and not pool.ceil:
        rest.pop(0)
        found["pool"] = (pool.window, pool.stride)
    if rest[:1] == [RELU] and found["relu"] == "none":
        rest.pop(0)
        found["relu"] = "after"
    return found, len(layers) - len(rest)


def _full(weight: Tensor, gradient: Tensor, bias: Tensor, finish: Function | None) -> Function:
    """Return a fully connected layer; `finish` adds the bias, if there is any."""
    if finish is None:
        return lambda value: _MatrixProduct.apply(value, weight, gradient, bias)  # type: ignore[no-untyped-call]
    return lambda value: finish(_MatrixProduct.apply(value, weight, gradient, None))  # type: ignore[no-untyped-call]


class _MatrixProduct(torch.autograd.Function):
    """x @ weight.T + bias, whose backward pass writes the weight's gradient where it is told to.

    Left to autograd it would be a tensor of its own and a copy: 94% of the 2012 network's parameters are such weights,
    and the copy would add 235 MB to the 3.08 GB that a step moves.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, gradient: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(value, weight)
        ctx.gradient, ctx.biased = gradient, bias is not None
        return value @ weight.t() if bias is None else torch.addmm(bias, value, weight.t())

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = ctx.saved_tensors
        torch.mm(given.t(), value, out=ctx.gradient)
        return given @ weight, None, None, given.sum(0) if ctx.biased else None
