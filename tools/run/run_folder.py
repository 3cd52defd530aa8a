"""The run folder: what a run leaves behind, and the rule for who may write there.

settings.json   every setting, the data's digest, device and precision, versions
data.json       what a user of the network must know of the data; mean_image.npy, where that is subtracted
metrics.jsonl   one line a logging step, one an evaluation
checkpoints/    the newest few, and LATEST, the name of the newest
tensorboard/    event files, where asked for
result.json     a folder that has it is a finished run
report.html     written last

Whatever a killed run leaves of these, the same call takes up. One run at a time: the caller holds the folder's lock.
"""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from alexnet.model.checkpoint import FILES, FOLDERS
from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import NotRegularError, as_typed, read_bytes, read_json, replace
from alexnet.shards.manifest import MEAN_IMAGE_NAME
from alexnet.tools.output_folder import OwnFiles
from alexnet.tools.run.settings import RunSettings, may_differ
from alexnet.tools.use.run_files import (
    DATA_NAME,
    METRICS_NAME,
    MOST_METRICS,
    RESULT_NAME,
    SETTINGS_NAME,
    read_settings,
)

_BEGINNING = f".{SETTINGS_NAME}.partial"  # all that a run has left that was killed before it had settings
_CHECKPOINTS, _TENSORBOARD = "checkpoints", "tensorboard"
_OWN = (SETTINGS_NAME, METRICS_NAME, RESULT_NAME, DATA_NAME, MEAN_IMAGE_NAME, "report.html")
_OWN_FILES = OwnFiles(
    files=(
        *_OWN,
        *(f".{name}.partial" for name in _OWN),
        *(f"{_CHECKPOINTS}/{pattern}" for pattern in FILES),
        f"{_TENSORBOARD}/events.out.tfevents.*",
    ),
    folders=(_CHECKPOINTS, *(f"{_CHECKPOINTS}/{pattern}" for pattern in FOLDERS), _TENSORBOARD),
)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


_DEFAULTS = _flat(RunSettings().as_json())
"""What a run of an earlier version had that did not know a setting yet."""
_MAY_DIFFER = may_differ()
"""Versions may differ, too: other ones may give other bits, and the user is free to."""


class RunFolder:
    """Own one folder. Raises InputError if it holds a finished run, other settings, or something else altogether."""

    def __init__(self, path: Path, identity: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
        self.path, self.identity = path, identity
        self.checkpoints = path / _CHECKPOINTS
        self.metrics = path / METRICS_NAME
        self.continues = True
        if overwrite and resume:
            raise InputError("--overwrite and --resume: one deletes the run that the other continues; give one of them")
        try:
            if overwrite:
                self._clear()
            self.continues = self._holds_this_run(resume=resume)
            path.mkdir(parents=True, exist_ok=True)
            _write_json(path / SETTINGS_NAME, identity)  # first: from here on the folder is a run's
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            self.give_up()
            raise InputError(f"--out {path}: {error.strerror}; give a folder that can be written") from None

    def give_up(self) -> None:
        """Leave nothing of a run that could not begin."""
        if not self.continues:
            with contextlib.suppress(OSError):
                self._delete()

    def cut_metrics(self, step: int, epoch: int) -> None:
        """Drop the lines of steps after a checkpoint, and of validations from its epoch on: they will be done again."""
        if not self.metrics.exists():
            return
        try:
            text = read_bytes(self.metrics, MOST_METRICS).decode(errors="replace")
        except (NotRegularError, ValueError) as error:
            raise InputError(f"{self.metrics}: {reason_of(error)}; move it away") from None
        kept = "".join(line + "\n" for line in text.splitlines() if _is_done(line, step, epoch))
        if kept != text:
            replace(self.metrics, kept.encode())

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished. What is no number, as a loss that overflowed, is left out, for JSON has no such."""
        tables = {key: _finite(value) if isinstance(value, dict) else value for key, value in result.items()}
        _write_json(self.path / RESULT_NAME, tables)

    def _holds_this_run(self, *, resume: bool) -> bool:
        """Say whether the folder holds a part of this run. Raises InputError if it holds anything else."""
        found = self._settings()
        if found is not None:
            self._refuse_unless_equal(found)
        elif resume:
            raise InputError(f"--resume: {self.path} holds no run; leave --resume out to start one")
        elif self._in_use():
            raise InputError(f"{self.path}: exists and is no run folder; give another --out")
        return found is not None

    def _settings(self) -> dict[str, Any] | None:
        """Read the settings of the run that is there, None if none is. Raises InputError if they cannot be read."""
        mend = "give another --out, or delete what is there yourself"
        try:
            read_settings(self.path, mend)
            return read_json(self.path / SETTINGS_NAME, dict[str, Any], mend=mend)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _in_use(self) -> bool:
        return self.path.exists() and (not self.path.is_dir() or any(p.name != _BEGINNING for p in self.path.iterdir()))

    def _clear(self) -> None:
        """Delete a run, and nothing else. Raises InputError if there is anything else."""
        if self._settings() is None and self._in_use():
            raise InputError(f"--overwrite: {self.path} is no run folder, so nothing was deleted; give another --out")
        _OWN_FILES.refuse_foreign(self.path)
        self._delete()

    def _delete(self) -> None:
        """Delete what a run wrote; killed on the way, the next call finds the settings of a run, which go last."""
        _OWN_FILES.delete(self.path, last=(self.path / RESULT_NAME, self.path / SETTINGS_NAME))

    def _refuse_unless_equal(self, settings: dict[str, Any]) -> None:
        mend = "give another --out, or --overwrite to start anew there"
        if (self.path / RESULT_NAME).exists():
            raise InputError(f"{self.path}: holds a finished run; {mend}")
        found, wanted = ({**_DEFAULTS, **_flat(tree)} for tree in (settings, self.identity))
        if found["stream.decode"] == "auto":  # of an earlier version; the run's state names the decoder that it chose
            found["stream.decode"] = "default"
        different = [
            f"{key} {found.get(key)!r} there, {wanted.get(key)!r} asked for"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key) and key not in _MAY_DIFFER and not key.startswith("versions.")
        ]
        if different:
            raise InputError(f"{self.path}: holds a run with other settings ({'; '.join(different)}); {mend}")


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if not isinstance(value, float) or math.isfinite(value)}


def _is_done(line: str, step: int, epoch: int) -> bool:
    """Say whether a checkpoint taken after a step, in an epoch, includes what a line tells of."""
    try:
        record = as_typed(line, dict[str, Any])
        return bool(record["step"] <= step and (record["epoch"] < epoch or "val_loss" not in record))
    except (ValueError, KeyError, TypeError):
        return False  # a line torn by a crash


def _write_json(path: Path, value: dict[str, Any]) -> None:
    replace(path, json.dumps(value, indent=1).encode() + b"\n")
