"""What the machine is: the processor, its memory, the GPU that CUDA calls 0, and the versions of what computes on it.

Figures mean nothing without this, so every command that measures can ask for it. Importing this module loads neither
torch nor DALI. A machine without a GPU is described like any other, with the reason why there is none.
"""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pynvml

from alexnet.pipeline.nvidia_packages import installed_version
from alexnet.shards.nvidia_driver import gpus_and_driver, why_no_gpu
from alexnet.shards.resources import usable_cores

_PACKAGES = ("alexnet", "numpy", "triton")
_PACKAGES_OF_NVIDIA = ("DALI", "nvImageCodec", "nvJPEG")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Describe the GPU that PyTorch uses first. `compute_capability`: such as 9.0. `gpus`: how many PyTorch can use."""

    name: str
    memory_bytes: int
    driver: str
    compute_capability: str
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Describe a machine.

    `cores`: those this process may run on. `gpu`: None where PyTorch can use none; `gpu_why` then says why not, and
    is empty otherwise. `versions`: by name; a package that is missing is `not installed`.
    """

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    gpu: Gpu | None
    gpu_why: str
    versions: dict[str, str]


def describe_machine() -> Machine:
    """Describe the machine that this process runs on. Loads torch, and starts CUDA if there is a GPU."""
    gpu, why = _gpu()
    return Machine(
        system=platform.platform(),
        cpu=_cpu_model(),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        gpu=gpu,
        gpu_why=why,
        versions=_versions(),
    )


def _gpu() -> tuple[Gpu | None, str]:
    import torch

    if not torch.cuda.is_available():
        return None, why_no_gpu(torch.__version__, torch.version.cuda)
    properties = torch.cuda.get_device_properties(0)
    try:
        _, driver = gpus_and_driver()
    except pynvml.NVMLError as error:
        driver = f"unknown ({error})"
    gpu = Gpu(
        name=properties.name,
        memory_bytes=properties.total_memory,
        driver=driver,
        compute_capability=f"{properties.major}.{properties.minor}",
        gpus=torch.cuda.device_count(),
    )
    return gpu, ""


def _cpu_model() -> str:
    """Read the processor's name, which Linux tells on x86 only; elsewhere it is the architecture's."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    import torch

    cudnn = torch.backends.cudnn.version()
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "CUDA of torch": torch.version.cuda or "none",
        "cuDNN": str(cudnn) if cudnn else "none",
    }
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    for name in _PACKAGES_OF_NVIDIA:
        versions[name] = installed_version(name) or "not installed"
    return versions
