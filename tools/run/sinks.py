"""Where a run's records go: a file for machines, a progress bar or plain lines for people, TensorBoard."""

import json
import math
from collections import Counter, deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet.model.evaluate import Evaluation
from alexnet.model.metrics import Sink
from alexnet.model.trainer import Trainer
from alexnet.shards.errors import InputError
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.settings import RunSettings
from alexnet.tools.use.run_files import Fetched

_PLAIN_EVERY_STEPS = 20
_NOT_SCALARS = ("step", "seconds")

_NEAR = 0.03
"""Relative: labels of a batch of 20 differ from their mean frequencies by enough to move the loss by 2%."""
_LEAST_STEPS, _MOST_STEPS = 100, 5000
"""On ImageNet a thousand steps and more may pass at guessing before the loss falls; a whole small run may have 150."""
_CAUSES = (
    "a learning rate too low, or so high that the rectifiers died; initial values made for another size of data set "
    "(recipe small) or another scale of pixels (augment.scale); labels that do not belong to their images"
)


def open_sinks(folder: RunFolder | None, settings: RunSettings, trainer: Trainer, *, tensorboard: bool) -> list[Sink]:
    """Open the sinks of a run. `folder`: None in processes that neither write nor speak."""
    if folder is None:
        return []
    terminal = Terminal(trainer.total_steps, trainer.step)
    stuck = StuckLoss(
        classes=settings.net.classes,
        warmup_steps=settings.schedule.warmup_steps,
        total_steps=trainer.total_steps,
        say=terminal.say,
    )
    sinks = [JsonLines(folder.metrics), terminal, stuck]
    return [*sinks, TensorBoard(folder.path / "tensorboard", trainer.step + 1)] if tensorboard else sinks


class JsonLines(Sink):
    """Append each record to a file as one line of JSON."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def steps_taken(self, step: int, epoch: int, how: str) -> None:
        """Write down how steps are taken."""
        self.record({"step": step, "epoch": epoch, "steps_taken": how})

    def record(self, record: dict[str, Any]) -> None:
        """Write a training record."""
        self._file.write(json.dumps(record) + "\n")

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Write a validation."""
        loss = evaluation.loss if math.isfinite(evaluation.loss) else None  # JSON has no other number
        fields = {"val_loss": loss, "val_top1": evaluation.top1, "val_top5": evaluation.top5}
        self.record({"step": step, "epoch": epoch, **fields, "val_images": evaluation.images})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Terminal(Sink):
    """Show a progress bar with a record's figures and the time left, where there is a terminal; else plain lines."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        self._console, self._fetched = Console(), Counter[str]()
        self._progress: Progress | None = None
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._task = self._progress.add_task("starting", total=total_steps, completed=first_step)
            self._progress.start()

    def steps_taken(self, step: int, epoch: int, how: str) -> None:
        """Say how steps are taken."""
        self.say(f"training step: {how}")

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._progress:
            self._progress.update(self._task, completed=step)

    def record(self, record: dict[str, Any]) -> None:
        """Show the newest figures; of what was fetched, those of all records."""
        self._fetched.update({name: record[name] for name in Fetched._fields if name in record})
        line = (
            f"loss {record['loss']:.3f}  gradient {record['grad_norm']:.3g}  lr {record['lr']:.3g}  "
            f"{record['images_per_s']:,.1f} images/s (median {record['images_per_s_median']:,.1f})  "
            f"data wait {record['data_wait']:.0%}  {record['memory_mb']:,.0f} MB"
        )
        if self._fetched:
            line += f"  {Fetched(**self._fetched)}"
        if self._progress:
            self._progress.update(self._task, description=line)
        elif record["step"] == 1 or record["step"] % _PLAIN_EVERY_STEPS == 0:
            click.echo(f"step {record['step']}  epoch {record['epoch'] + 1}  {line}")

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Print an epoch's validation."""
        self.say(f"epoch {epoch + 1}: validation loss {evaluation.loss:.3f}, {evaluation}")

    def close(self) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line of its own, above the bar."""
        if self._progress:
            self._console.print(line, highlight=False, soft_wrap=True)
        else:
            click.echo(line)


class StuckLoss(Sink):
    """Say once, and only once, that the loss stays near ln(classes), with the usual causes.

    Looks at the records of the newest fifth of the run, of 100 to 5,000 steps, after the warm-up: the means of both
    halves must be within 3% of ln(classes), so that a loss that falls through it is not meant.
    """

    def __init__(self, *, classes: int, warmup_steps: int, total_steps: int, say: Callable[[str], None]) -> None:
        self._guessing, self._after, self._say = math.log(classes), warmup_steps, say
        self._window = min(_MOST_STEPS, max(_LEAST_STEPS, total_steps // 5))
        self._losses: deque[tuple[int, float]] = deque()
        self._said = classes < 2  # of one class there is nothing to guess

    def record(self, record: dict[str, Any]) -> None:
        """Look at the losses up to this one."""
        step = record["step"]
        if self._said or step <= self._after:
            return
        self._losses.append((step, record["loss"]))
        if step - self._losses[0][0] + 1 < self._window:
            return
        if self._is_near():
            self._said = True
            self._say(
                f"note: the loss has stayed near ln({math.exp(self._guessing):,.0f}) = {self._guessing:.2f}, where "
                f"guessing is, for {self._window:,} steps; usual causes: {_CAUSES}"
            )
        while step - self._losses[0][0] + 1 >= self._window:
            self._losses.popleft()

    def _is_near(self) -> bool:
        losses = [loss for _, loss in self._losses]
        half = len(losses) // 2
        means = (sum(losses[:half]) / half, sum(losses[half:]) / (len(losses) - half))
        return all(abs(mean - self._guessing) <= _NEAR * self._guessing for mean in means)


def check_tensorboard() -> None:
    """Raise InputError unless what writes event files is installed."""
    if find_spec("tensorboardX") is None:
        raise InputError("--tensorboard: tensorboardX is not installed; pip install 'alexnet[tensorboard]'")


class TensorBoard(Sink):
    """Write each record's figures as scalars under `train/` and `validation/`.

    `first_step`: of this process. What an interrupted one wrote from there on is hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        # Named by time alone, the file of a run resumed within a second would take the place of the one before.
        self._writer = SummaryWriter(str(folder), purge_step=first_step, filename_suffix=f".step-{first_step}")

    def record(self, record: dict[str, Any]) -> None:
        """Write a training record."""
        for name, value in record.items():
            if name not in _NOT_SCALARS:
                self._writer.add_scalar(f"train/{name}", value, record["step"])

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Write a validation."""
        for name in ("loss", "top1", "top5"):
            self._writer.add_scalar(f"validation/{name}", getattr(evaluation, name), step)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()
