"""Read a run folder: what was logged, at which step and when, and what the run was."""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from alexnet.shards.errors import InputError
from alexnet.shards.files import as_typed, of_type, open_regular, read_json
from alexnet.tools.use.trained import SETTINGS_NAME, Count, SavedSettings, read_settings

Series = npt.NDArray[np.float64]

METRICS_NAME, RESULT_NAME = "metrics.jsonl", "result.json"
MOST_METRICS = 1 << 27
"""134 MB: of the 90 epochs of 2012, every step logged, they have 113."""
_MEND = "give a folder that alexnet-train wrote"

_Amount = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Scalar = str | int | float | bool | None
_Values = dict[str, _Scalar | list[_Scalar]]
_Facts = dict[str, _Scalar | list[_Scalar] | _Values]
"""What settings.json and result.json hold: plain values, and tables of them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of metrics.jsonl: of a step if it has a `loss`, of a validation if it has `val_top1`; shares of 1."""

    step: Count
    loss: _Amount | None = None
    images_per_s: _Amount = 0.0
    data_wait: _Amount = 0.0
    seconds: _Amount = 0.0
    epoch: Count = 0
    val_loss: _Amount | None = None
    val_top1: _Share | None = None
    val_top5: _Share = 0.0
    val_images: Count = 0

    @property
    def errors(self) -> tuple[float, float]:
        """Return top-1 and top-5 error over the validation images."""
        return 1.0 - (self.val_top1 or 0.0), 1.0 - self.val_top5


@dataclass(frozen=True, kw_only=True)
class Final:
    """Hold the shares that were right at the end of a run, over more views."""

    top1: _Share
    top5: _Share


@dataclass(frozen=True, kw_only=True)
class _Result:
    steps: Count = 0
    final_validation: Final | None = None


@dataclass(frozen=True, kw_only=True)
class Records:
    """Hold what a run logged about itself.

    `steps`, `loss`, `images_per_s`, `data_wait` (shares of 1), `hours` (of training, without validation and
    checkpoints): one value a logging step. `settings`: the whole of settings.json, `kept`: what the page speaks of.
    `result`: None while the run is not finished. `last_step`: of all that was written down, logged or not.
    """

    name: str
    settings: dict[str, Any]
    kept: SavedSettings
    steps: Series
    loss: Series
    images_per_s: Series
    data_wait: Series
    hours: Series
    validations: tuple[Line, ...]
    last_step: int
    result: dict[str, Any] | None
    final: Final | None

    @property
    def steps_an_epoch(self) -> float | None:
        """Return the steps of an epoch, as the validations after each say, or the whole run; None if nothing does."""
        train = self.kept.train
        whole = [v for v in self.validations if v.step not in (0, train.steps)]  # which may be within an epoch
        if whole:
            return whole[0].step / (whole[0].epoch + 1)
        return self.last_step / train.epochs if self.result and train.epochs and not train.steps else None

    @property
    def judged(self) -> tuple[Line, ...]:
        """Return the validations that had images."""
        return tuple(v for v in self.validations if v.val_images)

    @property
    def rate(self) -> float:
        """Return images/s over all the time that was spent in training; 0 if nothing was logged."""
        seconds = np.diff(self.hours, prepend=0.0)
        return float((self.images_per_s * seconds).sum() / seconds.sum()) if seconds.sum() else 0.0

    @property
    def waited(self) -> float:
        """Return the share of that time in which training waited for data."""
        seconds = np.diff(self.hours, prepend=0.0)
        return float((self.data_wait * seconds).sum() / seconds.sum()) if seconds.sum() else 0.0


def read_records(run: Path) -> Records:
    """Read a run folder. Raises InputError if it is none; a line that a crash tore is left out."""
    try:
        kept, settings = read_settings(run), read_json(run / SETTINGS_NAME, _Facts, mend=_MEND)
    except OSError as error:
        raise InputError(f"{run}: is no run folder that can be read ({error.strerror}); {_MEND}") from None
    try:
        result = read_json(run / RESULT_NAME, _Facts, mend=_MEND)
        ended = read_json(run / RESULT_NAME, _Result, mend=_MEND)
    except FileNotFoundError:
        result, ended = None, _Result()
    logged, validations, last_step = array("d"), list[Line](), ended.steps
    for line in _lines(run / METRICS_NAME):
        last_step = max(last_step, line.step)
        if line.loss is not None:
            logged.extend((line.step, line.loss, line.images_per_s, line.data_wait, line.seconds))
        if line.val_top1 is not None:
            validations.append(line)
    steps, loss, images_per_s, data_wait, seconds = np.frombuffer(logged).reshape(-1, 5).T
    return Records(
        name=run.absolute().name,
        settings=settings,
        kept=kept,
        steps=steps,
        loss=loss,
        images_per_s=images_per_s,
        data_wait=data_wait,
        hours=np.cumsum(seconds) / 3600,
        validations=tuple(validations),
        last_step=last_step,
        result=result,
        final=ended.final_validation,
    )


def _lines(file: Path) -> Iterator[Line]:
    try:
        with os.fdopen(open_regular(file), "rb") as opened:
            if (size := os.fstat(opened.fileno()).st_size) > MOST_METRICS:
                raise InputError(f"{file}: has {size:,} bytes, where at most {MOST_METRICS:,} can be right")
            for number, text in enumerate(opened, 1):
                try:
                    record = as_typed(text, dict[str, Any])
                except ValueError:
                    continue  # torn
                try:
                    yield of_type(record, Line)
                except ValueError as error:
                    raise InputError(f"{file}: line {number}: {error}; delete the line") from None
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
