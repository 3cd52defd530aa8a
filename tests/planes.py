"""A data set of planes made from one of JPEGs in the plainest way: what `alexnet-prep decode` is compared with."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host import JpegPool
from alexnet.shards.index import IndexRows, write_index
from alexnet.shards.manifest import (
    FILES,
    INDEX_NAME,
    MANIFEST_NAME,
    SPLITS,
    ShardRecord,
    Split,
    SplitCounts,
    read_manifest,
)
from alexnet.shards.planes import planes_bytes
from alexnet.shards.reader import SplitReader
from alexnet.shards.writer import Sample, file_record, publish_shard, write_checksums, write_shard

NONE = SplitCounts(input=0, written=0, rejected=0)


def write_planes_set(jpegs: Path, out: Path, splits: Sequence[Split] = SPLITS) -> Path:
    """Decode a data set of JPEGs, or one split of it, in this process; return `out`."""
    manifest = read_manifest(jpegs)
    parts = [write_split(SplitReader(jpegs, split), out, split) for split in splits]
    for name in FILES:
        shutil.copyfile(jpegs / name, out / name)
    write_index(out / INDEX_NAME, [rows for split in parts for _, rows in split])
    planes = dataclasses.replace(
        manifest,
        settings={**manifest.settings, "encoding": "planes-420"},
        source={"kind": "planes of a data set", "digest": manifest.digest()},
        counts={split: count if split in splits else NONE for split, count in manifest.counts.items()},
        shards=tuple(record for split in parts for record, _ in split),
        files=tuple(file_record(out, name) for name in FILES),
    )
    (out / MANIFEST_NAME).write_text(planes.to_json())
    write_checksums(out)
    return out


def write_split(reader: SplitReader, out: Path, split: Split) -> list[tuple[ShardRecord, IndexRows]]:
    (out / split).mkdir(parents=True)
    written = []
    for number, shard in enumerate(reader.shards):
        samples = [
            Sample(
                place=int(reader.rows(np.array([i]))["place"][0]),
                stem=reader.key(i).split("_", 1)[1],
                label=int(reader.labels[i]),
                stored=planes_of(reader.stored(i), reader.manifest.size_px).tobytes(),
            )
            for i in range(len(reader))
            if reader.shard(i) == shard
        ]
        written.append(write_shard(out, split, number, samples, "yuv"))
        publish_shard(out, written[-1][0])
    return written


def planes_of(jpeg: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Decode one JPEG to planes: uint8 (n,)."""
    out = np.empty(planes_bytes(size_px, size_px), np.uint8)
    with JpegPool(1) as pool:
        assert not pool.decode_planes([jpeg], size=(size_px, size_px), out=out[None])
    return out
