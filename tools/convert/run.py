"""What `alexnet-prep shard` does once its command line is read: open the source, build, and tell people about it."""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from alexnet.shards.manifest import Manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.shuffle import shuffle_score
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.claim import index_cache, is_complete, locked
from alexnet.tools.convert.known import md5_notes
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.progress import ProgressView, progress_view
from alexnet.tools.convert.sources import native_size_px, open_source

_INTERRUPTED = 130
_SHUFFLE_WINDOW = 256


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Hold the command line as given; None where an option was left out."""

    out: Path | None
    size_px: int | None
    quality: int
    shard_images: int
    seed: int
    workers: int | None
    on_error: str
    max_rejected: int | None
    engine: str
    address: str | None
    overwrite: bool
    md5: bool
    as_json: bool

    def settings(self, native_px: int | None) -> ConvertSettings:
        """Return what shapes the bytes."""
        size_px = self.size_px or native_px or ConvertSettings().size_px
        return ConvertSettings(size_px=size_px, quality=self.quality, shard_images=self.shard_images, seed=self.seed)

    def build_options(self) -> BuildOptions:
        """Return what does not."""
        return BuildOptions(
            workers=self.workers or len(os.sched_getaffinity(0)),
            on_error="fail" if self.on_error == "fail" else "reject",
            max_rejected=self.max_rejected,
            engine="ray" if self.engine == "ray" else "local",
            ray_address=self.address,
            overwrite=self.overwrite,
        )


def run_shard(source: Path, options: ShardOptions) -> None:
    """Convert a source as the command line says. Raises InputError and ConversionError; SystemExit when interrupted."""
    source = source.absolute()
    settings = options.settings(native_size_px(source))
    root = options.out or source.with_name(f"{source.name}-{settings.size_px}")
    say = _silent if options.as_json else click.echo
    started = time.perf_counter()
    with _interruptible(options) as view, locked(root):
        already = is_complete(root) and not options.overwrite
        say(f"reading the headers of {source} ...")
        found = open_source(source, index_cache(root))
        for line in _description(found, md5_notes(source) if options.md5 else ()):
            say(line)
        manifest = build(found, root, settings, options.build_options(), view.update)
    seconds = None if already else time.perf_counter() - started
    if options.as_json:
        counts = {split: dataclasses.asdict(c) for split, c in manifest.counts.items()}
        click.echo(json.dumps({"event": "complete", "root": str(root), "counts": counts, "seconds": seconds}))
    else:
        _report(root, manifest, seconds)


def _silent(_: str) -> None:
    """Say nothing: machines get events instead."""


class _LazyView:
    """Start the progress view with the first progress, so that no bar stands there while headers are read."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._view: ProgressView | None = None

    def update(self, progress: Progress) -> None:
        if self._view is None:
            self._view = progress_view(as_json=self._as_json)
        self._view.update(progress)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()


@contextmanager
def _interruptible(options: ShardOptions) -> Iterator[_LazyView]:
    """Turn Ctrl-C and SIGTERM into one line and exit code 130, and leave the screen clean in any case."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    view = _LazyView(as_json=options.as_json)
    try:
        yield view
    except KeyboardInterrupt:
        view.close()
        click.echo("interrupted; the same command continues", err=True)
        raise SystemExit(_INTERRUPTED) from None
    finally:
        view.close()


def _description(found: Source, md5_lines: tuple[str, ...]) -> list[str]:
    lines = [f"found: {found.description}", f"labels: {found.label_order}"]
    lines += [f"note: {note}" for note in (*found.notes, *md5_lines)]
    if found.ignored:
        lines.append(f"ignored: {found.ignored:,} entries that are no regular files, or junk")
    return lines


def _report(root: Path, manifest: Manifest, seconds: float | None) -> None:
    for split, c in manifest.counts.items():
        click.echo(f"{split}: {c.input:,} in = {c.written:,} written + {c.rejected:,} rejected")
    colour = manifest.colour
    click.echo(f"mean RGB {_row(colour.mean)}; standard deviations along the axes {_row(colour.standard_deviations)}")
    labels = SplitReader(root, "train").labels
    window = min(_SHUFFLE_WINDOW, len(labels))
    score, ideal = shuffle_score(labels, window)
    click.echo(f"shuffle: {score:.1f} classes in {window} consecutive images; a perfect shuffle has {ideal:.1f}")
    if any(c.rejected for c in manifest.counts.values()):
        click.echo(f"rejected images and why: {root / 'rejected.jsonl'}")
    if seconds is None:
        click.echo(f"{root} was already complete; nothing to do")
    else:
        images = sum(c.input for c in manifest.counts.values())
        click.echo(f"{root} is complete: {len(manifest.shards)} shards, {images / seconds:,.0f} images/s")


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)
