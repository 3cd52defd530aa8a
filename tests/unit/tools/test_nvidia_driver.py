"""Why PyTorch can use no GPU is said with the driver that is there, the one it needs, and the line that mends it."""

from collections.abc import Callable

import pynvml
import pytest

from alexnet.shards.nvidia_driver import OLDEST_DRIVER, why_no_gpu
from alexnet.tools import preflight

FITS_12 = 'in a clone: rm -r .venv; make venv PIP_ARGS="--extra-index-url URL_OF_CUDA_12_BUILDS"'
FITS_13 = "in a clone: rm -r .venv; make venv"


@pytest.mark.parametrize(
    ("version", "cuda", "said"),
    [
        ("550.54.15", "13.0", f"PyTorch 2.15 for CUDA 13.0 needs driver 580 or newer; update it, or {FITS_12}"),
        ("470.2", "13.0", "PyTorch 2.15 for CUDA 13.0 needs driver 580 or newer; update it, 525 would do for CUDA 12"),
        ("550.54.15", None, f"PyTorch 2.15 was built without CUDA; {FITS_12}"),
        ("580.65.06", None, f"PyTorch 2.15 was built without CUDA; {FITS_13}"),
    ],
)
def test_what_does_not_fit_the_driver_is_named_with_what_does(
    driver: Callable[..., None], version: str, cuda: str | None, said: str
) -> None:
    driver(version)
    assert why_no_gpu("2.15", cuda) == f"1 GPU here, driver {version}, but {said}"


def test_a_driver_that_should_do_is_not_blamed(driver: Callable[..., None]) -> None:
    for version, cuda in (("580.65.06", "13.0"), ("525.60.13", "12.6"), ("700.1", "14.0")):
        driver(version, gpus=2)
        said = why_no_gpu("2.15", cuda)
        assert said.startswith(f"2 GPUs here, driver {version}, which PyTorch 2.15 for CUDA {cuda} cannot use; ")


def test_no_gpu_a_hidden_one_and_a_driver_that_does_not_answer_are_told_apart(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver("580.65.06", gpus=0)
    assert why_no_gpu("2.15", "13.0") == "no GPU here"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert why_no_gpu("2.15", "13.0") == "CUDA_VISIBLE_DEVICES hides every GPU"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def mismatch() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(pynvml, "nvmlInit", mismatch)
    assert why_no_gpu("2.15", "13.0").startswith("no GPU here: RM has detected an NVML/RM version mismatch")


def test_the_installer_goes_by_the_same_drivers() -> None:
    assert {f"cuda{cuda}": oldest for cuda, oldest in OLDEST_DRIVER.items()} == preflight.OLDEST_DRIVER
