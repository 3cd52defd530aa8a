"""Check a file that `--json` wrote, of any command: whether it holds what `shapes.py` says."""

import json
import math
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.tools.bench.shapes import SHAPES, Mapping, OneOf, Optional

SCHEMA = 2
"""Grows when a field changes its meaning or goes; new fields do not change it."""
_SCHEMAS = {"prep": 1}
"""Of commands whose JSON has a number of its own."""


def faults(report: Any) -> list[str]:
    """Return what is wrong with a report, a line each: fields that lack, that nobody knows, of another type."""
    command = report.get("command") if isinstance(report, dict) else None
    if command not in SHAPES:
        return [f"report.command: is {command!r}, must be one of {', '.join(SHAPES)}"]
    known = _SCHEMAS.get(str(command), SCHEMA)
    if report.get("schema") != known:
        return [f"report.schema: is {report.get('schema')}, this version reads {known}"]
    return _faults(report, SHAPES[command], "report")


def read_report(path: Path) -> dict[str, Any]:
    """Read and check a report. Raises InputError for what is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file that --json wrote") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON ({error}); give a file that --json wrote") from None
    if wrong := faults(report):
        raise InputError(f"{path}: is no report of `alexnet-bench`: {wrong[0]}")
    checked: dict[str, Any] = report
    return checked


def _faults(value: Any, shape: Any, where: str) -> list[str]:
    if isinstance(shape, Optional):
        return [] if value is None else _faults(value, shape.of, where)
    if isinstance(shape, OneOf):
        return min((_faults(value, one, where) for one in shape.of), key=len)
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
