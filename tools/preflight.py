"""Name what the machine lacks before pip fails on it half-way, and choose the extra that fits its NVIDIA driver.

    python3 tools/preflight.py [EXTRA]      # prints the extra: cuda13, cuda12 or none; all else goes to standard error
    python3 tools/preflight.py --constraints [EXTRA]      # prints the file for pip's -c, nothing where there is none

Run by `make venv` with the system's Python. Uses nothing but the standard library, and runs on Pythons older than the
package supports, to say so.
"""

from __future__ import annotations  # so that the types below do not stop an older Python before it is told

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# What pillow-simd is built with where it is there, for pictures of other formats: a header, and Debian's package.
OPTIONAL = {
    "WebP": ("webp/decode.h", "libwebp-dev"),
    "compressed TIFF": ("tiffio.h", "libtiff-dev"),
    "JPEG 2000": ("openjpeg.h", "libopenjp2-7-dev"),
    "LAB colours": ("lcms2.h", "liblcms2-dev"),
}

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
# The oldest driver for what was built for a CUDA, by its first number; the same as in shards/nvidia_driver.py.
OLDEST_DRIVER = {"cuda13": 580, "cuda12": 525}
# DALI 2.4 has wheels for these.
DALI_MACHINES, DALI_BELOW = ("x86_64", "aarch64"), (3, 16)


def missing_packages() -> list[tuple[str, str, str]]:
    """Return (what, Debian package, why) of everything that is missing."""
    venv = subprocess.call([sys.executable, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL) == 0
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    built, against = "the host decoder is built here", "the host decoder is built against it"
    needed = (
        (venv, "the venv module", "python3-venv", "the project lives in a virtual environment"),
        (headers, "Python.h", "python3-dev", built),
        (compiler, "a C compiler", "gcc libc6-dev", built),
        (_can_include("jpeglib.h", compiler), "jpeglib.h", "libjpeg-dev", against),
        (_can_include("zlib.h", compiler), "zlib.h", "zlib1g-dev", against),
    )
    return [(what, package, why) for there, what, package, why in needed if not there]


def _can_include(header: str, compiler: str | None) -> bool:
    """Ask the compiler for a header or, where there is none yet, look for it."""
    if not compiler:
        return _header_exists(header)
    command = [*compiler.split(), "-fsyntax-only", "-x", "c", "-"]
    text = f"#include <stdio.h>\n#include <{header}>\n".encode()
    return subprocess.run(command, input=text, capture_output=True, check=False).returncode == 0


def _header_exists(name: str) -> bool:
    folders = [Path("/usr/include"), Path("/usr/local/include")]
    return any(next(folder.glob(f"{below}{name}"), None) for folder in folders for below in ("", "*/"))


def optional() -> str | None:
    """Return a line on the formats that pillow-simd will be built without, None if there are none."""
    if platform.machine() != "x86_64":  # Pillow comes built, with all of them
        return None
    without = [(kind, package) for kind, (header, package) in OPTIONAL.items() if not _header_exists(header)]
    if not without:
        return None
    kinds, packages = (", ".join(kind for kind, _ in without), " ".join(package for _, package in without))
    return f"optional: pillow-simd will not read {kinds}; if you have such pictures: apt-get install {packages}"


def nvidia_driver() -> str | None:
    """Return the version of the NVIDIA driver, None where there is none."""
    text = DRIVER_VERSION.read_text(errors="replace") if DRIVER_VERSION.exists() else ""
    if not text and shutil.which("nvidia-smi"):  # as on WSL
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            text = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout.decode(errors="replace")
        except (OSError, subprocess.SubprocessError) as error:  # it hangs where a GPU does
            print(f"NVIDIA driver: taken as missing, as nvidia-smi does not say its version ({error})", file=sys.stderr)
    found = re.search(r"\b(\d{3,})\.\d+(\.\d+)*\b", text)
    return found.group() if found else None


def choose_extra(driver: str | None, machine: str, python: tuple[int, int]) -> tuple[str, str]:
    """Return the extra that fits, `none` where DALI has no wheel, and why in one line."""
    if machine not in DALI_MACHINES or python >= DALI_BELOW:
        where = f"Python {python[0]}.{python[1]} on {machine}"
        return "none", f"DALI has no wheel for {where}: the host decoder decodes"
    if driver is None:
        return "cuda13", "no NVIDIA driver here; DALI decodes on CPUs, too"
    release = int(driver.split(".")[0])
    if release >= OLDEST_DRIVER["cuda13"]:
        return "cuda13", f"NVIDIA driver {driver} is {OLDEST_DRIVER['cuda13']} or newer"
    if release >= OLDEST_DRIVER["cuda12"]:
        builds = 'PyTorch for CUDA 12 comes with PIP_ARGS="--extra-index-url URL_OF_CUDA_12_BUILDS"'
        return "cuda12", f"CUDA 13 needs NVIDIA driver {OLDEST_DRIVER['cuda13']}, this is {driver}; {builds}"
    oldest = " and ".join(f"{extra} needs {oldest}" for extra, oldest in OLDEST_DRIVER.items())
    return "cuda13", f"NVIDIA driver {driver} is too old ({oldest}): all runs on the CPU until it is updated"


def constraints(driver: str | None, extra: str) -> str:
    """Return the file that holds PyTorch to what CI has, empty where the newest runs: its builds are for CUDA 13."""
    runs_newest = driver and int(driver.split(".")[0]) >= OLDEST_DRIVER["cuda13"] and extra != "cuda12"
    return "" if runs_newest else "constraints/ci.txt"


def main(arguments: list[str]) -> int:
    """Print what is asked for, and one line a problem; return the exit code."""
    if arguments[:1] == ["--constraints"]:
        print(constraints(nvidia_driver(), *(arguments[1:] or [""])))
        return 0
    if not (can_install() and check_extra(arguments)):
        return 2
    extra, why = choose_extra(nvidia_driver(), platform.machine(), sys.version_info[:2])
    if arguments:
        extra, why = arguments[0], f"as chosen; else {extra}: {why}"
    print(f"extra: {extra} ({why})", file=sys.stderr)
    print(extra)
    return 0


def check_extra(arguments: list[str]) -> bool:
    """Say what is wrong with an extra that was asked for."""
    if arguments and arguments[0] not in (*OLDEST_DRIVER, "none"):
        print(f"EXTRA={arguments[0]}: must be {', '.join(OLDEST_DRIVER)} or none", file=sys.stderr)
        return False
    return True


def can_install() -> bool:
    """Print one line a problem that the machine has, and what it may want."""
    if not sys.platform.startswith("linux"):
        print(f"Linux is needed; this is {sys.platform}.", file=sys.stderr)
        return False
    if sys.version_info < (3, 11):
        version = sys.version.split()[0]
        mend = "install one and give make PYTHON=python3.11"
        print(f"Python 3.11 or newer is needed, this is {version}: {mend}", file=sys.stderr)
        return False
    missing = missing_packages()
    for what, _, why in missing:
        print(f"missing: {what} ({why})", file=sys.stderr)
    if missing:
        packages = " ".join(package for _, package, _ in missing)
        print(f"On Debian or Ubuntu: apt-get install {packages}", file=sys.stderr)
        return False
    if (line := optional()) is not None:
        print(line, file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
