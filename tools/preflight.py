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
import tempfile
from pathlib import Path

# What pip builds or needs, how to see whether it is there, and Debian's package that brings it.
HEADERS = (
    ("jpeglib.h", "#include <stdio.h>\n#include <jpeglib.h>\n", "libjpeg-dev", "pillow-simd is built against it"),
    ("zlib.h", "#include <zlib.h>\n", "zlib1g-dev", "pillow-simd is built against it"),
)
# What pillow-simd is built with where it is there, for pictures of other formats.
OPTIONAL = {
    "WebP": ("webp/decode.h", "libwebp-dev"),
    "compressed TIFF": ("tiffio.h", "libtiff-dev"),
    "JPEG 2000": ("openjpeg.h", "libopenjp2-7-dev"),
    "LAB colours": ("lcms2.h", "liblcms2-dev"),
}


def missing_packages() -> list[tuple[str, str, str]]:
    """Return (what, Debian package, why) of everything that is missing."""
    missing = []
    if subprocess.call([sys.executable, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL) != 0:
        missing.append(("the venv module", "python3-venv", "the project lives in a virtual environment"))
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append(("Python.h", "python3-dev", "pillow-simd is a C extension"))
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        missing.append(("a C compiler", "gcc libc6-dev", "pillow-simd is a C extension"))
        return missing + [(name, package, why) for name, _, package, why in HEADERS if not _header_exists(name)]
    missing += [(name, package, why) for name, text, package, why in HEADERS if not _compiles(compiler, text)]
    return missing


def _compiles(compiler: str, text: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(text + "int main(void) { return 0; }\n")
        command = [*compiler.split(), "-fsyntax-only", str(source)]
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


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
