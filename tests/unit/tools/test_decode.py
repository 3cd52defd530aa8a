"""Planes are those of each JPEG, the same bytes however they come about; what cannot be decoded is refused."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import available
from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.manifest import SPLITS, Split, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify import verify
from tests.conftest import digests, prep
from tests.planes import planes_of, write_planes_set
from tests.unit.shards.forging import problems, reseal, set_field

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.usefixtures("no_workers"),
]


@pytest.fixture
def jpegs(data_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_set, tmp_path / "set"))


def test_a_set_is_the_one_that_the_plainest_way_makes(jpegs: Path, tmp_path: Path) -> None:
    before = digests(jpegs)
    told = prep("decode", jpegs).output
    assert "24 train and 7 val images, planes of" in told
    assert "31 images in" in told
    assert digests(tmp_path / "set-planes") == digests(write_planes_set(jpegs, tmp_path / "plainly"))
    assert digests(jpegs) == before
    assert verify(tmp_path / "set-planes").passed
    assert "was already complete" in prep("decode", jpegs).output


@pytest.mark.parametrize("split", SPLITS)
def test_the_other_split_is_empty(jpegs: Path, tmp_path: Path, split: Split) -> None:
    out, both = tmp_path / "out", write_planes_set(jpegs, tmp_path / "both")
    prep("decode", jpegs, "--split", split, "--out", out)
    report = verify(out)
    assert report.passed, problems(report)
    made, whole = read_manifest(out), read_manifest(both)
    assert made.shards_of(split) == whole.shards_of(split)
    assert made.images_digest() == whole.images_digest()
    assert made.counts == {name: whole.counts[name] if name == split else made.counts[name] for name in SPLITS}
    assert sum(counts.input for counts in made.counts.values()) == whole.counts[split].input
    assert len((out / "rejected.jsonl").read_text().splitlines()) == made.counts[split].rejected
    message = prep("decode", jpegs, "--out", out, code=2).output
    assert "already holds the planes of another --split; give another --out, or --overwrite" in message
    prep("decode", jpegs, "--out", out, "--overwrite")
    assert digests(out) == digests(both)


def test_chosen_classes_are_a_data_set_of_their_own(jpegs: Path, tmp_path: Path) -> None:
    names, out = tmp_path / "names", tmp_path / "out"
    names.write_text("n00000003\n\nn00000001 crane\n")
    prep("decode", jpegs, "--classes", names, "--out", out)
    report = verify(out)
    assert report.passed, problems(report)
    made, sums = read_manifest(out), ColourSums(40)
    assert [record.wnid for record in made.classes] == ["n00000003", "n00000001"]
    assert made.images_digest() == made.digest() != read_manifest(jpegs).digest()
    for split in SPLITS:
        theirs, ours = SplitReader(jpegs, split), SplitReader(out, split)
        chosen = [i for i in range(len(theirs)) if theirs.labels[i] in (0, 2)]
        assert len(ours) == len(chosen) == made.counts[split].input
        for place, i in enumerate(chosen):
            assert ours.key(place) == f"{place:08d}_{theirs.key(i)[9:]}"
            assert ours.labels[place] == {2: 0, 0: 1}[theirs.labels[i]]
            assert ours.stored(place).tobytes() == planes_of(theirs.stored(i), 40).tobytes()
            if split == "train":
                sums.add(np.array(Image.open(io.BytesIO(theirs.stored(i).tobytes()))))
    assert made.colour == statistics_of(sums)
    assert np.array_equal(SplitReader(out, "train").mean_image(), sums.mean_image())


def test_grey_images_have_chroma_of_128(jpegs: Path, tmp_path: Path) -> None:
    for sample_id in range(24):
        exchange(jpegs, sample_id, encoded("L", quality=10))
    set_field("settings", "channels", to=1)(jpegs)
    reseal(jpegs)
    prep("decode", jpegs, "--split", "train")
    planes = SplitReader(tmp_path / "set-planes", "train").stored(7)
    assert len(set(planes[: 40 * 40].tolist())) > 1
    assert set(planes[40 * 40 :].tolist()) == {128}


def encoded(mode: str, **options: object) -> bytes:
    out = io.BytesIO()
    ramp = np.arange(1600, dtype=np.uint8).reshape(40, 40)
    Image.fromarray(ramp).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def exchange(root: Path, sample_id: int, jpeg: bytes) -> Path:
    """Put another JPEG in a training image's place, as long as that one by a comment; return its tar."""
    reader = SplitReader(root, "train")
    row = reader.rows(np.array([sample_id]))[0]
    comment = int(row["length"]) - len(jpeg) - 2
    assert comment >= 2
    tar = root / reader.shard(sample_id).file
    with tar.open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(jpeg[:2] + b"\xff\xfe" + comment.to_bytes(2) + bytes(comment - 2) + jpeg[2:])
    return tar


@pytest.mark.parametrize(
    ("jpeg", "message"),
    [
        (encoded("RGB", quality=10, subsampling="4:4:4"), "is not stored as 4:2:0; use these JPEGs as they are"),
        (encoded("RGB", quality=10)[:-150] + b"\xff\xd9", "`alexnet-prep verify --deep {}` names all that are damaged"),
    ],
)
def test_a_jpeg_that_has_no_planes_is_named(jpegs: Path, tmp_path: Path, jpeg: bytes, message: str) -> None:
    tar = exchange(jpegs, 13, jpeg)
    reseal(jpegs)
    key = SplitReader(jpegs, "train").key(13)
    told = prep("decode", jpegs, code=2).output
    assert told.startswith(f"Error: {tar}: sample 13 ({key}): ")
    assert message.format(jpegs) in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "set-planes" / "manifest.json").exists()


def test_jpegs_that_the_manifest_does_not_name_are_refused(jpegs: Path) -> None:
    tar = exchange(jpegs, 13, encoded("RGB", quality=10))
    told = prep("decode", jpegs, code=2).output
    assert f"Error: {tar}: its sha256 is not the one that the manifest gives; `alexnet-prep verify" in told


@pytest.mark.parametrize("file", ["mean_image.npy", "rejected.jsonl"])
def test_a_file_that_the_manifest_does_not_name_is_not_copied(jpegs: Path, file: str) -> None:
    with (jpegs / file).open("r+b") as opened:
        opened.seek(-2, os.SEEK_END)
        opened.write(b"x")
    assert f"{file}: is not the one that the manifest names" in prep("decode", jpegs, code=2).output


def test_what_is_no_data_set_of_jpegs_is_refused(jpegs: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in prep("decode", tmp_path / "nowhere", code=2).output
    assert f"lies in {jpegs}, which is read" in prep("decode", jpegs, "--out", jpegs / "out", code=2).output
    assert f"lies in {jpegs}, which is read" in prep("decode", jpegs, "--out", jpegs, "--overwrite", code=2).output
    (tmp_path / "link").symlink_to(jpegs)
    for out in (tmp_path / "link", tmp_path / "link" / "out"):
        assert f"lies in {jpegs}, which is read" in prep("decode", jpegs, "--out", out, "--overwrite", code=2).output
    assert verify(jpegs).passed
    planes = write_planes_set(jpegs, tmp_path / "planes")
    assert "holds planes already; give the data set of JPEGs" in prep("decode", planes, code=2).output
    (tmp_path / "names").write_text("n00000003\n")
    told = prep("decode", jpegs, "--classes", tmp_path / "names", "--split", "val", code=2).output
    assert "colour statistics need training images of them, and there are none" in told
    prep(
        "synth",
        tmp_path / "drawn",
        "--layout",
        "shards",
        "--classes",
        2,
        "--images",
        2,
        "--val-images",
        0,
        "--size",
        16,
    )
    told = prep("decode", tmp_path / "drawn", "--split", "val", code=2).output
    assert told == f"Error: --split val: {tmp_path}/drawn has no such images; leave it out, or give the other\n"


def test_no_folder_of_others_is_written_to(jpegs: Path, tmp_path: Path, data_set: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter").write_text("dear")
    for options, message in (((), "exists and is no data set"), (("--overwrite",), "so nothing was deleted")):
        assert message in prep("decode", jpegs, "--out", tmp_path / "out", *options, code=2).output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter"]
    prep("decode", jpegs)
    set_field("versions", "pillow", to="9")(jpegs)
    told = prep("decode", jpegs, code=2).output
    assert f"already holds the planes of other JPEGs than {jpegs} holds now" in told


def test_machines_are_told(jpegs: Path) -> None:
    events = [json.loads(line) for line in prep("decode", jpegs, "--json").output.splitlines()]
    assert [event["event"] for event in events] == ["progress", "progress", "complete"]
    assert events[-1]["images"] == {"train": 24, "val": 7}
    assert events[-1]["decoded"] == events[1]["done"] == events[1]["total"] == 31
