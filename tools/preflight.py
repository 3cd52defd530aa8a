"""Name what the machine lacks before pip fails on it half-way. Run by `make venv` with the system's Python.

    python3 tools/preflight.py

Uses nothing but the standard library, and runs on Pythons older than the package supports, to say so.
"""

from __future__ import annotations  # so that the types below do not stop an older Python before it is told

import os
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


def missing_packages() -> list[tuple[str, str, str]]:
    """Return (what, Debian package, why) of everything that is missing."""
    venv = subprocess.call([sys.executable, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL) == 0
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    built, against = "pillow-simd is a C extension", "pillow-simd is built against it"
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
    """Return a line on the formats that Pillow will be built without, None if there are none."""
    without = [(kind, package) for kind, (header, package) in OPTIONAL.items() if not _header_exists(header)]
    if not without:
        return None
    kinds, packages = (", ".join(kind for kind, _ in without), " ".join(package for _, package in without))
    return f"optional: pillow-simd will not read {kinds}; if you have such pictures: apt-get install {packages}"


def main() -> int:
    """Print one line a problem and return the exit code."""
    if not sys.platform.startswith("linux"):
        print(f"NVIDIA DALI, which decodes the images, is there for Linux only; this is {sys.platform}.")
        return 2
    if sys.version_info < (3, 11):
        version = sys.version.split()[0]
        print(f"Python 3.11 or newer is needed, this is {version}: install one and give make PYTHON=python3.11")
        return 2
    missing = missing_packages()
    for what, _, why in missing:
        print(f"missing: {what} ({why})")
    if missing:
        print(f"On Debian or Ubuntu: apt-get install {' '.join(package for _, package, _ in missing)}")
        return 2
    if (line := optional()) is not None:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
