"""Which of NVIDIA's packages are installed: each comes as one distribution for CUDA 13 and another for CUDA 12.

Of DALI and nvImageCodec both hold the same files, so that two at once overwrite each other's. None is imported here.
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, version

import pynvml

from alexnet.shards.nvidia_driver import INSTALL, gpus_and_driver, is_too_old

_DISTRIBUTIONS = {
    "DALI": {"nvidia-dali-cuda130": 13, "nvidia-dali-cuda120": 12},
    "nvImageCodec": {"nvidia-nvimgcodec-cu13": 13, "nvidia-nvimgcodec-cu12": 12},
    "nvJPEG": {"nvidia-nvjpeg": 13, "nvidia-nvjpeg-cu12": 12},
}


def installed(name: str) -> dict[str, str]:
    """Return the versions of a package's distributions that are installed, by their names: none, one or two."""
    found = {}
    for distribution in _DISTRIBUTIONS[name]:
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def installed_version(name: str) -> str | None:
    """Return a package's version, None where it is not installed; of two distributions, both."""
    return " and ".join(installed(name).values()) or None


def without_dali(device_id: int | None = None) -> str | None:
    """Return why DALI cannot be used on a GPU, or on the CPU, where it needs no driver; None if it can. Not loaded."""
    if not (importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")):
        return "NVIDIA DALI is not installed (pip install 'alexnet[cuda13]', for Linux on x86-64 and Arm)"
    for name in ("DALI", "nvImageCodec"):  # which DALI brings
        if len(found := installed(name)) > 1:
            return f"{' and '.join(found)} are both installed and overwrite each other's files ({INSTALL[13]})"
    return next(filter(None, map(_too_new, installed("DALI"))), None) if device_id is not None else None


def _too_new(distribution: str) -> str | None:
    """Return that a DALI is built for a CUDA which the driver cannot run, and what to do; None if it can."""
    try:
        _, driver = gpus_and_driver()
    except pynvml.NVMLError:  # that there is no GPU is said where one is asked for
        return None
    if not is_too_old(driver, _DISTRIBUTIONS["DALI"][distribution]):
        return None
    return f"{distribution} cannot run on driver {driver} ({INSTALL[12]})"
