"""The run folder: what a run leaves behind, and the rule for who may write there.

settings.json   every setting, the data's digest, device and precision, versions
metrics.jsonl   one line a logging step, one an evaluation
checkpoints/    the newest few, and LATEST, the name of the newest
result.json     written last: a folder that has it is a finished run
"""

import json
import shutil
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError

# Other versions may give other bits, and the user is free to; the others change no bit.
_MAY_DIFFER = (
    "versions.",
    "train.keep_checkpoints",
    "stream.threads",
    "stream.depth",
    "stream.read_ahead_batches",
)
_SETTINGS = "settings.json"
_RESULT = "result.json"


class RunFolder:
    """Own one folder. Raises InputError if it holds a finished run, other settings, or something else altogether."""

    def __init__(self, path: Path, identity: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
        self.path, self.identity = path, identity
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        if overwrite and resume:
            raise InputError("--overwrite and --resume: one deletes the run that the other continues; give one of them")
        try:
            if overwrite:
                self._clear()
            self.continues = self._take(resume=resume)
        except OSError as error:
            raise InputError(f"--out {path}: {error.strerror}; give a folder that can be written") from None

    def cut_metrics(self, step: int, epoch: int) -> None:
        """Drop the lines of steps after a checkpoint, and of validations from its epoch on: they will be done again."""
        if not self.metrics.exists():
            return
        text = self.metrics.read_text(errors="replace")
        kept = "".join(line + "\n" for line in text.splitlines() if _is_done(line, step, epoch))
        if kept != text:
            _replace(self.metrics, kept)

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished."""
        _write_json(self.path / _RESULT, result)

    def _take(self, *, resume: bool) -> bool:
        """Make the folder this run's, or refuse to; say whether it holds a part of this run."""
        if continues := (self.path / _SETTINGS).exists():
            self._refuse_unless_equal(self.identity)
        elif resume:
            raise InputError(f"--resume: {self.path} holds no run; leave --resume out to start one")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InputError(f"{self.path}: exists and is no run folder; give another --out")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        _write_json(self.path / _SETTINGS, self.identity)
        return continues

    def _clear(self) -> None:
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / _SETTINGS).exists():
            raise InputError(f"--overwrite: {self.path} is no run folder, so nothing was deleted; give another --out")
        shutil.rmtree(self.path, ignore_errors=True)

    def _refuse_unless_equal(self, identity: dict[str, Any]) -> None:
        mend = "give another --out, or --overwrite to start anew there"
        if (self.path / _RESULT).exists():
            raise InputError(f"{self.path}: holds a finished run; {mend}")
        try:
            found = _flat(json.loads((self.path / _SETTINGS).read_text()))
        except ValueError:
            raise InputError(f"{self.path / _SETTINGS}: cannot be read; {mend}") from None
        wanted = _flat(identity)
        different = [
            f"{key} {found.get(key)!r} there, {wanted.get(key)!r} asked for"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key) and not key.startswith(_MAY_DIFFER)
        ]
        if different:
            raise InputError(f"{self.path}: holds a run with other settings ({'; '.join(different)}); {mend}")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _is_done(line: str, step: int, epoch: int) -> bool:
    """Say whether a checkpoint taken after a step, in an epoch, includes what a line tells of."""
    try:
        record = json.loads(line)
        return bool(record["step"] <= step and (record["epoch"] < epoch or "val_loss" not in record))
    except (ValueError, KeyError, TypeError):
        return False  # a line torn by a crash


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _replace(path, json.dumps(value, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file; what was there stays until the new one is whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
