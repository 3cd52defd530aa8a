"""Whatever is changed in a data set is found, and the file that was changed is named."""

import dataclasses
import hashlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.shards.checksums import CHECKSUMS_NAME, write_checksums
from alexnet.shards.errors import InputError
from alexnet.shards.findings import FindingList
from alexnet.shards.index import INDEX_DTYPE
from alexnet.shards.manifest import ClassRecord, SplitCounts, read_manifest
from alexnet.shards.verify import verify
from alexnet.shards.verify_index import check_class_counts
from alexnet.shards.verify_report import Report
from alexnet.shards.verify_shard import Decoded
from alexnet.tools.stored_jpeg import decode_stored

FAST = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SLOW = settings(FAST, max_examples=10_000)

Member = tuple[str, bytes]
Forge = Callable[[Path], object]


@pytest.fixture(scope="module")
def sealed(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data set with a licence beside it; tests that change it put it back."""
    root = Path(shutil.copytree(data_set, tmp_path_factory.mktemp("sealed") / "set"))
    (root / "LICENSE").write_text("CC0\n")
    write_checksums(root)
    return root


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "set"))


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def named(report: Report) -> set[str]:
    return {finding.file for finding in report.findings}


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


def members(root: Path, file: str) -> list[Member]:
    with tarfile.open(root / file) as tar:
        return [(member.name, stream.read()) for member in tar if (stream := tar.extractfile(member))]


def write_tar(root: Path, file: str, contents: list[Member]) -> None:
    with tarfile.open(root / file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in contents:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


# A sound data set


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("deep", [False, True])
def test_nothing_is_found_in_a_sound_data_set(sealed: Path, workers: int, deep: bool) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(
        sealed,
        decode=decode_stored if deep else None,
        workers=workers,
        on_progress=lambda *progress: seen.append(progress),
    )
    assert problems(report) == ""
    assert report.passed
    counts = {split: c.written for split, c in read_manifest(sealed).counts.items()}
    assert report.images == counts
    assert report.decoded == (sum(counts.values()) if deep else 0)
    assert report.files == len(files_of(sealed))
    assert report.bytes == sum((sealed / name).stat().st_size for name in files_of(sealed))
    assert seen[-1] == (report.bytes, report.bytes)


def test_the_bundled_set_is_sound_by_its_pixels(ci_100: Path) -> None:
    report = verify(ci_100, decode=decode_stored)
    assert named(report) <= {CHECKSUMS_NAME}
    assert report.decoded == 120
    assert report.colour is not None
    assert report.class_images == {"train": (10, 10), "val": (2, 2)}


def test_sha256sum_itself_agrees(sealed: Path, copy: Path) -> None:
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("coreutils' sha256sum is not on the PATH")
    command = [program, "--check", "--strict", CHECKSUMS_NAME]
    run = subprocess.run(command, cwd=sealed, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{name}: OK" for name in files_of(sealed) if name != CHECKSUMS_NAME]
    listing = subprocess.run([program, *files_of(sealed)], cwd=sealed, capture_output=True, check=True).stdout
    ours = (sealed / CHECKSUMS_NAME).read_bytes()
    assert ours == b"".join(line for line in listing.splitlines(True) if CHECKSUMS_NAME.encode() not in line)
    (copy / "val" / "000000.idx").write_text("altered")
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 1


def test_writing_the_list_again_changes_nothing_and_leaves_nothing(copy: Path) -> None:
    before = (copy / CHECKSUMS_NAME).read_bytes()
    (copy / f"{CHECKSUMS_NAME}.partial").write_text("left by a run that was killed")
    write_checksums(copy)
    assert (copy / CHECKSUMS_NAME).read_bytes() == before
    assert not list(copy.glob("*.partial"))


# Any single change


def flips(sealed: Path, file: int, place: float, xor: int) -> None:
    """Flip bits of one byte of one file, verify, put it back."""
    names = [name for name in files_of(sealed) if (sealed / name).stat().st_size]
    path = sealed / names[file % len(names)]
    data = path.read_bytes()
    at = min(int(place * len(data)), len(data) - 1)
    path.chmod(0o644)
    path.write_bytes(data[:at] + bytes([data[at] ^ xor]) + data[at + 1 :])
    try:
        report = verify(sealed)
    finally:
        path.write_bytes(data)
    assert names[file % len(names)] in named(report), problems(report)


FLIP = {"file": st.integers(0, 1000), "place": st.floats(0, 1), "xor": st.integers(1, 255)}


@FAST
@given(**FLIP)
def test_any_flipped_byte_is_found_and_its_file_named(sealed: Path, file: int, place: float, xor: int) -> None:
    flips(sealed, file, place, xor)


@pytest.mark.slow
@SLOW
@given(**FLIP)
def test_any_flipped_byte_is_found_and_its_file_named_at_length(
    sealed: Path, file: int, place: float, xor: int
) -> None:
    flips(sealed, file, place, xor)


@pytest.mark.parametrize("name", [CHECKSUMS_NAME, "manifest.json"])
@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_every_byte_of_the_lists_matters(copy: Path, name: str, step: int) -> None:
    """The two lists are what all else relies on: their bytes in turn, each as another digit or letter."""
    data = (copy / name).read_bytes()
    for at in range(0, len(data), step):
        (copy / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert name in named(verify(copy)), at


@FAST
@given(file=st.integers(0, 1000), share=st.floats(0, 1, exclude_max=True), extra=st.binary(max_size=2000))
def test_any_shortened_or_lengthened_file_is_found(sealed: Path, file: int, share: float, extra: bytes) -> None:
    """Cut a file and append something else: with an empty `extra` it is cut short, with a share near 1 lengthened."""
    names = files_of(sealed)
    path = sealed / names[file % len(names)]
    data = path.read_bytes()
    changed = data[: round(share * len(data))] + extra
    path.chmod(0o644)
    path.write_bytes(changed)
    try:
        report = verify(sealed)
    finally:
        path.write_bytes(data)
    assert (names[file % len(names)] in named(report)) == (changed != data), problems(report)


def test_every_missing_file_is_named(sealed: Path, tmp_path: Path) -> None:
    for name in files_of(sealed):
        (sealed / name).rename(tmp_path / "away")
        try:
            report = verify(sealed)
        finally:
            (tmp_path / "away").rename(sealed / name)
        assert name in named(report)


@pytest.mark.parametrize(
    "name",
    [
        "train/000009.tar",
        "notes.txt",
        ".DS_Store",
        "val/.000000.tar.swp",
        ".work/job.json",
        "a/b/c",
        "manifest.json.bak",
    ],
)
def test_every_extra_file_is_named(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text("")
    assert named(verify(copy)) == {name}


def test_extra_folders_and_links_are_named(copy: Path) -> None:
    (copy / "empty").mkdir()
    (copy / "link").symlink_to("/nowhere")
    (copy / "other").symlink_to("train")
    os.mkfifo(copy / "pipe")
    assert named(verify(copy)) == {"empty/", "link", "other", "pipe"}


def test_a_file_that_is_no_longer_one_is_named(copy: Path) -> None:
    (copy / "index.npy").unlink()
    os.mkfifo(copy / "index.npy")  # reading it would wait for ever
    assert "index.npy: is no regular file" in problems(verify(copy))


def test_shards_may_lie_elsewhere_behind_links(copy: Path, tmp_path: Path) -> None:
    (copy / "train").rename(tmp_path / "train")
    (copy / "train").symlink_to(tmp_path / "train")
    assert problems(verify(copy)) == ""


def test_two_shards_exchanged_are_both_named(copy: Path) -> None:
    a, b = copy / "train" / "000000.tar", copy / "train" / "000001.tar"
    contents = a.read_bytes(), b.read_bytes()
    a.write_bytes(contents[1])
    b.write_bytes(contents[0])
    assert {"train/000000.tar", "train/000001.tar"} <= named(verify(copy))


# Who is to blame


def test_a_data_set_from_before_checksums_says_so_and_nothing_else(copy: Path) -> None:
    (copy / CHECKSUMS_NAME).unlink()
    (finding,) = verify(copy).findings
    assert finding.file == CHECKSUMS_NAME
    assert "has no SHA256SUMS" in finding.problem


def test_a_licence_must_be_listed(copy: Path) -> None:
    (copy / "README.md").write_text("about")
    assert [str(f) for f in verify(copy).findings] == ["SHA256SUMS: does not list README.md"]
    write_checksums(copy)
    assert verify(copy).passed


@pytest.mark.parametrize("name", ["train/000000.tar", "index.npy", "manifest.json", "LICENSE", "val/000000.idx"])
def test_a_wrong_digit_is_the_lists_fault(copy: Path, name: str) -> None:
    text = (copy / CHECKSUMS_NAME).read_text()
    line = next(line for line in text.splitlines() if line.endswith(f"  {name}"))
    wrong = ("1" if line[5] != "1" else "2").join((line[:5], line[6:]))
    (copy / CHECKSUMS_NAME).write_text(text.replace(line, wrong))
    assert named(verify(copy)) == {CHECKSUMS_NAME}


def test_a_wrong_record_is_the_manifests_fault(copy: Path) -> None:
    edit_manifest(copy, lambda fields: fields["shards"][0].update(sha256="0" * 64, bytes=5))
    found = problems(verify(copy))
    assert "manifest.json: gives train/000000.tar the sha256 000" in found
    assert "manifest.json: gives train/000000.tar 5 bytes" in found
    assert "\ntrain/000000.tar" not in found


def test_without_a_usable_manifest_the_list_still_finds_what_changed(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    (copy / "train" / "000001.tar").write_bytes((copy / "train" / "000001.tar").read_bytes()[:-1])
    (copy / "notes.txt").write_text("")
    assert named(verify(copy)) == {"manifest.json", "train/000001.tar", "notes.txt"}


def test_what_is_no_data_set_is_a_users_mistake(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(InputError, match="one split; give the data set itself"):
        verify(copy / "train")


def test_findings_end_somewhere(copy: Path) -> None:
    rows = np.load(copy / "index.npy")
    rows["offset"] += 1
    np.save(copy / "index.npy", rows)
    reseal(copy)
    findings = verify(copy).findings
    assert len(findings) == 11
    assert findings[-1].problem == f"and {len(rows) - 10} findings more"


# What checksums cannot know: a data set that was written wrong


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
    "short index": (lambda r: np.save(r / "index.npy", np.load(r / "index.npy")[1:]), "index.npy", "samples must be"),
    "no index": (
        lambda r: (r / "index.npy").write_bytes(b"\x93NUMPY\x01\x00\x02\x00{("),
        "index.npy",
        "cannot be read",
    ),
    "dali offset": (
        edit_lines("train/000001.idx", lambda t: [t[0], t[1].replace(" 512 ", " 513 "), *t[2:]]),
        "train/000001.idx",
        "line 2 is",
    ),
    "dali count": (edit_lines("val/000000.idx", lambda t: ["v1.2 99\n", *t[1:]]), "val/000000.idx", "must be 'v1.2 7'"),
    "dali short": (edit_lines("val/000000.idx", lambda t: t[:-1]), "val/000000.idx", "line 8 is ''"),
    "dali long": (edit_lines("val/000000.idx", lambda t: [*t, t[-1]]), "val/000000.idx", "does not end after"),
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
    "no classes": (edit_field("classes", to=[]), "manifest.json", "has no classes"),
    "images": (edit_field("shards", 0, "images", to=9), "manifest.json", "train shards hold"),
    "half an image": (edit_field("shards", 0, "images", to=10.0), "manifest.json", "no whole-numbered"),
    "size": (edit_field("settings", "size_px", to="40"), "manifest.json", "settings.size_px is '40'"),
    "file": (edit_field("shards", 0, "file", to="../../x.tar"), "manifest.json", "where train/000000.tar must be"),
    "split": (edit_field("counts", to={"test": {"input": 0, "written": 0, "rejected": 0}}), "manifest.json", "splits"),
    "axes": (edit_field("colour", "eigenvalues", 1, to=1.0), "manifest.json", "not those of colour.covariance"),
    "colour": (edit_field("colour", "mean", to=[1.0, "x", 2.0]), "manifest.json", "not a number"),
    "mean": (edit_field("colour", "mean", to=[300.0, 1.0, 2.0]), "manifest.json", "between 0 and 255"),
    "mean image": (edit_mean_image(lambda m: m[:, :, ::-1]), "mean_image.npy", "where the manifest's colour.mean is"),
    "mean image's kind": (edit_mean_image(lambda m: m.astype(np.float64)), "mean_image.npy", "of float32"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_data_set_that_was_written_wrong_is_found_though_every_checksum_is_right(copy: Path, name: str) -> None:
    forge, file, problem = FORGERIES[name]
    if file == "manifest.json":
        forge(copy)
        write_checksums(copy)
    else:
        forge(copy)
        reseal(copy)
    found = [finding for finding in verify(copy).findings if finding.file == file]
    assert any(problem in finding.problem for finding in found), found
    assert not any("the sha256" in finding.problem for finding in found)


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_are_named(copy: Path, workers: int) -> None:
    edit_row("label", 1 + int(np.load(copy / "index.npy")["label"][3]))(copy)
    reseal(copy)
    key = members(copy, "train/000000.tar")[6][0].removesuffix(".jpg")
    assert {f.sample for f in verify(copy, workers=workers).findings if "says label" in f.problem} == {key}


# Pixels


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
    assert report.colour is None


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
    assert report.colour is not None
    assert len(set(report.colour.mean)) == 1


# ILSVRC-2012


def test_ids_taken_for_labels_are_recognised_on_the_official_classes(data_set: Path) -> None:
    wnids = ["n01440764", *(f"n02{i:06d}" for i in range(998)), "n15075141"]
    manifest = dataclasses.replace(
        read_manifest(data_set),
        classes=tuple(ClassRecord(wnid=wnid, words="") for wnid in wnids),
        counts={"val": SplitCounts(input=50_000, written=50_000, rejected=0)},
    )
    rows = np.zeros(50_000, INDEX_DTYPE)
    rows["place"] = np.arange(50_000)
    rows["label"] = np.arange(50_000) % 1000

    def found() -> list[str]:
        findings = FindingList()
        counts = np.bincount(rows["label"], minlength=1000)
        check_class_counts(manifest, {"val": rows}, {"val": counts}, findings)
        return [finding.problem for finding in findings.all()]

    rows["label"][[0, 1, 2, 3]] = (490 - 1, 361 - 1, 171 - 1, 822 - 1)
    assert "labels ILSVRC2012_val_00000001 489, which is 65 everywhere else" in found()
    for place, label in enumerate((65, 970, 230, 809)):  # exchange, so that each class keeps its 50
        rows["label"][place], rows["label"][label] = label, place
    rows["label"][[489, 360, 170, 821]] = (489, 360, 170, 821)
    assert found() == []
    rows["label"][-1] = 0
    assert found() == ["has 51 validation images of class 0: ILSVRC-2012 has 50"]


# Workers


def die(_: bytes) -> Decoded:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("never reached")


def test_a_worker_that_is_killed_ends_the_command_in_one_line(sealed: Path) -> None:
    with pytest.raises(InputError, match=r"a worker process was killed .* give fewer --workers"):
        verify(sealed, decode=die, workers=2)


ORPHANS = """
import os, signal, sys
from pathlib import Path
from alexnet.shards.verify import verify

def wait(_):
    print(os.getpid(), flush=True)
    signal.pause()

if __name__ == "__main__":
    verify(Path(sys.argv[1]), decode=wait, workers=2)
"""


def test_workers_leave_when_the_command_is_killed(sealed: Path, tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    command = [sys.executable, str(script), str(sealed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        parent.kill()
        for worker in workers:
            assert select.select([worker], [], [], 20)[0], "a worker outlives its parent"
            os.close(worker)
