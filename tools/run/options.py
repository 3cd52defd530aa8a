"""What the user typed after `alexnet-train`, before it means anything."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Hold the command line as given; None where an option was left out."""

    data: Path | None
    recipe: str
    epochs: int | None
    steps: int | None
    seed: int | None
    device: str | None
    gpus: int
    checkpoint_every: int | None
    assignments: tuple[str, ...]
    out: Path | None
    overwrite: bool
    resume: bool
