"""What the JSON of each command of `alexnet-bench` holds. docs/benchmarks.md explains it; `schema.py` checks it.

A shape is a type, a tuple of allowed types, a list of one shape (for any number of such values), a dictionary of
shapes (exactly these fields), `Mapping(shape)` for fields of any name, or `OneOf(shapes)`.
"""

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class OneOf:
    """Allow any of these shapes."""

    of: tuple[Any, ...]


_ROUND = {
    "images": int,
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
    "cpu_s_per_1000_images": Optional(_NUMBER),
    "cores_busy": _NUMBER,
    "cores": int,
    "foreign_load": _NUMBER,
    "disturbed": bool,
    "memory_mb": {"before": _NUMBER, "peak": _NUMBER},
    "settings": str,
    "versions": Mapping(str),
    "rounds": [_ROUND],
}
_MACHINE_CONDITIONS = {
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
    "cores": int,
    "device": str,
    "threads": int,
    "rounds": int,
    "seconds": _NUMBER,
}
_DATA_CONDITIONS = {
    **_MACHINE_CONDITIONS,
    "data": str,
    "why": str,
    "manifest": str,
    "split": str,
    "images": int,
    "bytes_per_image": int,
    "size_px": int,
    "repeated": bool,
    "cached": Optional(_NUMBER),
    "batch_images": int,
}
_RATIO = {
    "about": str,
    "row": str,
    "over": str,
    "wall": _SPREAD,
    "cpu": _SPREAD,
    "by": str,
    "at_least": Optional(_NUMBER),
    "holds": bool,
}
_REPORT = {
    "schema": int,
    "command": str,
    "complete": bool,
    "missing": [{"name": str, "title": str, "why": str}],
    "ratios": [_RATIO],
    "verdict": str,
}

_DATALOADER_ROW = {
    **_ROW,
    "mb_per_s": _NUMBER,
    "gpu": Mapping(_NUMBER),
    "limit": Optional(str),
    "share_of_limit": Optional({"wall": _NUMBER, "cpu": Optional(_NUMBER)}),
    "rounds": [{**_ROUND, "bytes": int}],
}
_DATALOADER = {
    **_REPORT,
    "conditions": _DATA_CONDITIONS,
    "limits": [_DATALOADER_ROW],
    "rows": [_DATALOADER_ROW],
    "parts": [_DATALOADER_ROW],
    "peers": [_DATALOADER_ROW],
    "stages": [{"name": str, "cpu_us": _NUMBER, "plus_minus_us": _NUMBER, "share": _NUMBER, "how": str}],
    "tune": [str],
}

_OF_LIMITS = {"arithmetic": Optional(_NUMBER), "layers": Optional(_NUMBER), "best_kernels": Optional(_NUMBER)}
_PARTS = dict.fromkeys(("forward", "backward", "update", "rest"), _NUMBER)
_NETWORK_ROW = {
    **_ROW,
    "arch": str,
    "precision": str,
    "batch_images": int,
    "gpus": int,
    "parallel": str,
    "step_ms": _SPREAD,
    "parts_ms": Optional({**_PARTS, "communication": Optional(_NUMBER)}),
    "limits_by": Optional(str),
    "limits": _OF_LIMITS,
    "share_of_limit": _OF_LIMITS,
}
_MACHINE_ROW = {
    **_ROW,
    "unit": str,
    "per_s": _SPREAD,
    "per_s_all_cores_busy": _SPREAD,
    "rounds": [{**_ROUND, "per_s": _NUMBER, "per_s_all_cores_busy": _NUMBER}],
}
_MODEL = {
    **_REPORT,
    "conditions": {**_MACHINE_CONDITIONS, "cpu_has_bf16": bool},
    "limits": [_MACHINE_ROW],
    "rows": [_NETWORK_ROW],
    "peers": [_NETWORK_ROW],
    "layers": [
        {"row": str, "layers": [{"layer": str, "ways_ms": Mapping(_NUMBER)}], "sum_ms": _NUMBER, "disturbed": bool}
    ],
}

_TRAIN_ROW = {**_NETWORK_ROW, "real": bool, "data_wait": _NUMBER}
_TRAIN = {
    **_REPORT,
    "conditions": _DATA_CONDITIONS,
    "limits": [OneOf((_TRAIN_ROW, _ROW))],
    "rows": [_TRAIN_ROW],
    "peers": [_TRAIN_ROW],
    "explained": [
        {
            "row": str,
            "by": str,
            "train": _NUMBER,
            "loader": _NUMBER,
            "model": _NUMBER,
            "slower": _NUMBER,
            "expected": _NUMBER,
            "real_over_made_up": _NUMBER,
            "data_wait": _NUMBER,
            "sentence": str,
        }
    ],
}
_PREP = {
    "schema": int,
    "command": str,
    "conditions": {
        "source": str,
        "rounds": int,
        "cores": int,
        "load": _NUMBER,
        "pillow": str,
        "libjpeg_turbo": str,
        "python": str,
        "images": int,
        "entries": int,
    },
    "bound_images_per_s_a_core": _SPREAD,
    "bound_rounds": [_NUMBER],
    "rows": [{"workers": int, "images_per_s": _SPREAD, "share_of_bound_a_core": _NUMBER, "rounds": [_NUMBER]}],
    "resume": Mapping(OneOf((int, _SPREAD))),
    "largest_worker_mb": _NUMBER,
}

SHAPES: dict[str, dict[str, Any]] = {"dataloader": _DATALOADER, "model": _MODEL, "train": _TRAIN, "prep": _PREP}
