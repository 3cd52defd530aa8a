"""`_info.json`: which tars each split has, as timm's reader of WebDataset tars (`wds/`) asks for them."""

import json

from alexnet.shards.manifest import SPLITS, Manifest

INFO_NAME = "_info.json"


def info_json(manifest: Manifest) -> bytes:
    """Return the file's bytes, which follow from the manifest; a split without tars is left out."""
    splits = {}
    for split in SPLITS:
        if shards := manifest.shards_of(split):
            splits[split] = {
                "name": split,
                "filenames": [shard.file for shard in shards],
                "shard_lengths": [shard.images for shard in shards],
                "num_samples": manifest.counts[split].written,
            }
    return (json.dumps({"splits": splits}, indent=1) + "\n").encode()
