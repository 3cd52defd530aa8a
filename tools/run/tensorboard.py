"""TensorBoard event files, for those who watch their runs there."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexnet.model.evaluate import Evaluation
from alexnet.shards.errors import InputError

_NOT_DRAWN = ("step", "seconds")


def check_tensorboard() -> None:
    """Raise InputError unless what writes event files is installed."""
    if find_spec("tensorboardX") is None:
        raise InputError("--tensorboard: tensorboardX is not installed; pip install 'alexnet[tensorboard]'")


class TensorBoard:
    """Write each record's figures as scalars under `train/` and `validation/`.

    `first_step`: of this process. What an interrupted one wrote from there on is hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        # Named by time alone, the file of a run resumed within a second would take the place of the one before.
        self._writer = SummaryWriter(str(folder), purge_step=first_step, filename_suffix=f".step-{first_step}")

    def step(self, step: int) -> None:
        """Nothing to write for a step that is not logged."""

    def record(self, record: dict[str, Any]) -> None:
        """Write a training record."""
        for name, value in record.items():
            if name not in _NOT_DRAWN:
                self._writer.add_scalar(f"train/{name}", value, record["step"])

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Write a validation."""
        for name in ("loss", "top1", "top5"):
            self._writer.add_scalar(f"validation/{name}", getattr(evaluation, name), step)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()
