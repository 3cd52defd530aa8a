"""The network of 2012 as a plain script would have it: what the project's own is compared with.

float32 in PyTorch's default memory order, grouped convolutions, `torch.nn.LocalResponseNorm`, `torch.nn.Dropout`,
`torch.optim.SGD` with its defaults. The same network otherwise: same parameters, same values.
"""

from typing import Any

import torch
from torch import Tensor, nn

from alexnet.tools.bench.networks import DEVIATIONS, Task, in_chunks
from alexnet.tools.bench.rooflines import synchronise
from alexnet.tools.bench.stage import Stage
from alexnet.tools.host_memory import keep_freed_memory

ARCH = "alexnet-2012"
"""The network that there is a naive version of."""

_TOWERS = 2
_ALPHA = 5e-4  # the paper's 1e-4 times 5 neighbours, by which PyTorch divides


class TowerNorm(nn.Module):
    """Normalise within each tower: its maps follow each other, so a view makes them images of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LocalResponseNorm(5, alpha=_ALPHA, beta=0.75, k=2.0)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) in and out."""
        n, channels, height, width = x.shape
        normed: Tensor = self.norm(x.reshape(_TOWERS * n, channels // _TOWERS, height, width))
        return normed.reshape(x.shape)


def naive_network(classes: int, dropout: float = 0.5) -> nn.Sequential:
    """Return the network: (n, 3, 224, 224) images to (n, classes) scores."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), TowerNorm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=_TOWERS), nn.ReLU(), TowerNorm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=_TOWERS), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=_TOWERS), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(4096, classes),
    )  # fmt: skip


def naive(**options: Any) -> Stage:
    """Train the naive version on one batch that is there already."""
    task = Task(**options)
    torch.set_num_threads(task.threads)
    if task.device == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    net = naive_network(task.classes).to(task.device)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(task.batch_images, 3, task.px, task.px, device=task.device) * DEVIATIONS["pixel"]
    labels = torch.randint(task.classes, (task.batch_images,), device=task.device)

    def steps(times: int) -> None:
        for _ in range(times):
            sgd.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            sgd.step()
        synchronise(task.device)

    words = "fp32, NCHW, grouped convolutions, torch.nn.LocalResponseNorm, torch.optim.SGD; freed memory is kept, too"
    return Stage(work=in_chunks(steps, task.batch_images), settings=words, least_batches=1)
