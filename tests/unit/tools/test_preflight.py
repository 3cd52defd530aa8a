"""`make venv` installs the DALI that fits the machine, and says which and why."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from alexnet.tools import preflight
from alexnet.tools.preflight import choose_extra, constraints, main, nvidia_driver


@pytest.mark.parametrize(
    ("driver", "machine", "python", "extra", "why"),
    [
        (None, "x86_64", (3, 11), "cuda13", "no NVIDIA driver here; DALI decodes on CPUs, too"),
        ("580.65.06", "aarch64", (3, 15), "cuda13", "NVIDIA driver 580.65.06 is 580 or newer"),
        ("550.54.15", "x86_64", (3, 12), "cuda12", "CUDA 13 needs NVIDIA driver 580, this is 550.54.15; "),
        ("470.82.01", "x86_64", (3, 12), "cuda13", "too old (cuda13 needs 580 and cuda12 needs 525): all runs on the"),
        ("580.65.06", "ppc64le", (3, 11), "none", "DALI has no wheel for Python 3.11 on ppc64le"),
        (None, "x86_64", (3, 16), "none", "DALI has no wheel for Python 3.16 on x86_64"),
    ],
)
def test_the_extra_follows_from_driver_machine_and_python(
    driver: str | None, machine: str, python: tuple[int, int], extra: str, why: str
) -> None:
    chosen, said = choose_extra(driver, machine, python)
    assert chosen == extra
    assert why in said


PROC = "NVRM version: NVIDIA UNIX {kind}  {version}  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc 12.2.0 (Debian)\n"


@pytest.mark.parametrize(
    ("proc", "smi", "version"),
    [
        (PROC.format(kind="x86_64 Kernel Module", version="550.54.15"), None, "550.54.15"),
        (PROC.format(kind="Open Kernel Module for x86_64", version="580.65"), None, "580.65"),
        (None, "535.129.03\n535.129.03\n", "535.129.03"),
        (None, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", None),
        (None, None, None),
    ],
)
def test_the_driver_is_read_where_it_says_its_version(
    proc: str | None, smi: str | None, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proc:
        (tmp_path / "version").write_text(proc)

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, smi)

    monkeypatch.setattr(preflight, "DRIVER_VERSION", tmp_path / "version")
    monkeypatch.setattr("shutil.which", lambda name: name if smi else None)
    monkeypatch.setattr("subprocess.run", run)
    assert nvidia_driver() == version


def test_an_extra_that_was_asked_for_is_taken_and_one_that_is_none_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "can_install", lambda: True)
    monkeypatch.setattr(preflight, "nvidia_driver", lambda: "580.65.06")
    assert main(["cuda12"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "cuda12\n"
    assert printed.err.startswith("extra: cuda12 (asked for; else cuda13: ")
    assert main(["cuda11"]) == 2
    assert capsys.readouterr().err == "EXTRA=cuda11: must be cuda13, cuda12 or none\n"


def test_pip_takes_the_newest_pytorch_only_where_cuda_13_runs() -> None:
    assert constraints("580.65.06", "cuda13") == ""
    for driver, extra in ((None, "cuda13"), ("550.54.15", "cuda12"), ("580.65.06", "cuda12"), ("470.82.01", "")):
        held = constraints(driver, extra)
        assert (Path(__file__).parents[3] / held).is_file()
