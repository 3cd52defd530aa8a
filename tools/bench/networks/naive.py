"""The network of 2012 as a plain script would have it: what the project's own is compared with.

float32 in PyTorch's default memory order, grouped convolutions, `torch.nn.LocalResponseNorm`, `torch.nn.Dropout`,
`torch.optim.SGD` with its defaults. The same network otherwise: same parameters, same values. Nothing of `model` is
used here.
"""

import torch
from torch import Tensor, nn

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


class NaiveSteps:
    """Take training steps on one batch that is there already."""

    def __init__(self, device: torch.device, batch_images: int, classes: int, px: int) -> None:
        torch.manual_seed(0)
        self._net = naive_network(classes).to(device)
        self._sgd = torch.optim.SGD(self._net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self._images = torch.randn(batch_images, 3, px, px, device=device) * 50.0
        self._labels = torch.randint(classes, (batch_images,), device=device)

    def step(self) -> None:
        """Go forward, backward, and update."""
        self._sgd.zero_grad()
        nn.functional.cross_entropy(self._net(self._images), self._labels).backward()
        self._sgd.step()
