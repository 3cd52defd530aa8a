"""What must be known of a data set to use a network that was trained on it, kept where the weights are.

A run folder has it in `data.json`, an exported file in its metadata: so images can be prepared, and classes named, on
machines that do not have the data.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError
from alexnet.shards.files import read_bytes, read_json, replace
from alexnet.shards.manifest import MEAN_IMAGE_NAME, Classes, Manifest, Quality, Sha256, SizePx

DATA_NAME = "data.json"
_HEADER_BYTES = 4096  # of mean_image.npy, at most; NumPy writes 128


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """Hold what a trained network's user needs of its training set.

    `manifest`: digest that names the data exactly. `size_px`: side of the stored squares; `quality`: what they were
    encoded at. `classes`: a label is a place in it. `colour`: what is subtracted, and divided by, follows from it.
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
            manifest=manifest.digest(),
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
    fields = {**msgspec.to_builtins(DataRecord.of(manifest)), "path": str(data.absolute())}
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
