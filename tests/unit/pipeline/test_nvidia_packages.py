"""Whichever DALI is installed is found; none, two, and one that the driver cannot run are named with the mend."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

import pytest

from alexnet.pipeline.nvidia_packages import installed, installed_version, without_dali

CUDA_13, CUDA_12 = "nvidia-dali-cuda130", "nvidia-dali-cuda120"


@pytest.fixture
def distributions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that has exactly these distributions be installed, in version 2.4.0."""

    def install(*names: str) -> None:
        def version(name: str) -> str:
            if name not in names:
                raise PackageNotFoundError(name)
            return "2.4.0"

        monkeypatch.setattr("alexnet.pipeline.nvidia_packages.version", version)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name if names else None)

    return install


@pytest.mark.parametrize("name", [CUDA_13, CUDA_12])
def test_either_dali_is_found(distributions: Callable[..., None], name: str) -> None:
    distributions(name)
    assert installed("DALI") == {name: "2.4.0"}
    assert installed_version("DALI") == "2.4.0"
    assert without_dali() is None


def test_none_and_both_are_refused_with_the_mend(distributions: Callable[..., None]) -> None:
    distributions()
    assert installed_version("DALI") is None
    assert "pip install 'alexnet[cuda13]'" in str(without_dali())
    for both in ((CUDA_13, CUDA_12), ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12")):
        distributions(*both)
        said = f"{' and '.join(both)} are both installed and overwrite each other's files (in a clone: rm -r "
        assert str(without_dali()).startswith(said)


def test_a_dali_too_new_for_the_driver_is_refused_on_a_gpu_only(
    distributions: Callable[..., None], driver: Callable[..., None]
) -> None:
    driver("550.54.15")
    distributions(CUDA_13)
    assert str(without_dali(0)).startswith(f"{CUDA_13} cannot run on driver 550.54.15 (in a clone: ")
    assert without_dali() is None, "on a CPU it needs no driver"
    distributions(CUDA_12)
    assert without_dali(0) is None
