"""The files of a run folder, as those who use a run read them: its settings, its data set, what it logged.

`run/run_folder.py` says which files there are, and who may write there. What is read may be damaged, or of another
version: members that this version does not know are left out, and what is wrong is refused in a line.
"""

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from alexnet.model.networks.settings import NetSettings
from alexnet.pipeline.augment import AugmentSettings
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError
from alexnet.shards.files import as_typed, of_type, open_regular, read_bytes, read_json, replace
from alexnet.shards.manifest import MEAN_IMAGE_NAME, Classes, Manifest, Quality, Sha256, SizePx
from alexnet.shards.url import place_of

Series = npt.NDArray[np.float64]

SETTINGS_NAME, DATA_NAME, METRICS_NAME, RESULT_NAME = "settings.json", "data.json", "metrics.jsonl", "result.json"
MOST_METRICS = 1 << 27
"""134 MB: of the 90 epochs of 2012, every step logged, they have 113."""
_MEND = "give a folder that alexnet-train wrote"
_HEADER_BYTES = 4096  # of mean_image.npy, at most; NumPy writes 128
_MOST_PX = 65_535  # of a JPEG's side

Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
_Amount = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Scalar = str | int | float | bool | None
_Values = dict[str, _Scalar | list[_Scalar]]
_Facts = dict[str, _Scalar | list[_Scalar] | _Values]
"""What settings.json and result.json hold: plain values, and tables of them."""


@dataclass(frozen=True, kw_only=True)
class SavedTraining:
    """Hold what a trained network's user needs of how it was trained."""

    precision: str = "auto"
    epochs: Count = 0
    steps: Count = 0


@dataclass(frozen=True, kw_only=True)
class SavedStream:
    """Hold where a run kept what it had fetched."""

    cache: str = ""


@dataclass(frozen=True, kw_only=True)
class SavedSettings:
    """Hold what a trained network's user needs of settings.json."""

    net: NetSettings
    augment: AugmentSettings
    train: SavedTraining
    stream: SavedStream = SavedStream()


def read_settings(run: Path, mend: str = _MEND) -> SavedSettings:
    """Read a run's settings. Raises InputError if they are not a run's, but FileNotFoundError if there are none."""
    settings = read_json(run / SETTINGS_NAME, SavedSettings, mend=mend)
    if not 1 <= settings.augment.crop_px <= _MOST_PX:
        raise InputError(f"{run / SETTINGS_NAME}: augment.crop_px={settings.augment.crop_px}: must be 1 to {_MOST_PX}")
    return settings


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """Hold what a trained network's user needs of its training set, on machines that do not have it.

    A run folder has it in `data.json`, an exported file in its metadata. `manifest`: digest that names the images
    exactly, stored as JPEGs or as planes. `size_px`: side of the stored squares; `quality`: what they were encoded at.
    `classes`: a label is a place in it. `colour`: what is subtracted, and divided by, follows from it.
    """

    manifest: Sha256
    size_px: SizePx
    quality: Quality
    classes: Classes
    colour: ColourStatistics

    @classmethod
    def of(cls, manifest: Manifest) -> "DataRecord":
        """Take from a manifest what is needed."""
        return cls(
            manifest=manifest.images_digest(),
            size_px=manifest.size_px,
            quality=manifest.stored.quality,
            classes=manifest.classes,
            colour=manifest.colour,
        )

    def name(self, label: int) -> str:
        """Name a class for people."""
        return self.classes[label].words or self.classes[label].wnid


def keep_data_record(run: Path, data: Path, manifest: Manifest, *, mean_image: bool) -> None:
    """Write a run's record into its folder, and where the data are; with `mean_image` a copy of that, too."""
    fields = {**msgspec.to_builtins(DataRecord.of(manifest)), "path": place_of(data.absolute())}
    try:
        if mean_image:
            most = 12 * manifest.size_px**2 + _HEADER_BYTES
            replace(run / MEAN_IMAGE_NAME, read_bytes(data / MEAN_IMAGE_NAME, most))
        text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
        replace(run / DATA_NAME, text.encode("utf-8", "backslashreplace"))  # of a path that is no UTF-8: JSON's escape
    except (OSError, ValueError) as error:
        named, reason = (error.filename, error.strerror) if isinstance(error, OSError) else (MEAN_IMAGE_NAME, error)
        raise InputError(f"{named}: {reason}; the run folder needs it for what comes after") from None


@dataclass(frozen=True)
class _Where:
    path: str


def read_data_record(run: Path) -> tuple[DataRecord, Path]:
    """Read a run's record, and where its data were. Raises InputError if it cannot be read."""
    file, mend = run / DATA_NAME, "continuing the run writes it again"
    try:
        record = read_json(file, DataRecord, mend=mend, odd_names=True)
        return record, Path(read_json(file, _Where, mend=mend, odd_names=True).path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{file}: {error.strerror}; {mend}") from None


class Fetched(NamedTuple):
    """Count what a run fetched from object storage; of a cache, shards that it had and had not."""

    fetched_bytes: int
    retries: int
    cache_hits: int
    cache_misses: int

    def __str__(self) -> str:
        """Say it in words."""
        said = f"fetched {self.fetched_bytes / 1e6:,.0f} MB, {self.retries:,} retries"
        asked = self.cache_hits + self.cache_misses
        return f"{said}, {self.cache_hits:,} of {asked:,} shards from the cache" if asked else said


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
    fetched_bytes: Count | None = None
    retries: Count = 0
    cache_hits: Count = 0
    cache_misses: Count = 0

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


class Records:
    """Hold what a run logged about itself.

    `settings`: the whole of settings.json, `kept`: what the page speaks of. `result`: None while the run is not
    finished. `steps`, `loss`, `images_per_s`, `data_wait` (shares of 1), `hours` (of training, without validation and
    checkpoints): one value a logging step. `fetched`: from object storage, None of data in a folder. `last_step`: of
    all that was written down, logged or not.
    """

    def __init__(self, run: Path) -> None:
        """Read a run folder. Raises InputError if it is none; a line that a crash tore is left out."""
        self.name = run.absolute().name
        try:
            self.kept = read_settings(run)
            self.settings: dict[str, Any] = read_json(run / SETTINGS_NAME, _Facts, mend=_MEND)
        except OSError as error:
            raise InputError(f"{run}: is no run folder that can be read ({error.strerror}); {_MEND}") from None
        self.result: dict[str, Any] | None = None
        ended = _Result()
        if (run / RESULT_NAME).exists():
            self.result = read_json(run / RESULT_NAME, _Facts, mend=_MEND)
            ended = read_json(run / RESULT_NAME, _Result, mend=_MEND)
        self.final, self.last_step = ended.final_validation, ended.steps
        logged, self.validations, fetched = array("d"), list[Line](), np.zeros(len(Fetched._fields), np.int64)
        self.fetched: Fetched | None = None
        for line in _lines(run / METRICS_NAME):
            self.last_step = max(self.last_step, line.step)
            if line.loss is not None:
                logged.extend((line.step, line.loss, line.images_per_s, line.data_wait, line.seconds))
            if line.fetched_bytes is not None:
                fetched += [getattr(line, name) for name in Fetched._fields]
                self.fetched = Fetched(*fetched.tolist())
            if line.val_top1 is not None:
                self.validations.append(line)
        columns: npt.NDArray[np.float64] = np.frombuffer(logged).reshape(-1, 5).T
        self.steps, self.loss, self.images_per_s, self.data_wait, self._seconds = columns
        self.hours: Series = np.cumsum(self._seconds) / 3600

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
        return self._over_time(self.images_per_s)

    @property
    def waited(self) -> float:
        """Return the share of that time in which training waited for data."""
        return self._over_time(self.data_wait)

    def _over_time(self, values: Series) -> float:
        total = self._seconds.sum()
        return float((values * self._seconds).sum() / total) if total else 0.0


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
