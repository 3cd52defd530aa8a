"""`alexnet-prep show`: make a data set visible, as one page that opens from the disk."""

import os
from pathlib import Path

import click

from alexnet.shards.errors import InputError
from alexnet.shards.files import replace
from alexnet.tools.console import cache_option, one_line_errors, storage_options, tell

_DEFAULT_IMAGES = 12


@click.command()
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    help="Page to write, and FILE.png beside it.  [default: ./NAME.html, NAME being DATA's]",
)
@click.option(
    "--images", default=_DEFAULT_IMAGES, show_default=True, type=click.IntRange(1, 500), help="Training images to show."
)
@cache_option
@storage_options
@one_line_errors
def show(data: Path, out: Path | None, images: int, cache: Path | None) -> None:
    """Show the data set DATA on one page: its images as training sees them, its classes, colours, files and rejects.

    DATA is a folder or a URL. The page is self-contained: it opens from the disk, needs no network, and follows the
    light or dark mode of the reader. Beside it goes the contact sheet as a PNG. A bounded number of images is read,
    however many there are; the same data set gives the same bytes.
    """
    from alexnet.shards.local_root import local_root
    from alexnet.tools.pages.contact_sheet import contact_png
    from alexnet.tools.pages.data_set import name_of_set, page, survey

    root = local_root(data, cache)
    html = (out or Path(f"{name_of_set(root)}.html")).absolute()
    _check_out(html, root, given=out is not None)
    png = html.with_suffix(".png")
    found = survey(root, images)
    for file, content in ((html, page(found).encode("utf-8", "backslashreplace")), (png, contact_png(found))):
        _write(file, content)
        tell(f"{file}: {len(content) / 1e6:,.1f} MB")


def _check_out(html: Path, data: Path, *, given: bool) -> None:
    """Refuse before the work what could not be written after it, and what would become part of the data set."""
    name = f"--out {html}" if given else str(html)
    if html.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{name}: must end in .html; the contact sheet goes beside it as .png")
    if not html.parent.is_dir() or not os.access(html.parent, os.W_OK) or html.is_dir():
        raise InputError(f"{name}: cannot be written; give a file in a folder that exists and is yours")
    if html.resolve().is_relative_to(data.resolve()):
        raise InputError(f"{name}: would be an extra file of the data set; give an --out outside of {data}")


def _write(file: Path, content: bytes) -> None:
    try:
        replace(file, content)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}; give another --out") from None
