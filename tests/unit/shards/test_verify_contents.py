"""A data set that was written wrong is found out although every checksum in it is right: its parts are compared."""

import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.manifest import read_manifest
from alexnet.shards.verify import Report, verify
from alexnet.shards.writer import write_checksums
from alexnet.tools.stored_jpeg import decode_stored

Member = tuple[str, bytes]
Forge = Callable[[Path], object]


def named_problem(report: Report) -> str:
    """Return the file and the first three words of the only finding."""
    (finding,) = report.findings
    return " ".join(str(finding).split()[:3])


def problems(report: Report) -> str:
    return "\n".join(map(str, report.findings))


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads((root / "manifest.json").read_text())
    change(fields)
    (root / "manifest.json").write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def reseal(root: Path) -> None:
    """Make every size and sha256 right again: what is found then is found by looking inside."""

    def change(fields: dict[str, Any]) -> None:
        for record in (*fields["shards"], *fields["files"]):
            data = (root / record["file"]).read_bytes()
            record["bytes"], record["sha256"] = len(data), hashlib.sha256(data).hexdigest()

    edit_manifest(root, change)
    write_checksums(root)


def list_anew(root: Path, file: str) -> None:
    """Make a file's line in SHA256SUMS right again."""
    lines = (root / "SHA256SUMS").read_text().splitlines()
    line = f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}"
    (root / "SHA256SUMS").write_text("".join(f"{line if old.endswith(line[64:]) else old}\n" for old in lines))


def members(root: Path, file: str) -> list[Member]:
    with tarfile.open(root / file) as tar:
        return [(member.name, stream.read()) for member in tar if (stream := tar.extractfile(member))]


def write_tar(root: Path, file: str, contents: list[Member]) -> None:
    with tarfile.open(root / file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in contents:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def edit_tar(change: Callable[[list[Member]], list[Member]], file: str = "train/000000.tar") -> Forge:
    return lambda root: write_tar(root, file, change(members(root, file)))


def edit_row(field: str, value: int) -> Forge:
    def forge(root: Path) -> None:
        rows = np.load(root / "index.npy")
        rows[field][3] = value
        np.save(root / "index.npy", rows)

    return forge


def edit_lines(file: str, change: Callable[[list[str]], list[str]]) -> Forge:
    return lambda root: (root / file).write_text("".join(change((root / file).read_text().splitlines(True))))


def edit_field(*path: str | int, to: object) -> Forge:
    def change(fields: Any) -> None:
        for step in path[:-1]:
            fields = fields[step]
        fields[path[-1]] = to

    return lambda root: edit_manifest(root, change)


def edit_mean_image(change: Callable[[Any], Any]) -> Forge:
    return lambda root: np.save(root / "mean_image.npy", change(np.load(root / "mean_image.npy")))


def rename_first(name: str) -> Callable[[list[Member]], list[Member]]:
    return lambda m: [(f"{name}.jpg", m[0][1]), (f"{name}.cls", m[1][1]), *m[2:]]


FORGERIES: dict[str, tuple[Forge, str, str]] = {
    "label": (edit_tar(lambda m: [m[0], (m[1][0], b"9"), *m[2:]]), "train/000000.tar", "manifest has 3 classes"),
    "label in the index": (edit_row("label", 5), "index.npy", "says label 5"),
    "no number": (edit_tar(lambda m: [m[0], (m[1][0], b"x"), *m[2:]]), "train/000000.tar", "must be digits"),
    "no label": (edit_tar(lambda m: [m[0], *m[2:]]), "train/000000.tar", "where the file 0"),
    "label first": (edit_tar(lambda m: [m[1], m[0], *m[2:]]), "train/000000.tar", "where a file KEY.jpg must be"),
    "odd last": (edit_tar(lambda m: m[:-1]), "train/000000.tar", "without its label"),
    "one short": (edit_tar(lambda m: m[:-2]), "train/000000.tar", "samples where the manifest says"),
    "key": (edit_tar(rename_first("0_a")), "train/000000.tar", "its key is not"),
    "dotted key": (edit_tar(rename_first("00000000_a.b")), "train/000000.tar", "its key is not"),
    "key of another shard": (edit_tar(rename_first("00000010_a")), "train/000000.tar", "this shard holds 0 to 9"),
    "key twice": (edit_tar(lambda m: [*m[:2], *m[:2], *m[4:]]), "train/000000.tar", "so that keys are unique"),
    "order": (edit_tar(lambda m: [*m[2:4], *m[:2], *m[4:]]), "train/000000.tar", "so that keys are unique"),
    "offset": (edit_row("offset", 7), "index.npy", "says offset 7"),
    "length": (edit_row("length", 7), "index.npy", "says length 7"),
    "shard": (edit_row("shard", 2), "index.npy", "says shard 2"),
    "place": (edit_row("place", 0), "index.npy", "place 0 of train is there more than once"),
    "short index": (
        lambda r: np.save(r / "index.npy", np.load(r / "index.npy")[1:]),
        "index.npy",
        "rows where the manifest counts",
    ),
    "no index": (
        lambda r: (r / "index.npy").write_bytes(b"\x93NUMPY\x01\x00\x02\x00{("),
        "index.npy",
        "cannot be used",
    ),
    "dali offset": (
        edit_lines("train/000001.idx", lambda t: [t[0], t[1].replace(" 512 ", " 513 "), *t[2:]]),
        "train/000001.idx",
        "line 2 is",
    ),
    "dali count": (edit_lines("val/000000.idx", lambda t: ["v1.2 99\n", *t[1:]]), "val/000000.idx", "must be 'v1.2 7'"),
    "dali short": (edit_lines("val/000000.idx", lambda t: t[:-1]), "val/000000.idx", "line 8 is ''"),
    "dali long": (edit_lines("val/000000.idx", lambda t: [*t, t[-1]]), "val/000000.idx", "must be ''"),
    "reject gone": (edit_lines("rejected.jsonl", lambda t: t[1:]), "rejected.jsonl", "lists 2 train images"),
    "reject elsewhere": (
        edit_lines("rejected.jsonl", lambda t: [t[0], t[0], t[2]]),
        "index.npy",
        "there more than once",
    ),
    "reject broken": (edit_lines("rejected.jsonl", lambda t: ["{}\n", *t[1:]]), "rejected.jsonl", "line 1 is not"),
    "classes": (edit_field("classes", 1, "wnid", to="n00000009"), "manifest.json", "labels follow the sorted WNIDs"),
    "class twice": (
        edit_field("classes", 1, "wnid", to="n00000001"),
        "manifest.json",
        "labels follow the sorted WNIDs",
    ),
    "no classes": (edit_field("classes", to=[]), "manifest.json", "of length >= 1 - at `$.classes`"),
    "images": (edit_field("shards", 0, "images", to=9), "manifest.json", "train shards hold"),
    "half an image": (
        edit_field("shards", 0, "images", to=10.0),
        "manifest.json",
        "got `float` - at `$.shards[0].images`",
    ),
    "size": (edit_field("settings", "size_px", to="40"), "manifest.json", "got `str` - at `$.settings.size_px`"),
    "file": (edit_field("shards", 0, "file", to="../../x.tar"), "manifest.json", "where train/000000.tar must be"),
    "split": (edit_field("counts", to={"test": {"input": 0, "written": 0, "rejected": 0}}), "manifest.json", "splits"),
    "axes": (edit_field("colour", "eigenvalues", 1, to=1.0), "manifest.json", "not those of colour.covariance"),
    "colour": (edit_field("colour", "mean", to=[1.0, "x", 2.0]), "manifest.json", "got `str` - at `$.colour.mean[1]`"),
    "mean": (edit_field("colour", "mean", to=[300.0, 1.0, 2.0]), "manifest.json", "between 0 and 255"),
    "mean image": (edit_mean_image(lambda m: m[:, :, ::-1]), "mean_image.npy", "where the manifest's colour.mean is"),
    "mean image's kind": (edit_mean_image(lambda m: m.astype(np.float64)), "mean_image.npy", "of float32"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_data_set_that_was_written_wrong_is_found_though_every_checksum_is_right(copy: Path, name: str) -> None:
    forge, file, problem = FORGERIES[name]
    if file == "manifest.json":
        forge(copy)
        list_anew(copy, file)
    else:
        forge(copy)
        reseal(copy)
    found = [finding for finding in verify(copy).findings if finding.file == file]
    assert any(problem in finding.problem for finding in found), found
    assert not any("the sha256" in finding.problem for finding in found)


def test_a_wrong_record_is_the_manifests_fault(copy: Path) -> None:
    edit_manifest(copy, lambda fields: fields["shards"][0].update(sha256="0" * 64, bytes=5))
    found = problems(verify(copy))
    assert "manifest.json: gives train/000000.tar the sha256 000" in found
    assert "manifest.json: gives train/000000.tar 5 bytes" in found
    assert "\ntrain/000000.tar" not in found


def test_findings_end_somewhere(copy: Path) -> None:
    rows = np.load(copy / "index.npy")
    rows["offset"] += 1
    np.save(copy / "index.npy", rows)
    reseal(copy)
    findings = verify(copy).findings
    assert len(findings) == 11
    assert findings[-1].problem == f"and {len(rows) - 10} findings more"


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_named(copy: Path, workers: int) -> None:
    edit_row("label", 1 + int(np.load(copy / "index.npy")["label"][3]))(copy)
    reseal(copy)
    key = members(copy, "train/000000.tar")[6][0].removesuffix(".jpg")
    assert {f.sample for f in verify(copy, workers=workers).findings if "says label" in f.problem} == {key}


def encode(pixels: np.ndarray[Any, Any], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_first_jpeg(root: Path, jpeg: bytes) -> Report:
    edit_tar(lambda m: [(m[0][0], jpeg), *m[1:]])(root)
    reseal(root)
    return verify(root, decode=decode_stored)


@pytest.mark.parametrize(
    ("jpeg", "problem"),
    [
        (b"no picture", "cannot be decoded"),
        (encode(np.zeros((40, 40, 3), np.uint8))[:-100], "cannot be decoded"),
        (encode(np.zeros((40, 41, 3), np.uint8)), "is 40x41x3 (height, width, channels): must be 40x40x3"),
        (encode(np.zeros((40, 40), np.uint8)), "is 40x40x1 (height, width, channels): must be 40x40x3"),
        (encode(np.zeros((40, 40, 3), np.uint8), progressive=True), "of the kind progressive: must be baseline"),
    ],
)
def test_deep_finds_pictures_of_another_kind_by_name(copy: Path, jpeg: bytes, problem: str) -> None:
    report = with_first_jpeg(copy, jpeg)
    key = members(copy, "train/000000.tar")[0][0].removesuffix(".jpg")
    (found,) = [f for f in report.findings if f.sample == key and f.file == "train/000000.tar"]
    assert problem in found.problem
    assert report.decoded == sum(report.images.values()) - 1


@pytest.mark.parametrize("swap", [[2, 1, 0], [0, 2, 1]])
def test_deep_finds_statistics_of_exchanged_channels(ci_100: Path, tmp_path: Path, swap: list[int]) -> None:
    root = Path(shutil.copytree(ci_100, tmp_path / "set"))

    def change(fields: dict[str, Any]) -> None:
        colour = fields["colour"]
        colour["mean"] = [colour["mean"][c] for c in swap]
        colour["covariance"] = [[colour["covariance"][a][b] for b in swap] for a in swap]
        colour["eigenvectors"] = [[row[c] for c in swap] for row in colour["eigenvectors"]]

    edit_manifest(root, change)
    np.save(root / "mean_image.npy", np.load(root / "mean_image.npy")[:, :, swap])
    reseal(root)
    found = problems(verify(root, decode=decode_stored))
    assert "manifest.json: says colour.mean" in found
    assert "mean_image.npy: differs from the stored images' mean" in found
    assert verify(root).passed


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_deep_finds_statistics_of_another_scale(ci_100: Path, tmp_path: Path, factor: float) -> None:
    root = Path(shutil.copytree(ci_100, tmp_path / "set"))

    def change(fields: dict[str, Any]) -> None:
        colour = fields["colour"]
        colour["covariance"] = [[v * factor**2 for v in row] for row in colour["covariance"]]
        colour["eigenvalues"] = [v * factor**2 for v in colour["eigenvalues"]]
        colour["standard_deviations"] = [v * factor for v in colour["standard_deviations"]]

    edit_manifest(root, change)
    reseal(root)
    assert named_problem(verify(root, decode=decode_stored)) == "manifest.json: says colour.standard_deviations"
    assert verify(root).passed


@pytest.mark.parametrize("quality", [100, 50, 5])
def test_deep_allows_for_what_encoding_takes_from_noise(copy: Path, quality: int) -> None:
    """Noise of single pixels is the worst case: halved colour resolution takes half of its colours' spread."""
    rng = np.random.default_rng(0)
    sums = ColourSums(40)
    for file in (shard.file for shard in read_manifest(copy).shards):
        noise = members(copy, file)
        for i in range(0, len(noise), 2):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            noise[i] = (noise[i][0], encode(pixels, quality=quality, subsampling="4:2:0"))
            if file.startswith("train"):
                sums.add(pixels)
        write_tar(copy, file, noise)
    np.save(copy / "mean_image.npy", sums.mean_image())
    edit_field("colour", to=dataclasses.asdict(statistics_of(sums)))(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    assert not [f for f in report.findings if f.file in ("manifest.json", "mean_image.npy")], problems(report)
    assert report.decoded == sum(report.images.values())


def test_deep_takes_grey_pictures_where_the_settings_say_so(copy: Path) -> None:
    for file in (shard.file for shard in read_manifest(copy).shards):
        grey = [
            (n, encode(np.asarray(Image.open(io.BytesIO(d)).convert("L"))) if n.endswith("jpg") else d)
            for n, d in members(copy, file)
        ]
        write_tar(copy, file, grey)
    edit_field("settings", "channels", to=1)(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    assert report.decoded == sum(report.images.values())
