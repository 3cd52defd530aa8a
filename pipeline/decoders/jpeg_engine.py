"""The GPU's hardware JPEG engine: how many there are, and how busy they are.

Two libraries are asked, because each knows a half. nvJPEG counts the engines; no Python package offers that call, so
it goes through ctypes. NVML, the driver's own account, tells how busy they are, which is the only proof that a decoder
uses them. Neither torch nor DALI is known here. No question raises: where there is no answer, there is a reason.
"""

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

_LIBRARY = "libnvjpeg.so.13"
_BACKEND_HARDWARE = 3  # NVJPEG_BACKEND_HARDWARE of nvjpeg.h
_STATUS_NAMES = (
    "SUCCESS",
    "NOT_INITIALIZED",
    "INVALID_PARAMETER",
    "BAD_JPEG",
    "JPEG_NOT_SUPPORTED",
    "ALLOCATOR_FAILURE",
    "EXECUTION_FAILED",
    "ARCH_MISMATCH",
    "INTERNAL_ERROR",
    "IMPLEMENTATION_NOT_SUPPORTED",
    "INCOMPLETE_BITSTREAM",
)


@dataclass(frozen=True, kw_only=True)
class JpegEngine:
    """Describe the JPEG engine. `engines` and `cores_per_engine`: None if nvJPEG cannot say, 0 if there is none.

    `utilisation_percent`: at this moment, None if NVML does not offer it. `nvjpeg`, `nvml`: what each library said,
    in words.
    """

    engines: int | None
    cores_per_engine: int | None
    utilisation_percent: int | None
    nvjpeg: str
    nvml: str


def query_jpeg_engine() -> JpegEngine:
    """Ask both libraries about the engine of the GPU that CUDA calls 0."""
    engines, cores, nvjpeg = _count_engines()
    utilisation, nvml = _utilisation()
    return JpegEngine(
        engines=engines, cores_per_engine=cores, utilisation_percent=utilisation, nvjpeg=nvjpeg, nvml=nvml
    )


@contextmanager
def nvml_gpu() -> Iterator[Any]:
    """Open NVML's handle of the GPU that CUDA calls 0. Raises pynvml.NVMLError without a driver or a GPU."""
    pynvml.nvmlInit()
    try:
        # NVML numbers every GPU there is; CUDA numbers those that this variable names, by number or by UUID.
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        if first.startswith(("GPU-", "MIG-")):
            yield pynvml.nvmlDeviceGetHandleByUUID(first)
        else:
            yield pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)
    finally:
        pynvml.nvmlShutdown()


def _utilisation() -> tuple[int | None, str]:
    try:
        with nvml_gpu() as handle:
            return _sample(handle)
    except pynvml.NVMLError as error:
        return None, f"no GPU: {error}"


def _sample(handle: Any) -> tuple[int | None, str]:
    try:
        percent, period_us = pynvml.nvmlDeviceGetJpgUtilization(handle)
    except pynvml.NVMLError as error:
        return None, f"NVML does not offer the JPEG utilisation: {error}"
    return int(percent), f"NVML averages the JPEG utilisation over {period_us / 1000:.0f} ms"


def _count_engines() -> tuple[int | None, int | None, str]:
    """Return engines, cores an engine, and nvJPEG's answer in words."""
    library = _load_nvjpeg()
    if library is None:
        return None, None, f"{_LIBRARY} was not found"
    handle = ctypes.c_void_p()
    # The hardware backend is the one that decodes in batches; a GPU without it can still be asked through the default.
    status = library.nvjpegCreateEx(_BACKEND_HARDWARE, None, None, 0, ctypes.byref(handle))
    if status != 0:
        status = library.nvjpegCreateSimple(ctypes.byref(handle))
    if status != 0:
        return None, None, f"no GPU that nvJPEG can start on: {_status(status)}"
    engines, cores = ctypes.c_uint(), ctypes.c_uint()
    status = library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    library.nvjpegDestroy(handle)
    if status != 0:
        return 0, 0, f"nvJPEG knows no hardware decoder here: {_status(status)}"
    return engines.value, cores.value, f"nvJPEG counts {engines.value} engines of {cores.value} cores"


def _load_nvjpeg() -> ctypes.CDLL | None:
    """Load nvJPEG from the packages that bring it, else from wherever the loader finds it."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    beside = [root / folder / "lib" / _LIBRARY for root in roots for folder in ("cu13", "nvjpeg")]
    for candidate in [str(path) for path in beside if path.exists()] + [_LIBRARY]:
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue
        pointer = ctypes.POINTER(ctypes.c_uint)
        library.nvjpegCreateEx.argtypes = [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_void_p,
        ]
        library.nvjpegCreateSimple.argtypes = [ctypes.c_void_p]
        library.nvjpegGetHardwareDecoderInfo.argtypes = [ctypes.c_void_p, pointer, pointer]
        library.nvjpegDestroy.argtypes = [ctypes.c_void_p]
        return library
    return None


def _status(status: int) -> str:
    name = _STATUS_NAMES[status] if 0 <= status < len(_STATUS_NAMES) else "unknown"
    return f"status {status} ({name})"
