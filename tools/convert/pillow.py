"""Tell whether the Pillow in use is pillow-simd, which resizes with vector instructions.

Both are the package `PIL`. Whichever was installed last is there, and a package that depends on plain Pillow installs
that over the other without a word.
"""

import PIL

_SIMD_MARK = ".post"  # every release of pillow-simd is a post-release of the Pillow it was made from

MENDED_BY = "pip uninstall -y pillow; pip install --force-reinstall --no-deps pillow-simd"


def slowness() -> str | None:
    """Return what to tell the user where the slow Pillow is in use, else None."""
    if _SIMD_MARK in PIL.__version__:
        return None
    return (
        f"Pillow {PIL.__version__} is in use and not pillow-simd: another package overwrote it. Images convert at half "
        f"the speed, and not to the same bytes; to mend it: {MENDED_BY}"
    )
