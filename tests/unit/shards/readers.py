"""All that readers do with a data set."""

import itertools
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.augment import describe_lighting
from alexnet.shards.errors import InputError
from alexnet.shards.files import of_type
from alexnet.shards.manifest import Manifest, Split, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify import verify
from alexnet.tools.convert.earlier import changed_rejects, in_words, rejects_of
from alexnet.tools.pages.data_set import page, survey
from alexnet.tools.stored_jpeg import decode_stored
from alexnet.tools.use.run_files import DataRecord


def faults_of(root: Path, *, at_length: bool = False) -> Iterator[str]:
    """Do all that readers do with a data set; yield what did not end well, but for refusals in one line."""
    ways: dict[str, Callable[[], object]] = {
        "manifest": lambda: _use_manifest(read_manifest(root)),
        "train": lambda: _read_all(root, "train"),
        "val": lambda: _read_all(root, "val"),
        "stream": lambda: stream(root, steps=None if at_length else 1),
        "verify": lambda: verify(root, decode=decode_stored if at_length else None),
        "rejects": lambda: [in_words([entry]) for entry in changed_rejects(rejects_of(root), root)],
    }
    if at_length:
        ways["show"] = lambda: page(survey(root, 4))
    for name, way in ways.items():
        try:
            way()
        except InputError as error:
            if "\n" in str(error):
                yield f"{name}: in several lines: {error}"
        except Exception:
            yield f"{name}: {traceback.format_exc()}"


def _use_manifest(manifest: Manifest) -> None:
    """Have all that is done with a manifest be done."""
    assert read_manifest_of(manifest.to_json()) == manifest
    manifest.digest()
    record = DataRecord.of(manifest)
    assert of_type(msgspec.to_builtins(record), DataRecord) == record
    describe_lighting(AugmentSettings(), manifest.colour)
    assert all(value >= 0 for value in manifest.colour.channel_standard_deviations)


def read_manifest_of(text: str) -> Manifest:
    """Read a manifest from its text alone."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_text(text)
        return read_manifest(Path(folder))


def _read_all(root: Path, split: Split) -> None:
    reader = SplitReader(root, split)
    for sample_id in range(min(len(reader), 40)):
        reader.error(sample_id, str(len(reader.stored(sample_id))))
    reader.mean_image()


def stream(root: Path, steps: int | None = 1, **options: Any) -> list[tuple[Any, Any]]:
    """Return the first batches of the training split, or all, in order and not augmented."""
    augmentation = AugmentSettings(crop_px=32, mean="image")
    given: dict[str, Any] = {"batch_images": 8, "augment": False, "drop_last": False, **options}
    with ImageStream(root / "train", rank=0, world_size=1, threads=1, augmentation=augmentation, **given) as batches:
        return [(images.clone(), labels.clone()) for images, labels in itertools.islice(batches, steps)]
