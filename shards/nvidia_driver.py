"""Which NVIDIA driver is here and which one a CUDA needs: why PyTorch can use no GPU, and the line that mends it.

NVML is asked, the driver's own account. Neither torch nor DALI is imported here.
"""

import os

import pynvml

OLDEST_DRIVER = {13: 580, 12: 525}
"""What a driver's version must begin with, at least, to run what was built for a CUDA, newest first; from NVIDIA's
"Minor Version Compatibility". `tools/preflight.py` has the same, as it runs before anything is installed."""

INSTALL = {
    13: "in a clone: rm -r .venv; make venv",
    12: 'in a clone: rm -r .venv; make venv PIP_ARGS="--extra-index-url URL_OF_CUDA_12_BUILDS"',
}
"""What fits a CUDA, anew, as what PyTorch and DALI brought for another one would stay; make asks for the driver."""


def gpus_and_driver() -> tuple[int, str]:
    """Return how many GPUs the driver sees, and its version. Raises pynvml.NVMLError where there is none to ask."""
    pynvml.nvmlInit()
    try:
        return pynvml.nvmlDeviceGetCount(), str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def is_too_old(driver: str, cuda: int) -> bool:
    """Say whether a driver cannot run what was built for a CUDA; of one not known here, it is not said."""
    return _release(driver) < OLDEST_DRIVER.get(cuda, 0)


def why_no_gpu(torch_version: str, torch_cuda: str | None) -> str:
    """Say in one line why PyTorch can use no GPU here, and where another driver or install mends it, which.

    `torch_cuda`: such as 13.0, what PyTorch was built for; None of a build for the CPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    try:
        gpus, driver = gpus_and_driver()
    except pynvml.NVMLError as error:
        return f"no GPU here: {error}"
    if not gpus:
        return "no GPU here"
    here = f"{gpus} GPU{'s' * (gpus > 1)} here, driver {driver}"
    fits = next((cuda for cuda, oldest in OLDEST_DRIVER.items() if _release(driver) >= oldest), None)
    install = f"or {INSTALL[fits]}" if fits else f"{OLDEST_DRIVER[12]} would do for CUDA 12"
    if torch_cuda is None:
        mend = INSTALL[fits] if fits else f"and the driver is older than any CUDA needs, {install}"
        return f"{here}, but PyTorch {torch_version} was built without CUDA; {mend}"
    if is_too_old(driver, major := int(torch_cuda.split(".")[0])):
        needed = f"PyTorch {torch_version} for CUDA {torch_cuda} needs driver {OLDEST_DRIVER[major]} or newer"
        return f"{here}, but {needed}; update it, {install}"
    says = 'python -c "import torch; torch.cuda.init()" says why'
    return f"{here}, which PyTorch {torch_version} for CUDA {torch_cuda} cannot use; {says}"


def _release(driver: str) -> int:
    """Return the first number of a driver's version, such as 550 of 550.54.15."""
    return int(driver.split(".")[0])
