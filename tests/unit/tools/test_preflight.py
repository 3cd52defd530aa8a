"""`make venv` installs the DALI that fits the machine, and says which and why."""

import os
import shutil
import subprocess
import sys
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
        ("\x93NVRM 550.54.15", None, "550.54.15"),
        (None, "echo 535.129.03; echo 535.129.03", "535.129.03"),
        (None, "printf '\\377'; echo 535.129.03", "535.129.03"),
        (
            None,
            "echo Failed to initialize NVML: Driver/library version mismatch, NVML 580.65; exit 18",
            None,
        ),
        (None, None, None),
    ],
)
def test_the_driver_is_read_where_it_says_its_version(
    proc: str | None, smi: str | None, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proc:
        (tmp_path / "version").write_text(proc, "latin-1")
    if smi:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setattr(preflight, "DRIVER_VERSION", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_driver() == version


@pytest.mark.parametrize("error", [OSError("Exec format error"), subprocess.TimeoutExpired("nvidia-smi", 30)])
def test_an_nvidia_smi_that_hangs_or_cannot_be_run_is_no_driver(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any, timeout: float, **__: Any) -> None:
        raise error

    monkeypatch.setattr(preflight, "DRIVER_VERSION", tmp_path / "version")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", run)
    assert nvidia_driver() is None
    assert capsys.readouterr().err.startswith("NVIDIA driver: taken as missing, as nvidia-smi does not say its version")


def test_an_extra_that_was_asked_for_is_taken_and_one_that_is_none_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "can_install", lambda: True)
    monkeypatch.setattr(preflight, "nvidia_driver", lambda: "580.65.06")
    assert main(["cuda12"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "cuda12\n"
    assert printed.err.startswith("extra: cuda12 (as chosen; else cuda13: ")
    assert main(["cuda11"]) == 2
    assert capsys.readouterr().err == "EXTRA=cuda11: must be cuda13, cuda12 or none\n"


def test_pip_takes_the_newest_pytorch_only_where_cuda_13_runs() -> None:
    assert constraints("580.65.06", "cuda13") == ""
    for driver, extra in ((None, "cuda13"), ("550.54.15", "cuda12"), ("580.65.06", "cuda12"), ("470.82.01", "")):
        held = constraints(driver, extra)
        assert (Path(__file__).parents[3] / held).is_file()


FAKE_PYTHON = f"""#!/bin/bash
case "$*" in
  tools/preflight.py*) exec {sys.executable} -c 'import sys; sys.path.insert(0, "tools"); import preflight as p
p.nvidia_driver, p.can_install = lambda: "$DRIVER", lambda: True; sys.exit(p.main(sys.argv[1:]))' "${{@:2}}";;
  "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python
    if [ "$3" = --clear ]; then rm -f .venv/.inst*; echo new; fi;;
  *"pip install"*) echo "${{@: -1}}"; $PIP;;
esac
"""


def made(folder: Path, *arguments: str, pip: str = "true", driver: str = "580.65") -> list[str]:
    """Run `make venv` with a Python that installs nothing; return what was put where: a new environment, an extra."""
    fake = folder / "python"
    fake.write_text(FAKE_PYTHON.replace("$PIP", pip).replace("$DRIVER", driver))
    fake.chmod(0o755)
    command = ["make", "-s", "venv", f"PYTHON={fake}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (pip == "true"), done.stderr
    return [line for line in done.stdout.splitlines() if line == "new" or line.startswith(".")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of what `make venv` reads."""
    for file in ("Makefile", "pyproject.toml", "setup.py", "tools/preflight.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parents[3] / file, tmp_path / file)
    return tmp_path


def test_an_installation_that_was_broken_off_is_taken_up_with_its_extra(checkout: Path) -> None:
    assert made(checkout, "EXTRA=cuda12", pip="false") == [".[cuda12]"]
    assert made(checkout) == [".[cuda12]"]
    assert made(checkout) == []
    assert made(checkout, "EXTRA=cuda13", pip="false") == ["new", ".[cuda13]"]
    assert made(checkout) == [".[cuda13]"]


@pytest.mark.parametrize(("driver", "put"), [("580.65", [".[cuda13]"]), ("550.54", ["new", ".[cuda12]"])])
def test_an_environment_of_the_version_that_had_one_dali_holds_that_of_cuda_13(
    checkout: Path, driver: str, put: list[str]
) -> None:
    made(checkout)
    (checkout / ".venv/.installed").write_text("")
    os.utime(checkout / ".venv/.installed", (0, 0))
    assert made(checkout, driver=driver) == put
