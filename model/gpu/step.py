"""A training step of few kernels: forward, backward and update, on one GPU as a single CUDA graph.

The graph reads its batch, the dropout masks' clock and the learning rates from where they lay when it was captured, so
each replay is a new step. Where a damaged image was left out of a batch, its row has a label that counts for nothing.
Processes of a run of several, whose kernels wait for each other, run the same kernels one by one.

Before the first step its loss and gradients are compared with the plain network's, in fp32 closely, in bf16 as far as
bf16 goes. Unless they agree, the plain step is taken.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.gpu.network import FusedNetwork, PlainNetwork
from alexnet.model.gpu.parameters import FlatParameters
from alexnet.model.networks.build import Network
from alexnet.model.optim import MomentumSGD
from alexnet.model.placement import Placement
from alexnet.model.ranks import Ranks

T = TypeVar("T")
PlainStep = Callable[[Tensor, Tensor, Placement], dict[str, Tensor]]
"""Images and labels to `loss` and, by parameter name, gradients: the plain network's, in a placement's precision."""

_IGNORED = -100
"""A label that PyTorch's loss leaves out, of the sum and of what it is divided by."""
_WARM_UP = 3
"""Passes before a capture: the first choose kernels and allocate, which a capture must not."""
_CHECKED_IMAGES = 128
"""Of the first batch: in fp32 a large one may not fit."""
_EXACT_ERROR = 1e-3
"""How far the loss and each gradient may be from the plain step's, in fp32 without TF32: 5e-5 was seen on a CPU."""
_TIMES_THE_PLAIN_ERROR, _LEAST_ERROR = 3.0, 1e-2
"""How far they may be from that as a run computes, in bf16 or TF32: three times as far as the plain step's, or 1%.

A share of the plain error, as that is large: rectifiers and pooling windows that come out otherwise, layer after layer,
make conv1's gradient of a batch of 32 differ by 44% in norm, fc8's by 0.3%; with fused kernels 30% and 0.3%."""

_BOTH_ERRORS = 4 / 3
"""Of what is allowed, how far two such steps may be from each other: as far as both together are from fp32."""


class StepDisagreesError(Exception):
    """Say where the step's gradients are not those of the plain network."""


class FusedStep:
    """Take training steps of a network whose parameters are flat from now on, with images of one size.

    `dtype`: what is computed in. `fused`, `blocks`: see `network`; false only to measure what they are worth.
    `gradients`: by parameter name, those of the last step.
    """

    def __init__(
        self,
        net: Network,
        optim: MomentumSGD,
        ranks: Ranks,
        dtype: torch.dtype,
        px: int,
        *,
        fused: bool = True,
        blocks: bool = True,
    ) -> None:
        self._optim, self._ranks, self._dtype = optim, ranks, dtype
        self._parameters = FlatParameters(net, optim, dtype)
        self._network = (
            FusedNetwork(net, self._parameters, px, blocks=blocks) if fused else PlainNetwork(net, self._parameters)
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self.gradients = {name: gradient for name, (_, gradient) in self._parameters.named().items()}

    def __call__(
        self, images: Tensor, labels: Tensor, rate: float, first_layer: float = 1.0, weight: float = 1.0
    ) -> Tensor:
        """Take a step; return its loss. `weight`: of this batch among those of all groups, 1 where they are equal."""
        self._parameters.set_rates(self._optim.set_rates(rate, first_layer))
        count = len(images)
        if self._graph is None or count > len(self._labels):
            return self._run(self._network.prepare(images), labels, weight)
        self._network.prepare(images, self._prepared[:count])
        self._labels[:count].copy_(labels)
        if count < len(self._labels):
            self._labels[count:].fill_(_IGNORED)
        self._graph.replay()
        return self._loss.clone()

    def check(self, images: Tensor, labels: Tensor, plain: PlainStep, placement: Placement) -> float:
        """Compare a batch's loss and gradients with the plain step's in fp32; return the largest relative error.

        Nothing is updated. Raises StepDisagreesError where one is further off than is allowed.
        """
        usual = plain(images, labels, placement)
        cudnn = torch.backends.cudnn
        with cudnn.flags(True, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False):
            truth = plain(images.float(), labels, replace(placement, bf16=False))
            loss = self._loss_and_gradients(self._network.prepare(images), labels)
            self._ranks.add_up(self._parameters.gradient)
        plains = {name: _distance(value, truth[name]) for name, value in usual.items()}
        self._allowed = {name: max(_LEAST_ERROR, _TIMES_THE_PLAIN_ERROR * error) for name, error in plains.items()}
        exact = dict.fromkeys(truth, _EXACT_ERROR)
        return self._compare(loss, truth, exact if self._dtype == torch.float32 else self._allowed)

    def _compare(self, loss: Tensor, with_: dict[str, Tensor], allowed: dict[str, float]) -> float:
        errors = {name: _distance(value, with_[name]) for name, value in {"loss": loss, **self.gradients}.items()}
        for name, error in errors.items():
            if not error <= allowed[name]:
                raise StepDisagreesError(f"{name} is off by {error:.1%}, of {allowed[name]:.1%} allowed, {self._dtype}")
        return max(errors.values())

    def capture(self, images: Tensor, labels: Tensor, rows: int = 0, plain: dict[str, Tensor] | None = None) -> None:
        """Record a step of batches of up to `rows` images, or as many as these, as one graph; no weight changes.

        `plain`: what the plain step makes of the batch, in the precision of the run. Raises StepDisagreesError if what
        the graph replays is not what it recorded, or is not that.
        """
        self._parameters.freeze()
        laid_out = self._network.prepare(images)
        shape = (max(rows, len(images)), *laid_out.shape[1:])
        self._prepared = laid_out.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        self._prepared[: len(images)].copy_(laid_out)
        self._labels = labels.new_full(shape[:1], _IGNORED)
        self._labels[: len(images)].copy_(labels)
        beside = torch.cuda.Stream()  # as PyTorch asks for
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                expected = self._run(self._prepared, self._labels, 1.0)
        torch.cuda.current_stream().wait_stream(beside)
        gradient = self._parameters.gradient.clone()
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: others, such as the decoder's, allocate memory meanwhile, which would end the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._loss = self._run(self._prepared, self._labels, 1.0)
        graph.replay()
        error = max(_distance(self._loss, expected), _distance(self._parameters.gradient, gradient))
        if not error <= _LEAST_ERROR:  # cuDNN's gradients may differ in the last bits each time
            raise StepDisagreesError(f"the replayed graph is {error:.1%} off the step that it recorded")
        if plain:
            self._compare(self._loss, plain, {name: _BOTH_ERRORS * error for name, error in self._allowed.items()})
        self._graph = graph

    def _run(self, prepared: Tensor, labels: Tensor, weight: float) -> Tensor:
        loss = self._loss_and_gradients(prepared, labels, weight)
        self._ranks.add_up(self._parameters.gradient)
        self._parameters.update()
        return loss

    def _loss_and_gradients(self, prepared: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Return the loss of a batch that is laid out; leave its gradients where the update reads them."""
        loss = F.nll_loss(F.log_softmax(self._network(prepared), dim=1, dtype=torch.float32), labels)
        share = weight / self._ranks.layout.groups  # whose gradients are added up
        leaves, places = zip(*self._network.leaves, strict=True)
        torch._foreach_copy_(places, torch.autograd.grad(loss if share == 1.0 else loss * share, leaves))
        return loss.detach() * weight if weight != 1.0 else loss.detach()


def checked_step(
    net: Network,
    optim: MomentumSGD,
    ranks: Ranks,
    placement: Placement,
    batch: tuple[Tensor, Tensor],
    rows: int,
    plain: PlainStep,
) -> tuple[FusedStep | None, str]:
    """Return the fused step, checked on a batch and captured for `rows` images, and how near it is, in words.

    Whatever goes wrong on a GPU that this was not tried on, a kernel that does not compile, a capture that fails,
    gradients that differ, gives None and the reason, in all processes.
    """
    images, labels = batch
    errors: list[float] = []

    def checked(dtype: torch.dtype) -> FusedStep:
        step = FusedStep(net, optim, ranks, dtype, images.shape[-1])
        errors.append(step.check(images[:_CHECKED_IMAGES], labels[:_CHECKED_IMAGES], plain, placement))
        return step

    def captured(step: FusedStep) -> FusedStep:
        step.capture(images, labels, rows, plain(images, labels, placement))
        return step

    step, why = _tried(ranks, partial(checked, torch.float32))
    if step and placement.bf16:
        step, why = _tried(ranks, partial(checked, torch.bfloat16))
    graph = ranks.layout.ranks == 1
    if step and graph:
        step, why = _tried(ranks, partial(captured, step))
    if step is None:
        return None, why
    how = "fused kernels, one CUDA graph a step" if graph else "fused kernels"
    return step, f"{how}; the first batch's gradients are the plain step's to {errors[0]:.0e} in fp32"


def _tried(ranks: Ranks, work: Callable[[], T]) -> tuple[T | None, str]:
    """Return what work gives, or None and why it failed, here or in another process."""
    found, why = None, ""
    try:
        found = work()
    except Exception as error:  # of Triton, its compiler, cuDNN, CUDA: they have no class in common
        first: BaseException = error
        while first.__context__:  # a capture that was ended by an error raises another one
            first = first.__context__
        why = f"{type(first).__name__}: {' '.join(str(first).split())[:200]}"
    return (None, why or "another process says why") if ranks.any(bool(why)) else (found, "")


def _distance(value: Tensor, truth: Tensor) -> float:
    """Return how far a tensor is from another, relative to the other's norm."""
    truth = truth.double()
    difference, norm = float((value.double() - truth).norm()), float(truth.norm())
    return difference / norm if norm else math.inf if difference else 0.0
