"""A training step's forward and backward pass as one CUDA graph.

At small batches the kernels of this network are shorter than the time it takes to launch them one by one; a graph is
launched as a whole. It reads its batch from where it was captured, and the dropout masks' clock is a tensor on the
device, so that each replay draws new masks. The update stays outside: its learning rate changes.

Written for a GPU, and not yet run on one; hence `train.capture` is off unless asked for.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

ForwardBackward = Callable[[Tensor, Tensor], Tensor]
"""Images and labels to the loss; fills in the gradients of the parameters."""

_WARM_UP = 3  # the first passes choose kernels and allocate, which a capture must not


class CapturedStep:
    """Replay `step` for every batch as large as the first; others, such as an epoch's last, run as they are.

    `parameters`: those that `step` fills in the gradients of. The loss that is returned is a copy.
    """

    def __init__(self, step: ForwardBackward, parameters: Iterable[nn.Parameter]) -> None:
        self._step, self._parameters = step, [p for p in parameters if p.requires_grad]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch."""
        if self._graph is None:
            self._capture(images, labels)
        if images.shape != self._images.shape:
            return self._step(images, labels)
        assert self._graph is not None
        self._images.copy_(images)
        self._labels.copy_(labels)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient  # the update drops them
        self._graph.replay()
        return self._loss.clone()

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        """Warm up on a stream of its own, as PyTorch asks for, then record; neither changes a weight."""
        self._images, self._labels = images.clone(), labels.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                self._step(self._images, self._labels)
                self._drop_gradients()
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # Of this thread alone: others, such as the decoder's, allocate memory meanwhile, which would end the capture.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._loss = self._step(self._images, self._labels).detach()
        self._gradients = [parameter.grad for parameter in self._parameters]

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
