"""The GPU's hardware JPEG engine: how many there are. Neither torch nor DALI is imported here.

nvJPEG counts the engines; no Python package offers that call, so it goes through ctypes. NVML, the driver's own
account, is opened here for those who ask how busy they are, which is the only proof that a decoder uses them.
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

_LIBRARIES = ("libnvjpeg.so.13", "libnvjpeg.so.12")
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

    `nvjpeg`: what the library said, in words.
    """

    engines: int | None
    cores_per_engine: int | None
    nvjpeg: str


def query_jpeg_engine() -> JpegEngine:
    """Ask nvJPEG about the engine of the GPU that CUDA calls 0. Never raises: without an answer there is a reason."""
    library = _load_nvjpeg()
    if library is None:
        return JpegEngine(engines=None, cores_per_engine=None, nvjpeg=f"{' or '.join(_LIBRARIES)} was not found")
    handle = ctypes.c_void_p()
    # The hardware backend is the one that decodes in batches; a GPU without it can still be asked through the default.
    status = library.nvjpegCreateEx(_BACKEND_HARDWARE, None, None, 0, ctypes.byref(handle))
    if status != 0:
        status = library.nvjpegCreateSimple(ctypes.byref(handle))
    if status != 0:
        words = f"no GPU that nvJPEG can start on: {_status(status)}"
        return JpegEngine(engines=None, cores_per_engine=None, nvjpeg=words)
    engines, cores = ctypes.c_uint(), ctypes.c_uint()
    status = library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    library.nvjpegDestroy(handle)
    if status != 0:
        words = f"nvJPEG knows no hardware decoder here: {_status(status)}"
        return JpegEngine(engines=0, cores_per_engine=0, nvjpeg=words)
    words = f"nvJPEG counts {engines.value} engines of {cores.value} cores"
    return JpegEngine(engines=engines.value, cores_per_engine=cores.value, nvjpeg=words)


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


def _load_nvjpeg() -> ctypes.CDLL | None:
    """Load nvJPEG from the packages that bring it, else from wherever the loader finds it."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    folders = [root / folder / "lib" for root in roots for folder in ("cu13", "nvjpeg")]
    beside = [folder / library for library in _LIBRARIES for folder in folders]
    for candidate in [*(str(path) for path in beside if path.exists()), *_LIBRARIES]:
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue
        pointer = ctypes.POINTER(ctypes.c_uint)
        void = ctypes.c_void_p
        library.nvjpegCreateEx.argtypes = [ctypes.c_int, void, void, ctypes.c_uint, void]
        library.nvjpegCreateSimple.argtypes = [void]
        library.nvjpegGetHardwareDecoderInfo.argtypes = [void, pointer, pointer]
        library.nvjpegDestroy.argtypes = [void]
        return library
    return None


def _status(status: int) -> str:
    name = _STATUS_NAMES[status] if 0 <= status < len(_STATUS_NAMES) else "unknown"
    return f"status {status} ({name})"
