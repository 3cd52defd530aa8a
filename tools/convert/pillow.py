"""Tell whether the Pillow in use is pillow-simd, which resizes with vector instructions, and what it was built without.

Both are the package `PIL`. Whichever was installed last is there, and a package that depends on plain Pillow installs
that over the other without a word.
"""

import re
import warnings

import PIL
from PIL import Image, features

from alexnet.pipeline.host.extension import available

_PREFIX_BYTES = 16  # that plugins are shown
_SIMD_MARK = ".post"  # every release of pillow-simd is a post-release of the Pillow it was made from

MENDED_BY = "pip uninstall -y pillow; pip install --force-reinstall --no-deps pillow-simd"
_REBUILT_BY = "pip install --force-reinstall --no-binary :all: --no-cache-dir --no-deps pillow-simd"

CODECS = {
    "WebP": ("webp", "libwebp-dev"),
    "compressed TIFF": ("libtiff", "libtiff-dev"),
    "JPEG 2000": ("jpg_2000", "libopenjp2-7-dev"),
    "LAB colours": ("littlecms2", "liblcms2-dev"),
    "AVIF": ("avif", None),  # the libavif of Debian 12 is too old
}
"""What Pillow decodes only where it was built against a library: its name for that, and Debian's package."""
_TAKEN = {"AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCD", "PCX", "PNG", "PPM", "PSD"}
_TAKEN |= {"QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"}
Image.init()
FORMATS = tuple(name for name in Image.ID if name in _TAKEN)
"""What Pillow may open, in its own order. Of its others, some start programs (EPS: Ghostscript), open any format inside
of theirs (IPTC) or unpack without an end (FITS); none holds photographs."""
_NEVER = ("EPS", "FITS", "ICNS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")  # of these, what first bytes tell for sure

_BEGINNINGS = {
    "WebP": rb"RIFF....WEBP",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb"\0\0..ftyp(?:....){0,15}?avi[fs]",
    "HEIC": rb"\0\0..ftyp(?:....){0,15}?(?:hei[cmsx]|hev[cmsx]|mif1|msf1)",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
}


def slowness() -> str | None:
    """Return what to tell the user where the slow Pillow is in use, or no host decoder beside it, else None."""
    said = []
    if _SIMD_MARK not in PIL.__version__:
        said.append(
            f"Pillow {PIL.__version__} is in use and not pillow-simd: another package overwrote it. Images convert at "
            f"half the speed, and not to the same bytes; to mend it: {MENDED_BY}"
        )
    if (why := available()) is not None:
        said.append(f"JPEGs that were cut short and closed again are not noticed, as {why}")
    return "; ".join(said) or None


def lacking(kind: str) -> str | None:
    """Return why this Pillow cannot decode a kind of picture, and the mend; None if it can."""
    if kind in _NEVER:
        return f"{kind}: is never read here; convert it to PNG or JPEG first"
    feature, package = CODECS.get(kind, (None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a feature that an older Pillow does not know
        if feature and features.check(feature):
            return None
    if not package:
        return f"{kind}: this Pillow has no decoder for it; convert it to PNG or JPEG first"
    library = package.removesuffix("-dev")
    return f"{kind}: this Pillow was built without {library}; apt-get install {package}, then {_REBUILT_BY}"


def kind_of(head: bytes) -> str | None:
    """Return the kind of a picture that Pillow may have no decoder for, or must not read; None for all else."""
    kinds = (kind for kind, beginning in _BEGINNINGS.items() if re.match(beginning, head, re.DOTALL))
    return next(kinds, None) or next((kind for kind in _NEVER if _begins_as(kind, head)), None)


def _begins_as(kind: str, head: bytes) -> bool:
    """Ask the plugin of a format whether it would try a file with these first bytes, without having it read any."""
    _, accept = Image.OPEN.get(kind, (None, None))
    return len(head) >= _PREFIX_BYTES and accept is not None and bool(accept(head[:_PREFIX_BYTES]))
