"""Keep a source's index in one file, so that 14 million headers are read once and not on every start.

The file is NumPy's npz without pickles: the columns as they are, everything else as JSON. It is good only for the key
it was made with; a torn or foreign file is taken for none.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.files import replacing
from alexnet.shards.manifest import SPLITS, ClassRecord
from alexnet.tools.convert.listing import Listing, Source

_FIELDS = ("kind", "encoding", "packing", "channels", "size_px", "label_order", "description", "notes", "ignored")


def load_index(path: Path, key: str, root: Path) -> Source | None:
    """Return the source that was kept under this key, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(file["text"].tobytes())
            if text["key"] != key:
                return None
            fields = {**text["fields"], "notes": tuple(text["fields"]["notes"])}
            return Source(
                root=root,
                classes=tuple(ClassRecord(**record) for record in text["classes"]),
                members={
                    split: Listing(
                        containers=tuple(text["containers"][split]),
                        in_folders=text["in_folders"][split],
                        **{column: file[f"{split}.{column}"] for column in text["columns"]},
                    )
                    for split in SPLITS
                },
                **fields,
            )
    except Exception:  # zip, npy and JSON raise whatever they trip over; none of it matters: the source is there
        return None


def save_index(path: Path, key: str, source: Source) -> None:
    """Keep a source's index; it is whole or not there. A disk that is full or read-only costs only the next start."""
    listings = {split: source.listing(split) for split in SPLITS}
    text = {
        "key": key,
        "fields": {field: getattr(source, field) for field in _FIELDS},
        "classes": [asdict(record) for record in source.classes],
        "containers": {split: listing.containers for split, listing in listings.items()},
        "in_folders": {split: listing.in_folders for split, listing in listings.items()},
        "columns": list(listings["train"].arrays()),
    }
    arrays: dict[str, npt.NDArray[Any]] = {"text": np.frombuffer(json.dumps(text).encode(), np.uint8)}
    for split, listing in listings.items():
        arrays |= {f"{split}.{column}": array for column, array in listing.arrays().items()}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
