"""Where a run's records go: a file for machines, a progress bar or plain lines for people."""

import json
import math
from pathlib import Path
from typing import Any, Protocol, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet.model.evaluate import Evaluation
from alexnet.model.metrics import Sink
from alexnet.model.trainer import Trainer
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.settings import RunSettings
from alexnet.tools.run.stuck import StuckLoss
from alexnet.tools.run.tensorboard import TensorBoard

_PLAIN_EVERY_STEPS = 20


class OpenSink(Sink, Protocol):
    """A sink of this run."""

    def close(self) -> None:
        """Write what is left; may be called again."""


def open_sinks(
    folder: RunFolder | None, settings: RunSettings, trainer: Trainer, *, tensorboard: bool
) -> list[OpenSink]:
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
    sinks: list[OpenSink] = [JsonLines(folder.metrics), terminal, stuck]
    return [*sinks, TensorBoard(folder.path / "tensorboard", trainer.step + 1)] if tensorboard else sinks


def close_all(sinks: list[OpenSink]) -> None:
    """Close them."""
    for sink in sinks:
        sink.close()


class JsonLines:
    """Append each record to a file as one line of JSON."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)

    def step(self, step: int) -> None:
        """Nothing to write for a step that is not logged."""

    def record(self, record: dict[str, Any]) -> None:
        """Write a training record."""
        self._file.write(json.dumps(record) + "\n")

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Write a validation."""
        loss = evaluation.loss if math.isfinite(evaluation.loss) else None  # JSON has no other number
        fields = {"val_loss": loss, "val_top1": evaluation.top1, "val_top5": evaluation.top5}
        self._file.write(json.dumps({"step": step, "epoch": epoch, **fields, "val_images": evaluation.images}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Terminal:
    """Show a progress bar with a record's figures and the time left, where there is a terminal; else plain lines."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        self._console = Console()
        self._progress: Progress | None = None
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._task = self._progress.add_task("starting", total=total_steps, completed=first_step)
            self._progress.start()

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._progress:
            self._progress.update(self._task, completed=step)

    def record(self, record: dict[str, Any]) -> None:
        """Show the newest figures."""
        line = (
            f"loss {record['loss']:.3f}  gradient {record['grad_norm']:.3g}  lr {record['lr']:.3g}  "
            f"{record['images_per_s']:,.1f} images/s (median {record['images_per_s_median']:,.1f})  "
            f"data wait {record['data_wait']:.0%}  {record['memory_mb']:,.0f} MB"
        )
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
