"""How towers see each other. Four places in the network need both towers' values; this is what they call."""

from typing import Protocol

import torch
from torch import Tensor


class Exchange(Protocol):
    """Join values along dimension 1, in tower order."""

    def hidden(self, parts: list[Tensor]) -> list[Tensor]:
        """Return, for each local tower, the values of all towers."""

    def logits(self, parts: list[Tensor]) -> Tensor:
        """Return the class scores of all towers: (n, classes)."""


class SameDevice:
    """Join towers that live in one process on one device: every tower reads the same concatenation."""

    def hidden(self, parts: list[Tensor]) -> list[Tensor]:
        """Concatenate once and share."""
        return [torch.cat(parts, dim=1)] * len(parts)

    def logits(self, parts: list[Tensor]) -> Tensor:
        """Concatenate the towers' classes."""
        return torch.cat(parts, dim=1)
