"""Read a run folder: what was logged, at which step and when, and what the run was."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError

Series = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Hold the errors over the validation images after a step; shares of 1."""

    step: int
    epoch: int
    loss: float
    top1_error: float
    top5_error: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Records:
    """Hold what a run logged about itself.

    `steps`, `loss`, `images_per_s`, `data_wait` (shares of 1), `hours` (of training, without validation and
    checkpoints): one value a logging step. `settings`: the whole of settings.json. `result`: None while the run is not
    finished. `last_step`: of all that was written down, logged or not.
    """

    name: str
    settings: dict[str, Any]
    steps: Series
    loss: Series
    images_per_s: Series
    data_wait: Series
    hours: Series
    validations: tuple[Validation, ...]
    last_step: int
    result: dict[str, Any] | None

    @property
    def steps_an_epoch(self) -> float | None:
        """Return the steps of an epoch, as the validations after each say, or the whole run; None if nothing does."""
        train = self.settings.get("train", {})
        limit = train.get("steps", 0)  # where a run may end, and be validated, in the middle of an epoch
        whole = [v for v in self.validations if v.step not in (0, limit)]
        if whole:
            return whole[0].step / (whole[0].epoch + 1)
        return self.last_step / train["epochs"] if self.result and "epochs" in train and not limit else None

    @property
    def judged(self) -> tuple[Validation, ...]:
        """Return the validations that had images."""
        return tuple(v for v in self.validations if v.images)

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
        settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        text = (run / "metrics.jsonl").read_text(encoding="utf-8") if (run / "metrics.jsonl").exists() else ""
        result = json.loads((run / "result.json").read_text()) if (run / "result.json").exists() else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run}: is no run folder that can be read ({error}); give one that alexnet-train wrote"
        ) from None
    lines = [line for line in map(_parsed, text.splitlines()) if line is not None]
    logged = [line for line in lines if "loss" in line]
    validations = [line for line in lines if "val_top1" in line]
    columns = {name: _column(logged, name) for name in ("step", "loss", "images_per_s", "data_wait", "seconds")}
    return Records(
        name=run.absolute().name,
        settings=settings,
        steps=columns["step"],
        loss=columns["loss"],
        images_per_s=columns["images_per_s"],
        data_wait=columns["data_wait"],
        hours=np.cumsum(columns["seconds"]) / 3600,
        validations=tuple(_validation(line) for line in validations),
        last_step=max([(result or {}).get("steps", 0), *(line["step"] for line in lines)]),
        result=result,
    )


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None


def _column(records: list[dict[str, Any]], name: str) -> Series:
    return np.array([float(record.get(name, 0.0)) for record in records], np.float64)


def _validation(line: dict[str, Any]) -> Validation:
    return Validation(
        step=int(line["step"]),
        epoch=int(line["epoch"]),
        loss=float(line["val_loss"]),
        top1_error=1.0 - float(line["val_top1"]),
        top5_error=1.0 - float(line["val_top5"]),
        images=int(line["val_images"]),
    )
