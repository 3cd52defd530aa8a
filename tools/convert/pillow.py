"""Which Pillow is in use. Pillow and pillow-simd are both the package `PIL`: whichever was installed last is there.

A package that depends on plain Pillow installs that over the other without a word, and pip goes on to list both. So the
files that are there are asked, not what pip noted.
"""

import platform

import PIL

_SIMD_MACHINE = "x86_64"  # it is written in SSE4
_SIMD_SPEED = "1.7 times as fast"  # 2.1 ms of CPU time an image with 12.1.1.post0, 3.6 with Pillow 12.1.1


def distribution() -> str:
    """Name the distribution whose files are there: every release of pillow-simd is a post-release of its Pillow."""
    return "pillow-simd" if ".post" in PIL.__version__ else "pillow"


def describe_resizing() -> str:
    """Say in one line what resizes, and how fast images convert with it."""
    if distribution() == "pillow-simd":
        return f"resizing: pillow-simd {PIL.__version__}, with which images convert {_SIMD_SPEED} as with Pillow"
    return f"resizing: Pillow {PIL.__version__}; with pillow-simd, on {_SIMD_MACHINE}, images convert {_SIMD_SPEED}"


def overwritten() -> str | None:
    """Return that plain Pillow is there where pillow-simd should be, with the mend; else None."""
    if distribution() == "pillow-simd" or platform.machine() != _SIMD_MACHINE:
        return None
    return (
        f"Pillow {PIL.__version__} is in use and not pillow-simd: another package overwrote it. With the latter "
        f"images convert {_SIMD_SPEED}, and not to the same bytes; to mend it: pip uninstall -y pillow; pip install "
        "--force-reinstall --no-deps pillow-simd"
    )
