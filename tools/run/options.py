"""What the user typed after `alexnet-train`, before it means anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Hold the command line as given; None where an option was left out."""

    data: Path | None
    arch: str | None
    recipe: str
    epochs: int | None
    steps: int | None
    seed: int | None
    device: str | None
    gpus: int | None
    parallel: Literal["towers", "data", "owt"]
    decode: str | None
    lighting: str | None
    checkpoint_every: int | None
    keep: int | None
    final_views: str | None
    deterministic: bool
    dry_run: bool
    tensorboard: bool
    assignments: tuple[str, ...]
    init: Path | None
    out: Path | None
    overwrite: bool
    resume: bool

    @property
    def name(self) -> str:
        """Name the run after its recipe, and after its network where that was asked for and says something new."""
        return self.recipe if self.arch in (None, self.recipe) else f"{self.recipe}-{self.arch}"
