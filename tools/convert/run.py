"""What `alexnet-prep shard` does once its command line is read: list the source, make the data set, and tell of it."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.pipeline.host.jpeg import available
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest
from alexnet.shards.order import shuffle_score
from alexnet.shards.reader import SplitReader
from alexnet.shards.url import as_url
from alexnet.tools.console import interruptible, tell
from alexnet.tools.convert.bucket import destination_of, folder_for
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.classes import order_notes, select_classes
from alexnet.tools.convert.earlier import changed_rejects, in_words, rejects_of
from alexnet.tools.convert.folder import INDEX, drop_index, is_begun, is_complete, refuse_early
from alexnet.tools.convert.known import archives_in, md5_notes, naming
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.pillow import describe_resizing, overwritten
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.source_files import SourceChangedError
from alexnet.tools.convert.sources import check_out, find_layout, open_source
from alexnet.tools.convert.sources.layout import Layout, Walk
from alexnet.tools.convert.staging import held_output
from alexnet.tools.output_folder import beside
from alexnet.tools.progress import Amount, progress, say, shown


@dataclass(frozen=True, kw_only=True)
class ShardOptions(BuildOptions):
    """Hold the command line as given; None where an option was left out."""

    out: Path | None
    train: tuple[str, ...]
    val: tuple[str, ...]
    classes: Path | None
    size_px: int | None
    quality: int
    shard_images: int
    seed: int
    md5: bool
    as_json: bool
    cache: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "ray" and self.out and as_url(self.out):
            raise InputError("--engine ray: its workers reach no staging folder; give --out a folder that all see")

    def settings(self, native_px: int | None) -> ConvertSettings:
        """Return what shapes the bytes, of a source whose images may all have one size."""
        size_px = (native_px or ConvertSettings().size_px) if self.size_px is None else self.size_px
        return ConvertSettings(
            size_px=size_px,
            quality=self.quality,
            shard_images=self.shard_images,
            seed=self.seed,
            class_order="sorted" if self.classes is None else "as listed",
        )


def run_shard(source: Path, options: ShardOptions) -> None:
    """Convert a source as the command line says. Raises InputError and ConversionError; SystemExit when interrupted."""
    how = ", without --overwrite if it had begun to convert" if options.overwrite else ""
    with interruptible(f"interrupted; the same command continues{how}"):
        message = slowness()
        if message and options.as_json:
            say(event="warning", message=message)
        elif message:
            tell(f"warning: {message}", err=True)
        if url := as_url(source):
            raise InputError(f"{url}: SOURCE is read from a folder; copy it to one")
        source = source.absolute()
        layout = find_layout(source, options.train, options.val)
        settings = options.settings(layout.size_px)
        root = folder_for(options.out or beside(source, f"-{settings.size_px}"), options.cache)
        check_out(layout, root)
        with held_output(root, overwrite=options.overwrite) as check:
            refuse_early(root, settings.as_manifest(), overwrite=options.overwrite)
            _convert(layout, root, settings, options, check)


def slowness() -> str | None:
    """Return what to tell the user where plain Pillow overwrote pillow-simd or no host decoder is there, else None."""
    why = available()
    blind = why and f"JPEGs that were cut short and closed again are not noticed, as {why}"
    return "; ".join(filter(None, (overwritten(), blind))) or None


def _convert(
    layout: Layout, root: Path, settings: ConvertSettings, options: ShardOptions, check: Callable[[], None]
) -> None:
    """List the source and convert it; list it anew where the index that an earlier call kept proves outdated."""
    cache = None if options.overwrite or is_complete(root) else root / INDEX  # it would go with the rest
    outdated = cache is not None and cache.exists()  # perhaps
    while True:
        try:
            source = _listed(layout, root, cache, options)
            if not options.as_json:
                tell(describe_resizing())
            convert(source, root, settings, options, check, as_json=options.as_json)
            return
        except SourceChangedError:
            drop_index(root)
            if not outdated:
                raise
            outdated = False
        except InputError:
            if not is_begun(root):  # no more is there than the list of the source, if that
                drop_index(root)
            raise


def _listed(layout: Layout, root: Path, cache: Path | None, options: ShardOptions) -> Source:
    """List the source, and say what it is; `cache`: where its index is kept."""
    if not options.as_json:
        tell(f"reading the headers of {layout.root} ...")
    mended = changed_rejects(rejects_of(root), layout.root) if cache else []
    if mended:
        drop_index(root)
    with progress(as_json=options.as_json) as view:
        source = open_source(layout.root, cache, view.update, layout)
    notes = order_notes(source) if options.classes is None else ()
    if options.classes is not None:
        source = select_classes(source, options.classes)
    if mended:
        notes = (*notes, f"changed since an earlier call, and tried again: {in_words(mended)}")
    if options.md5:
        notes = (*notes, *_md5(layout.root, options))
    source = dataclasses.replace(source, notes=(*source.notes, *notes))
    tell_source(source, as_json=options.as_json)
    return source


def _md5(source: Path, options: ShardOptions) -> tuple[str, ...]:
    archives = archives_in(source)
    with progress(as_json=options.as_json) as view:
        walk = Walk(view.update)
        walk.begin("md5", "bytes", sum(path.stat().st_size for path in archives))
        notes = md5_notes(archives, walk.advance)
        walk.end()
    return notes or (f"--md5: none of the official archives is in {source}",)


def tell_source(source: Source, *, as_json: bool) -> None:
    """Tell what a source is, which labels it gives, and what is odd about it."""
    if as_json:
        say(
            event="source",
            kind=source.kind,
            classes=len(source.classes),
            entries={split: len(members) for split, members in source.members.items()},
            label_order=source.label_order,
            notes=source.notes,
            ignored=source.ignored,
        )
        return
    tell(f"found: {source.description}")
    tell(f"labels: {source.label_order}")
    for note in source.notes:
        tell(f"note: {note}")
    if source.ignored:
        tell(f"ignored: {source.ignored:,} entries that are no regular files, or junk")


def convert(
    source: Source,
    root: Path,
    settings: ConvertSettings,
    options: BuildOptions,
    check: Callable[[], None],
    *,
    as_json: bool,
) -> None:
    """Make the data set, or find that it is there; show how far it is meanwhile, and tell what came of it.

    `check` raises if the folder is not to be written to any more.
    """
    started, told = time.perf_counter(), list[Amount]()
    with progress(as_json=as_json) as view:
        manifest = build(source, root, settings, options, shown(view, check, told))
    seconds = time.perf_counter() - started if told else None
    if not as_json:
        for line in _lines(root, manifest, seconds, told):
            tell(line)
        return
    score, ideal = shuffle_score(SplitReader(root, "train").labels)
    say(
        event="complete",
        root=destination_of(root),
        counts={split: dataclasses.asdict(counts) for split, counts in manifest.counts.items()},
        shuffle={"score": round(score, 1), "ideal": round(ideal, 1)},
        seconds=None if seconds is None else round(seconds, 3),
    )


def _lines(root: Path, manifest: Manifest, seconds: float | None, told: list[Amount]) -> Iterator[str]:
    """Yield what people are told at the end. `seconds`: None if all was there. `told`: the first amount, and the last.

    Raises InputError, behind the counts, if a shard of a finished data set is gone.
    """
    for split, c in manifest.counts.items():
        yield f"{split}: {c.input:,} in = {c.written:,} written + {c.rejected:,} rejected"
    mean, deviations = (
        ", ".join(f"{value:.2f}" for value in values)
        for values in (manifest.colour.mean, manifest.colour.standard_deviations)
    )
    yield f"mean RGB {mean}; standard deviations along the axes {deviations}"
    labels, place = SplitReader(root, "train").labels, destination_of(root)
    score, ideal = shuffle_score(labels)
    window = min(256, len(labels))
    yield f"shuffle: {score:.1f} classes in {window} consecutive images; a perfect shuffle has {ideal:.1f}"
    if any(c.rejected for c in manifest.counts.values()):
        yield f"rejected images and why: {place}/rejected.jsonl"
    images = np.bincount(labels, minlength=len(manifest.classes))
    empty = [record.wnid for record, n in zip(manifest.classes, images, strict=True) if n == 0]
    if note := naming("class has", "classes have", " no training image in the data set", empty):
        yield f"note: {note}"
    yield f"{place} was already complete; nothing to do" if seconds is None else _speed(place, manifest, seconds, told)


def _speed(place: str, manifest: Manifest, seconds: float, told: list[Amount]) -> str:
    """Count the images of this call only: those of an earlier one took their time then."""
    resumed, shards = told[0].done, len(manifest.shards)
    images = told[-1].done - resumed
    complete = f"{place} is complete: {shards:,} shard{'s' if shards > 1 else ''}; "
    if not images:
        return f"{complete}all images were converted by an earlier call"
    earlier = f" ({resumed:,} more by an earlier call)" if resumed else ""
    return f"{complete}{images:,} images{earlier} in {seconds:,.1f} s, {images / seconds:,.0f} images/s"
