"""Tars that webdataset wrote become a data set where they lie: every command takes it, and no byte of them changes."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

import alexnet.tools.adopt.build as adopting
from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.shards.info import INFO_NAME, info_json
from alexnet.shards.manifest import Manifest, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.writer import write_checksums
from alexnet.tools.adopt.shard import adopt_tar
from alexnet.tools.output_folder import WORK
from tests.conftest import digests, encode_picture, prep

SIZE = 40
CLASSES = 3
TARS = {"set-train-0000": 14, "set-train-0001": 9, "set-train-0002": 11, "set-validation-0000": 7}


def jpeg(seed: int, width: int = SIZE, height: int = SIZE, **options: Any) -> bytes:
    return encode_picture(seed, width, height, quality=90, **{"subsampling": seed % 3, **options})


def write_tars(root: Path) -> dict[str, list[tuple[str, bytes, int]]]:
    """Write tars of samples, with metadata beside; return key, JPEG and label of each, by tar."""
    root.mkdir(parents=True)
    written: dict[str, list[tuple[str, bytes, int]]] = {}
    for seed, (name, images) in enumerate(TARS.items()):
        ending = "jpeg" if seed == 1 else "jpg"
        written[name] = [(f"{name}/{i:09d}", jpeg(100 * seed + i), (seed + i) % CLASSES) for i in range(images)]
        with webdataset.TarWriter(str(root / f"{name}.tar")) as tar:
            for key, image, label in written[name]:
                tar.write({"__key__": key, ending: image, "cls": f"{label}", "json": b'{"width": 40}'})
    return written


pytestmark = pytest.mark.usefixtures("no_workers")


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    write_tars(tmp_path / "set")
    return tmp_path / "set"


def test_tars_are_a_data_set_where_they_lie(tmp_path: Path) -> None:
    root = tmp_path / "set"
    written = write_tars(root)
    (root / "README.md").write_text("by others")
    before = digests(root)
    output = prep("adopt", root).output
    assert "34 train and 7 val images, 40 px, in 4 tars" in output
    after = digests(root)
    assert before.items() <= after.items()
    assert prep("verify", root, "--deep").output.endswith("all is well\n")
    assert "nothing to do" in prep("adopt", root).output
    assert digests(root) == after
    for split, parts in (("train", 3), ("val", 1)):
        reader = SplitReader(root, split)  # type: ignore[arg-type]
        samples = [
            sample for name in sorted(written) if ("train" in name) == (split == "train") for sample in written[name]
        ]
        assert len(reader.shards) == parts
        assert [(s.key, s.stored, s.label) for s in map(reader.sample, range(len(reader)))] == samples
    pixels = np.stack([_pixels(image) for name, of in written.items() if "train" in name for _, image, _ in of])
    colour = read_manifest(root).colour
    np.testing.assert_allclose(colour.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-11)
    np.testing.assert_allclose(np.load(root / "mean_image.npy"), pixels.mean(axis=0), rtol=1e-6)


def _pixels(image: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def test_index_files_are_those_of_dali(tars: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    prep("adopt", tars)
    for name in TARS:
        command = [sys.executable, "-m", "wds2idx", str(tars / f"{name}.tar"), str(tmp_path / "idx")]
        subprocess.run(command, check=True, capture_output=True)
        assert (tars / f"{name}.idx").read_bytes() == (tmp_path / "idx").read_bytes()


@pytest.mark.parametrize("order", ["global", "blocks"])
def test_the_stream_yields_the_crops_that_pillow_decodes_and_resumes_on_other_ranks(tars: Path, order: Any) -> None:
    prep("adopt", tars)
    options: dict[str, Any] = {"seed": 5, "output": "uint8", "augmentation": AugmentSettings(crop_px=32)}
    options["settings"] = StreamSettings(decode="host", order=order)
    with ImageStream(tars / "train", batch_images=8, **options) as stream:
        batches = iter(stream)
        for step in range(2):
            images, labels = next(batches)
            plan = stream.plan(0, step)
            for row, sample_id in enumerate(plan.sample_ids.tolist()):
                sample = stream.sample(sample_id)
                y, x = plan.crop_yx[row]
                crop = _pixels(sample.stored)[y : y + 32, x : x + 32]
                crop = crop[:, ::-1] if plan.mirror[row] else crop
                assert np.array_equal(images[row].numpy().transpose(1, 2, 0), crop)
                assert labels[row] == sample.label
        state = json.loads(json.dumps(stream.state()))
        wanted = next(batches)[1].tolist()
    found: list[int] = []
    for rank in range(2):
        with ImageStream(tars / "train", batch_images=8, rank=rank, world_size=2, **options) as stream:
            stream.resume(state)
            found += next(iter(stream))[1].tolist()
    assert sorted(found) == sorted(wanted)


def test_planes_are_decoded_of_it_where_it_is_4_2_0(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name, first in (("train-0", 0), ("train-1", 5), ("val-0", 8)):
        with webdataset.TarWriter(str(root / f"{name}.tar")) as tar:
            for i in range(first, first + 5 - first // 5):
                tar.write({"__key__": f"a/{i}+b" + "c" * 60, "jpg": jpeg(i, subsampling=2), "cls": f"{i % 3}"})
    prep("adopt", root)
    prep("decode", root)
    planes = tmp_path / "set-planes"
    assert "all is well" in prep("verify", planes, "--deep", "--against", root).output
    assert (planes / "train" / "000001.tar").is_file()


def test_a_flipped_byte_is_found_and_another_length_refused(tars: Path) -> None:
    prep("adopt", tars)
    tar = tars / "set-train-0001.tar"
    data = bytearray(tar.read_bytes())
    data[5000] ^= 1
    tar.write_bytes(data)
    assert "set-train-0001.tar" in prep("verify", tars, code=1).output
    data[5000] ^= 1
    tar.write_bytes(bytes(data[:5120]) + bytes(data[5632:]))
    assert "bytes where the manifest says" in prep("adopt", tars, code=2).output
    tar.write_bytes(data)
    (tars / "more.txt").write_text("x")
    assert "more.txt: is no file of this data set" in prep("verify", tars, code=1).output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: line.replace("1536", "9" * 30), "beyond any tar"),
        (lambda line: line.replace("1536", "0"), "before the first header"),
        (lambda line: line.replace("1536", "1024"), "no header lies before"),
        (lambda line: line.replace("1536 1 ", "1536 2 "), "another kind or length"),
        (lambda line: line.replace("cls", "txt"), "has not all of its name"),
        (lambda line: line + " x", "is an extension, an offset, a length and a name"),
        (lambda line: "", "holds 13 samples where the manifest says 14"),
    ],
)
def test_an_index_file_that_was_forged_is_held_against_the_tar(change: Any, said: str, tars: Path) -> None:
    prep("adopt", tars)
    index = tars / "set-train-0000.idx"
    head, first, *rest = index.read_text().splitlines()
    index.write_text("".join(f"{line}\n" for line in (head, change(first), *rest) if line))
    write_checksums(tars)
    assert said in prep("verify", tars, code=1).output


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_an_interrupted_adoption_goes_on(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def killed(job: Any, counts: Any) -> None:
        if len(done) == 2:
            full()
        adopt_tar(job, counts)
        done.append(job.tar.file)

    monkeypatch.setattr(adopting, "adopt_tar", killed)
    assert "give the same command again" in prep("adopt", tars, code=1).output
    assert not (tars / "manifest.json").exists()
    monkeypatch.setattr(adopting, "adopt_tar", adopt_tar)
    assert "23 more by an earlier call" in prep("adopt", tars).output
    assert "all is well" in prep("verify", tars, "--deep").output
    assert not (tars / WORK).exists()


def test_what_was_learnt_of_a_tar_that_changed_is_forgotten(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "to_json", full)
        prep("adopt", tars, code=1)
    with webdataset.TarWriter(str(tars / "set-train-0002.tar")) as tar:
        for i in range(4):
            tar.write({"__key__": f"{i}", "jpg": jpeg(i), "cls": f"{i % 3}"})
    assert "27 train and 7 val" in prep("adopt", tars).output
    assert "all is well" in prep("verify", tars, "--deep").output
    assert (tars / INFO_NAME).read_bytes() == info_json(read_manifest(tars))


def _cmyk() -> bytes:
    encoded = io.BytesIO()
    Image.new("CMYK", (SIZE, SIZE)).save(encoded, "JPEG")
    return encoded.getvalue()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another size": (
        {"jpg": jpeg(1, 41, 41)},
        "has 41 x 41 px in 3 channels, where the first has 40 x 40 px in 3 channels",
    ),
    "not square": ({"jpg": jpeg(1, 40, 41)}, "has 40 x 41 px"),
    "PNG": ({"jpg": encode_picture(1, SIZE, SIZE, "PNG")}, "is no JPEG;"),
    "progressive": ({"jpg": jpeg(1, progressive=True)}, "of the kind progressive: must be baseline"),
    "CMYK": ({"jpg": _cmyk()}, "of the kind CMYK"),
    "cut": ({"jpg": jpeg(1)[:1000]}, "sample odd"),
    "two images": ({"jpg": jpeg(1), "jpeg": jpeg(2)}, "must have one"),
    "label in json": ({"jpg": jpeg(1), "cls": None, "json": b'{"label": 1}'}, "has no label in a file .cls"),
    "blank in a name": ({"__key__": "a b", "jpg": jpeg(1)}, "has blanks"),
    "long name": ({"__key__": "k" * 120, "jpg": jpeg(1)}, "has not all of its name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adopted_is_named_with_the_way_out(case: str, tars: Path) -> None:
    sample, said = REFUSED[case]
    sample = {"__key__": "odd", "cls": "1", **sample}
    with webdataset.TarWriter(str(tars / "set-train-0003.tar")) as tar:
        tar.write({"__key__": "first", "jpg": jpeg(0), "cls": "0"})
        tar.write({name: value for name, value in sample.items() if value is not None})
    before = digests(tars)
    output = prep("adopt", tars, code=2).output
    (line,) = [line for line in output.splitlines() if "set-train-0003.tar" in line and said in line]
    assert sample["__key__"] in line
    assert not (tars / "manifest.json").exists()
    assert before.items() <= digests(tars).items()


def test_nothing_of_others_is_replaced_or_deleted(tars: Path, official: Path) -> None:
    (tars / "set-train-0000.idx").write_text("v1.2 1\n")
    assert "set-train-0000.idx: is there, and is not the index" in prep("adopt", tars, code=2).output
    (tars / "set-train-0000.idx").unlink()
    info = '{"splits": {}}'
    (tars / "_info.json").write_text(info)
    prep("adopt", tars)
    assert (tars / "_info.json").read_text() == info
    assert "all is well" in prep("verify", tars).output
    before = digests(tars)
    assert "are not alexnet-prep's" in prep("shard", official, "--out", tars, "--overwrite", code=2).output
    assert digests(tars) == before


def test_a_file_in_the_way_and_another_data_set_are_refused(tars: Path, data_set: Path) -> None:
    earlier = Path(shutil.copytree(data_set, tars.parent / "earlier"))  # of a version that wrote no SHA256SUMS
    (earlier / "SHA256SUMS").unlink()
    (tars / "SHA256SUMS").write_text("")
    assert "SHA256SUMS: is there" in prep("adopt", tars, code=2).output
    assert "that alexnet-prep wrote; use it as it is" in prep("adopt", earlier, code=2).output
    assert not (earlier / "SHA256SUMS").exists(), "refused before anything is written"
    assert "there is no such folder" in prep("adopt", tars / "nowhere", code=2).output
    assert not (tars / "nowhere").exists()


@pytest.mark.parametrize("file", ["../set-train-0000.tar", "/etc/a.tar", "a/../b.tar", "set-train-0000.tar", "b.idx"])
def test_a_manifest_names_no_tar_outside(file: str, tars: Path) -> None:
    prep("adopt", tars)
    fields = json.loads((tars / "manifest.json").read_text())
    fields["shards"][1]["file"] = file
    (tars / "manifest.json").write_text(json.dumps(fields))
    assert "where the path of a tar after" in prep("verify", tars, code=1).output
