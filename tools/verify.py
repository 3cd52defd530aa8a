"""`alexnet-prep verify`: say whether a data set is what it was when it was written, file by file."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import click

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.shards.resources import usable_cores
from alexnet.shards.url import as_url
from alexnet.shards.verify import Verification
from alexnet.shards.verify import verify as verify_data_set
from alexnet.shards.verify_files import FolderFiles
from alexnet.shards.verify_shard import DecodeStored
from alexnet.tools.console import interruptible, one_line_errors, storage_options, tell
from alexnet.tools.progress import Amount, progress, say


@click.command()
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Also decode every image and recompute the colour statistics.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="JPEGS",
    help="Of planes: also compare each with what its JPEG in this data set decodes to.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; the findings do not depend on it.  [default: cores]"
)
@click.option("--json", "as_json", is_flag=True, help="Print events for machines, one JSON object a line.")
@storage_options
@one_line_errors
def verify(data: Path, deep: bool, against: Path | None, workers: int | None, as_json: bool) -> None:
    """Check the data set DATA, a folder or a URL: every byte of every file, and that its parts agree with each other.

    Sizes and sha256 against the manifest and SHA256SUMS; missing and extra files; the index and the DALI index files
    against the tars; labels, keys and counts; with --deep also the pixels. One line a finding. Nothing is changed.
    Objects below a URL are fetched, small ones for as long as it takes, and a shard a worker; TMPDIR says where to.

    A bar in a terminal, or a line every 30 seconds, says how far it is. With --json there are events instead: progress
    each second, each finding, and at last what was checked.

    The exit code is 0 if all is well, 1 if something was found, 2 if DATA cannot be checked, 130 if stopped.
    """
    with (
        interruptible("interrupted; nothing was changed"),
        progress(as_json=as_json, stream=sys.stdout if as_json else sys.stderr) as view,
    ):
        try:
            report, compared = _verified(data, deep, against, workers or usable_cores(), view.update)
        except PermissionError as error:
            raise InputError(f"{error.filename or data}: {error.strerror}; all of {data} must be readable") from None
    if as_json:
        _say(report, deep)
    else:
        for finding in report.findings:
            click.echo(str(finding))
        tell(_summary(report, deep, against if compared else None))
    if not report.passed:
        sys.exit(1)


def _verified(
    data: Path, deep: bool, against: Path | None, workers: int, on_progress: Callable[[Amount], None]
) -> tuple[Verification, bool]:
    """Return what was found, and whether it was compared, too."""
    from alexnet.tools.decode.compare import compare, plan_comparison  # what decodes is not loaded for other commands

    if against and (url := as_url(data) or as_url(against)):
        raise InputError(f"--against: is for data sets in folders, and {url} is none; leave it out")
    plan = plan_comparison(data, against) if against else None
    with _files_of(data) as files:
        report = verify_data_set(
            files,
            decode=_decoder(files.root) if deep else None,
            workers=workers,
            on_progress=lambda done, total: on_progress(Amount(event="progress", done=done, total=total, unit="bytes")),
        )
    if not plan or not report.passed:  # what is damaged is named already
        return report, False
    report.found.merge(compare(data, plan, workers, on_progress))
    return report, True


def _files_of(data: Path) -> AbstractContextManager[FolderFiles]:
    url = as_url(data)
    if url is None:
        return nullcontext(FolderFiles(data))
    from alexnet.shards.verify_objects import objects_below  # what needs a network is loaded for a URL

    return objects_below(url)


def _decoder(data: Path) -> DecodeStored:
    """Return what decodes what is stored there: planes where the manifest can be read and says so."""
    from alexnet.tools.stored_jpeg import decode_stored
    from alexnet.tools.stored_planes import decode_planes

    with suppress(InputError):
        stored = read_manifest(data).stored
        if stored.encoding != "jpeg":
            return functools.partial(decode_planes, stored=stored)
    return decode_stored


def _say(report: Verification, deep: bool) -> None:
    """Tell machines: an event a finding, and one that ends it."""
    for finding in report.findings:
        say(event="finding", **dataclasses.asdict(finding))
    say(
        event="complete",
        data_set=Path(report.place.name).absolute().name,
        deep=deep,
        passed=report.passed,
        findings=len(report.findings),
        files=report.files,
        bytes=report.bytes,
        shards=report.shards,
        images=report.images,
        decoded=report.decoded,
        seconds=round(report.seconds, 3),
    )


def _summary(report: Verification, deep: bool, against: Path | None) -> str:
    images = " and ".join(f"{count:,} {split}" for split, count in report.images.items())
    counted = f"{images} images in {report.shards:,} shard{'s' if report.shards != 1 else ''}"
    inside = counted if report.shards else "shards not looked into"  # without a manifest they are compared as files
    looked = f"{report.decoded:,} images decoded" if deep else "pixels not looked at (--deep does)"
    looked += f", compared with {against}" if against else ""
    looked += "" if report.place.lists else ", extra files not looked for (http has no lists)"
    speed = report.bytes / 1e6 / max(report.seconds, 1e-9)
    found = len(report.findings)
    return (
        f"{report.place.name}: {inside}; {report.files:,} files, {report.bytes / 1e6:,.1f} MB "
        f"checked in {report.seconds:,.1f} s ({speed:,.0f} MB/s), {looked}: "
        + ("all is well" if report.passed else f"{found} finding{'s' if found > 1 else ''}")
    )
