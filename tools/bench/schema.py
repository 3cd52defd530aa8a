"""What the JSON of `alexnet-bench dataloader` holds, and whether a file holds it. docs/benchmarks.md explains it.

A shape is a type, a tuple of allowed types, a list of one shape (for any number of such values), a dictionary of
shapes (exactly these fields), or `Mapping(shape)` for fields of any name.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError

SCHEMA = 2
"""Grows when a field changes its meaning or goes; new fields do not change it."""

_NUMBER = (float, int)
_SPREAD = {"median": _NUMBER, "min": _NUMBER, "max": _NUMBER}


@dataclass(frozen=True)
class Mapping:
    """Allow fields of any name, each of this shape."""

    of: Any


@dataclass(frozen=True)
class Optional:
    """Allow null in place of a shape."""

    of: Any


_ROUND = {
    "images": int,
    "bytes": int,
    "seconds": _NUMBER,
    "cpu_seconds": _NUMBER,
    "foreign_load": _NUMBER,
    "images_per_s": _NUMBER,
    "images_per_s_all_cores_busy": _NUMBER,
}
_ROW = {
    "name": str,
    "title": str,
    "images_per_s": _SPREAD,
    "images_per_s_all_cores_busy": _SPREAD,
    "mb_per_s": _NUMBER,
    "cpu_s_per_1000_images": Optional(_NUMBER),
    "cores_busy": _NUMBER,
    "cores": int,
    "foreign_load": _NUMBER,
    "disturbed": bool,
    "limit": Optional(str),
    "share_of_limit": Optional({"wall": _NUMBER, "cpu": Optional(_NUMBER)}),
    "memory_mb": {"before": _NUMBER, "peak": _NUMBER},
    "settings": str,
    "versions": Mapping(str),
    "rounds": [_ROUND],
}
_CONDITIONS = {
    "when": str,
    "machine": {
        "system": str,
        "cpu": str,
        "cores": int,
        "memory_bytes": int,
        "gpu": Optional(
            {"name": str, "memory_bytes": int, "driver": str, "compute_capability": str, "gpus": int},
        ),
        "gpu_why": str,
        "versions": Mapping(str),
    },
    "governor": str,
    "load": {"before": _NUMBER, "after": _NUMBER, "foreign_before": _NUMBER},
    "data": str,
    "why": str,
    "manifest": str,
    "split": str,
    "images": int,
    "bytes_per_image": int,
    "size_px": int,
    "repeated": bool,
    "cached": Optional(_NUMBER),
    "cores": int,
    "batch_images": int,
    "threads": int,
    "device": str,
    "rounds": int,
    "seconds": _NUMBER,
}
_REPORT = {
    "schema": int,
    "command": str,
    "complete": bool,
    "conditions": _CONDITIONS,
    "limits": [_ROW],
    "rows": [_ROW],
    "parts": [_ROW],
    "peers": [_ROW],
    "missing": [{"name": str, "title": str, "why": str}],
    "stages": [{"name": str, "cpu_us": _NUMBER, "plus_minus_us": _NUMBER, "share": _NUMBER, "how": str}],
    "ratios": [
        {
            "about": str,
            "row": str,
            "over": str,
            "wall": _SPREAD,
            "cpu": _SPREAD,
            "by": str,
            "at_least": _NUMBER,
            "holds": bool,
        }
    ],
    "tune": [str],
    "verdict": str,
}


def faults(report: Any) -> list[str]:
    """Return what is wrong with a report, a line each: fields that lack, that nobody knows, of another type."""
    found = _faults(report, _REPORT, "report")
    if not found and report["schema"] != SCHEMA:
        found.append(f"report.schema: is {report['schema']}, this version reads {SCHEMA}")
    return found


def read_report(path: Path) -> dict[str, Any]:
    """Read and check a report. Raises InputError for what is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file that --json wrote") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON ({error}); give a file that --json wrote") from None
    if wrong := faults(report):
        raise InputError(f"{path}: is no report of `alexnet-bench dataloader`: {wrong[0]}")
    checked: dict[str, Any] = report
    return checked


def _faults(value: Any, shape: Any, where: str) -> list[str]:
    if isinstance(shape, Optional):
        return [] if value is None else _faults(value, shape.of, where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: must be a list"]
        return [fault for k, item in enumerate(value) for fault in _faults(item, shape[0], f"{where}[{k}]")]
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return [f"{where}: must be an object"]
        return [fault for key, item in value.items() for fault in _faults(item, shape.of, f"{where}.{key}")]
    if isinstance(shape, dict):
        return _object_faults(value, shape, where)
    return _scalar_faults(value, shape, where)


def _object_faults(value: Any, shape: dict[str, Any], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: must be an object"]
    found = [f"{where}.{key}: is missing" for key in shape if key not in value]
    found += [f"{where}.{key}: is not known" for key in value if key not in shape]
    return found + [f for key in shape if key in value for f in _faults(value[key], shape[key], f"{where}.{key}")]


def _scalar_faults(value: Any, shape: Any, where: str) -> list[str]:
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return [f"{where}: is {type(value).__name__}, must be {' or '.join(kind.__name__ for kind in kinds)}"]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{where}: is {value}"]
    return []
