"""`_info.json` leads timm's reader of WebDataset tars to every sample. It is read here as that reads it."""

import json
import tarfile
from pathlib import Path

from alexnet.shards.info import INFO_NAME, info_json
from alexnet.shards.manifest import read_manifest
from alexnet.shards.verify import verify
from alexnet.shards.writer import write_checksums
from tests.unit.shards.forging import problems


def test_every_sample_is_found_by_it(data_set: Path, ci_100: Path) -> None:
    for root in (data_set, ci_100):
        splits = json.loads((root / INFO_NAME).read_text())["splits"]
        for name, counts in read_manifest(root).counts.items():
            split, images = splits[name], []
            for file in split["filenames"]:
                with tarfile.open(root / file) as tar:
                    images.append(sum(member.name.endswith(".jpg") for member in tar))
            assert split["name"] == name
            assert split["shard_lengths"] == images
            assert split["num_samples"] == sum(images) == counts.written


def test_a_set_without_it_is_sound_and_one_of_another_set_is_not(copy: Path, ci_100: Path) -> None:
    (copy / INFO_NAME).write_bytes((ci_100 / INFO_NAME).read_bytes())
    write_checksums(copy)
    assert problems(verify(copy)) == f"{INFO_NAME}: does not say which tars the manifest has, with how many images"
    (copy / INFO_NAME).unlink()
    assert f"{INFO_NAME}: is missing" in problems(verify(copy))  # SHA256SUMS lists it
    write_checksums(copy)
    assert problems(verify(copy)) == ""
    (copy / INFO_NAME).write_bytes(info_json(read_manifest(copy)))
    assert f"does not list {INFO_NAME}" in problems(verify(copy))
