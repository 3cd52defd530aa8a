"""WebDataset's tars: files that share a key are one sample, an image with its label in `KEY.cls` or `KEY.json`.

What belongs together and how labels are written is the webdataset library's to say. No image is read: samples are
grouped by the headers alone, and then one seek a sample reads each label.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.tools.convert.known import naming
from alexnet.tools.convert.listing import Entry, Listing, Rows, Source
from alexnet.tools.convert.sources.first_bytes import spread
from alexnet.tools.convert.sources.layout import Layout, Stage, Walk
from alexnet.tools.convert.sources.names import left_out, printed, split_word, wnid_on_way
from alexnet.tools.convert.sources.numbered import NumberedClasses, numbered_source, refuse_twice
from alexnet.tools.convert.sources.tables import table_text, word_files
from alexnet.tools.convert.sources.tar_files import ImageTar, begins_with_samples, find_tars, image_tars, without_tests
from alexnet.tools.convert.sources.tars import Tar, list_tar

NAME_LISTS = ("classnames.txt", "classes.txt")
"""Files of a class's name a line, the first that of label 0."""
_IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jp2"))
_LABELS = ("cls", "json")
_LABEL_FIELDS = ("label", "cls")  # of a KEY.json
_PLACE = re.compile(r"^\d{8}_")  # which keys of a data set of this project begin with
_MOST_BYTES = 1 << 20  # of a label: a number, or a few fields

Sample = Mapping[str, Any]
"""As webdataset groups them: `__key__`, and an entry of the tar by each ending in lower case."""


def find(root: Path) -> Layout | None:
    """Recognise tars by labels beside images at the beginning of some of them."""
    found = find_tars(root)
    if found is None or not any(begins_with_samples(Tar.of(root / name)) for name in spread(found[0])):
        return None
    tars, beside = found
    files = (*(root / name for name in tars), *word_files(root), *_name_lists(root))
    return Layout(kind="webdataset", root=root, files=files, read=partial(_read, root, tars, beside))


def _name_lists(root: Path) -> list[Path]:
    return [path for name in NAME_LISTS if (path := root / name).is_file()]


def _read(root: Path, files: Sequence[str], beside: Sequence[str], walk: Walk) -> Source:
    tars = [_with_split(tar) for tar in image_tars(root, files, walk)]
    tars, unread = without_tests(tars)
    lists = _name_lists(root)[:1]
    classes = NumberedClasses([line.strip() for path in lists for line in table_text(path).rstrip().splitlines()])
    train = [tar for tar in tars if tar.split in (None, "train")]
    val = [tar for tar in tars if tar not in train]
    members: dict[Split, Listing] = {
        "train": _listing(train, "train", classes, walk).ordered(by_label=True),
        "val": _listing(val, "val", classes, walk).ordered(by_label=False),
    }
    for listing in members.values():
        refuse_twice(root, listing)
    unread += map(printed, beside)
    said = naming("tar has", "tars have", " the validation images", [tar.file for tar in val])
    notes = [said or "no validation images: no tar is called val"]
    notes.append(naming("tar is", "tars are", " missing, by the numbers of the others", left_out(files)))
    notes += [naming("thing is", "things are", " not read", unread), *walk.notes()]
    source = numbered_source("WebDataset tars", root, "webdataset", classes, members, notes)
    return replace(source, ignored=walk.ignored)


def _with_split(tar: ImageTar) -> ImageTar:
    """Return a tar with the split that its own name says, where none lies beside it to be surer."""
    return replace(tar, split=tar.split or split_word(tar.names[-1]))


def _listing(tars: Sequence[ImageTar], stage: Stage, classes: NumberedClasses, walk: Walk) -> Listing:
    """List the samples of some tars, in the order of these."""
    if tars:
        walk.begin(stage, "bytes", sum(tar.length for tar in tars))
    return Listing.of(row for tar in tars for row in _rows(tar, classes, walk))


def _rows(tar: ImageTar, classes: NumberedClasses, walk: Walk) -> Iterator[Rows]:
    """Yield the samples of one tar, whose entries alone are held meanwhile."""
    with tar.path.open("rb") as file:
        for sample in _samples(tar, list_tar(tar, walk)):
            images = [ending for ending in sample if ending.rpartition(".")[2] in _IMAGES]
            if not images and not any(ending in sample for ending in _LABELS):
                walk.ignored += 1
                continue
            try:
                if len(images) != 1:
                    raise ValueError(f"has {' and '.join(images) or 'a label and no image'}, and must have one image")
                label = classes.add(*_told(sample, file))
            except ValueError as error:
                raise InputError(
                    f"{tar.where}: sample {printed(sample['__key__'])!r}: {error}; mend the tar, or move it away"
                ) from None
            name, at, length = sample[images[0]]
            yield label, tar.file, [(name.rpartition(b"/")[2], at, length)]


def _samples(tar: ImageTar, entries: Sequence[Entry]) -> Iterator[Sample]:
    """Group the files of a tar as webdataset does: those that lie side by side under one key."""
    from webdataset.tariterators import group_by_keys  # brings torch: a second

    files = ({"fname": os.fsdecode(entry[0]), "data": entry, "__url__": tar.name} for entry in entries)
    try:
        yield from group_by_keys(files)
    except ValueError as error:
        raise InputError(f"{tar.where}: {error.args[0]}; name each file once, whatever its case") from None


def _told(sample: Sample, file: IO[bytes]) -> tuple[object, str | None]:
    """Return a sample's label, and the name of its class if it has one. Raises ValueError if it has none, or two."""
    found = {ending: _decoded(file, ending, sample[ending]) for ending in _LABELS if ending in sample}
    fields = found.pop("json", None)
    fields = fields if isinstance(fields, dict) else {}
    said = [*found.values(), *(fields[name] for name in _LABEL_FIELDS if name in fields)]
    if not said:
        raise ValueError(f"has no label: neither a .cls nor one of {', '.join(_LABEL_FIELDS)} in a .json beside it")
    if any(label != said[0] for label in said):
        raise ValueError(f"is labelled {' and '.join(str(label)[:40] for label in said)}")
    return said[0], _class_name(sample["__key__"], fields)


def _class_name(key: str, fields: Mapping[str, Any]) -> str | None:
    """Return the WNID that a sample's fields or key carry, or the name that its fields say."""
    texts = {name: text for name in ("wnid", "class_name", "filename") if isinstance(text := fields.get(name), str)}
    names = [text for name, text in texts.items() if name != "filename"]
    key = _PLACE.sub("", key)
    ways = [f"{text}/" for text in names] + [texts.get("filename", ""), f"{key}."]
    wnid = next(filter(None, map(wnid_on_way, ways)), None)
    return wnid or next((printed(text) for text in names if text), None)


def _decoded(file: IO[bytes], ending: str, entry: Entry) -> Any:
    """Return what one file of a sample says, as webdataset decodes it. Raises ValueError."""
    from webdataset.autodecode import decoders

    _, at, length = entry
    if length > _MOST_BYTES:
        raise ValueError(f"its .{ending} has {length:,} bytes, and is no label")
    file.seek(at)
    try:
        return decoders[ending](file.read(length))
    except (ValueError, RecursionError) as error:  # the latter of nested JSON
        raise ValueError(f"its .{ending} cannot be read ({error})") from None
