"""A forger who makes every size and sha256 right again is found wherever two parts of a data set say the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.shards.verify import verify
from tests.unit.shards.conftest import PROPERTY
from tests.unit.shards.forging import (
    TAR,
    Forge,
    edit_array,
    edit_bytes,
    edit_field,
    edit_lines,
    edit_rejects,
    edit_tar,
    infos,
    list_anew,
    members,
    poke,
    problems,
    put_back,
    reseal,
    resize,
    set_field,
    set_row,
)

INDEX, DALI, MANIFEST = "index.npy", "train/000000.idx", "manifest.json"
REJECTS, MEAN = "rejected.jsonl", "mean_image.npy"


# What is found, and what is said of it


def with_label(label: bytes) -> Forge:
    return edit_tar(lambda m: [m[0], (m[1][0], label), *m[2:]])


def with_key(key: str) -> Forge:
    return edit_tar(lambda m: [(f"{key}.jpg", m[0][1]), (f"{key}.cls", m[1][1]), *m[2:]])


def with_reject(**fields: object) -> Forge:
    return edit_rejects(lambda records: [{**records[0], **fields}, *records[1:]])


def with_exchanged_labels(m: Any) -> Any:
    other = next(k for k in range(3, len(m), 2) if m[k][1] != m[1][1])
    return [m[0], (m[1][0], m[other][1]), *m[2:other], (m[other][0], m[1][1]), *m[other + 1 :]]


NAMED: dict[str, tuple[Forge, str, str]] = {
    "label": (with_label(b"9"), TAR, "manifest has 3 classes"),
    "no number": (with_label(b"x"), TAR, "must be digits"),
    "a number and a break": (with_label(b"1\n"), TAR, "must be digits"),
    "a number with a nought": (with_label(b"01"), TAR, "must be digits"),
    "nothing": (with_label(b""), TAR, "must be digits"),
    "labels exchanged": (edit_tar(with_exchanged_labels), INDEX, "says label"),
    "images exchanged": (edit_tar(lambda m: [(m[0][0], m[2][1]), m[1], (m[2][0], m[0][1]), *m[3:]]), INDEX, "says len"),
    "no label": (edit_tar(lambda m: [m[0], *m[2:]]), TAR, "where the file 0"),
    "label first": (edit_tar(lambda m: [m[1], m[0], *m[2:]]), TAR, "where a file KEY.jpg must be"),
    "a third": (edit_tar(lambda m: [*m[:2], ("x.txt", b""), *m[2:]]), TAR, "has 'x.txt' after"),
    "odd last": (edit_tar(lambda m: m[:-1]), TAR, "without its label"),
    "one short": (edit_tar(lambda m: m[:-2]), TAR, "samples where the manifest says"),
    "one more": (
        edit_tar(lambda m: [*m, ("00000009_z.jpg", b"x"), ("00000009_z.cls", b"0")]),
        TAR,
        "samples where the",
    ),
    "key": (with_key("0_a"), TAR, "its key is not"),
    "dotted key": (with_key("00000000_a.b"), TAR, "its key is not"),
    "key of another shard": (with_key("00000010_a"), TAR, "this shard holds 0 to 9"),
    "key twice": (edit_tar(lambda m: [*m[:2], *m[:2], *m[4:]]), TAR, "so that keys are unique"),
    "order": (edit_tar(lambda m: [*m[2:4], *m[:2], *m[4:]]), TAR, "so that keys are unique"),
    "end longer": (resize(TAR, 10240), TAR, "which do not fill the last record"),
    "end shorter": (resize(TAR, -512), TAR, "which do not fill the last record"),
    "cut": (resize(TAR, -10240), TAR, "ends after 0000000"),
    "begin": (edit_bytes(TAR, lambda tar: b"x" * 512 + tar), TAR, "cannot be read as a tar after the start"),
    "label in the index": (set_row("label", 3, 5), INDEX, "says label 5"),
    "offset": (set_row("offset", 3, 7), INDEX, "says offset 7"),
    "length": (set_row("length", 3, 7), INDEX, "says length 7"),
    "shard": (set_row("shard", 3, 2), INDEX, "says shard 2"),
    "place": (set_row("place", 3, 0), INDEX, "place 0 of train is there more than once"),
    "short index": (edit_array(INDEX, lambda rows: rows[1:]), INDEX, "rows where the manifest counts"),
    "no index": (edit_bytes(INDEX, lambda _: b"\x93NUMPY\x01\x00\x02\x00{("), INDEX, "cannot be used"),
    "dali offset": (edit_lines(DALI, lambda t: [t[0], t[1].replace(" 512 ", " 513 "), *t[2:]]), DALI, "line 2 is"),
    "dali count": (edit_lines(DALI, lambda t: ["v1.2 99\n", *t[1:]]), DALI, "must be 'v1.2 "),
    "dali short": (edit_lines(DALI, lambda t: t[:-1]), DALI, " is ''"),
    "dali long": (edit_lines(DALI, lambda t: [*t, t[-1]]), DALI, "must be ''"),
    "reject gone": (edit_rejects(lambda r: r[1:]), REJECTS, "lists 2 train images"),
    "reject elsewhere": (edit_rejects(lambda r: [r[0], r[0], r[2]]), INDEX, "there more than once"),
    "rejects in another order": (edit_rejects(lambda r: r[::-1]), REJECTS, "comes after a later place"),
    "reject of another place": (with_reject(place=99), REJECTS, "which has no such place"),
    "reject of another split": (with_reject(split="val", place=0), REJECTS, "images where the manifest counts"),
    "reject from elsewhere": (with_reject(source="../x"), REJECTS, "does not lie in the source's folder"),
    "reject without a sha256": (with_reject(sha256="x"), REJECTS, "line 1 is not"),
    "reject of no length": (with_reject(bytes=-1), REJECTS, "line 1 is not"),
    "reject broken": (edit_lines(REJECTS, lambda t: ["{}\n", *t[1:]]), REJECTS, "line 1 is not"),
    "classes": (set_field("classes", 1, "wnid", to="n00000009"), MANIFEST, "labels follow the sorted WNIDs"),
    "class twice": (set_field("classes", 1, "wnid", to="n00000001"), MANIFEST, "labels follow the sorted WNIDs"),
    "no classes": (set_field("classes", to=[]), MANIFEST, "of length >= 1 - at `$.classes`"),
    "images": (set_field("shards", 0, "images", to=9), MANIFEST, "train shards hold"),
    "half an image": (set_field("shards", 0, "images", to=10.0), MANIFEST, "got `float` - at `$.shards[0].images`"),
    "size": (set_field("settings", "size_px", to="40"), MANIFEST, "got `str` - at `$.settings.size_px`"),
    "file": (set_field("shards", 0, "file", to="/etc/passwd"), MANIFEST, "where train/000000.tar must be"),
    "split": (set_field("counts", to={"test": {"input": 0, "written": 0, "rejected": 0}}), MANIFEST, "splits"),
    "axes": (set_field("colour", "eigenvalues", 1, to=1.0), MANIFEST, "not those of colour.covariance"),
    "colour": (set_field("colour", "mean", to=[1.0, "x", 2.0]), MANIFEST, "got `str` - at `$.colour.mean[1]`"),
    "mean": (set_field("colour", "mean", to=[300.0, 1.0, 2.0]), MANIFEST, "<= 255.0 - at `$.colour.mean[0]`"),
    "mean image": (edit_array(MEAN, lambda image: image[:, :, ::-1]), MEAN, "where the manifest's colour.mean is"),
    "mean image's kind": (edit_array(MEAN, lambda image: image.astype(np.float64)), MEAN, "of float32"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_was_written_wrong_is_found_though_every_checksum_is_right(copy: Path, name: str) -> None:
    forge, file, problem = NAMED[name]
    forge(copy)
    list_anew(copy, file) if file == MANIFEST else reseal(copy)
    found = [finding for finding in verify(copy).findings if finding.file == file]
    assert any(problem in finding.problem for finding in found), found
    assert not any("the sha256" in finding.problem for finding in found)


def test_a_wrong_record_is_the_manifests_fault(copy: Path) -> None:
    edit_field("shards", 0, change=lambda shard: {**shard, "sha256": "0" * 64, "bytes": 5})(copy)
    found = problems(verify(copy))
    assert "manifest.json: gives train/000000.tar the sha256 000" in found
    assert "manifest.json: gives train/000000.tar 5 bytes" in found
    assert "\ntrain/000000.tar" not in found


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_named_and_findings_end_somewhere(copy: Path, workers: int) -> None:
    edit_array(INDEX, lambda rows: rows["label"].__iadd__(1) is None or rows)(copy)
    reseal(copy)
    findings = verify(copy, workers=workers).findings
    assert findings[0].sample == members(copy)[0][0].removesuffix(".jpg")
    assert len(findings) == 11
    assert findings[-1].problem == "and 21 findings more"


# Everything that is said twice


def mend_header(root: Path, header: int) -> None:
    """Make the checksum of a header right, as far as it can be."""
    data = bytearray((root / TAR).read_bytes())
    block = data[header : header + 512]
    block[148:156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    (root / TAR).write_bytes(data)


@pytest.mark.parametrize("examples", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_any_byte_of_which_another_part_tells_is_found(sealed: Path, copy: Path, examples: int) -> None:
    """Of a tar all but its JPEGs, of the index and of DALI's; a header's checksum is made right again, or not."""
    all_members = infos(sealed)
    jpegs = {at for m in all_members if m.name.endswith("jpg") for at in range(m.offset_data, m.offset_data + m.size)}
    headers = {m.offset // 512: m.offset for m in all_members}
    places = [(file, at) for file in (TAR, INDEX, DALI) for at in range((sealed / file).stat().st_size)]

    @settings(PROPERTY, max_examples=examples)
    @given(
        place=st.sampled_from([place for place in places if place[0] != TAR or place[1] not in jpegs]),
        bits=st.integers(1, 255),
        mended=st.booleans(),
    )
    def change(place: tuple[str, int], bits: int, mended: bool) -> None:
        file, at = place
        before = {name: (copy / name).read_bytes() for name in (file, MANIFEST, "SHA256SUMS")}
        poke(file, at, bytes([before[file][at] ^ bits]))(copy)
        if file == TAR and at // 512 in headers and not 148 <= at % 512 < 156 and mended:
            mend_header(copy, headers[at // 512])
        reseal(copy)
        assert not verify(copy).passed
        for name, data in before.items():
            (copy / name).write_bytes(data)

    change()


FIGURES = [
    *[("settings", name) for name in ("size_px", "shard_images")],
    *[("counts", split, name) for split in ("train", "val") for name in ("input", "written", "rejected")],
    *[("shards", k, name) for k in range(4) for name in ("images", "bytes")],
    *[("files", k, "bytes") for k in range(3)],
    *[("colour", name, k) for name in ("mean", "eigenvalues", "standard_deviations") for k in range(3)],
    *[("colour", name, k, i) for name in ("covariance", "eigenvectors") for k in range(3) for i in range(3)],
]


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_every_figure_of_the_manifest_is_said_elsewhere_too(sealed: Path, copy: Path, step: int) -> None:
    for path in FIGURES[::step]:
        edit_field(*path, change=lambda value: value + (1 if isinstance(value, int) else 0.01))(copy)
        list_anew(copy, MANIFEST)
        assert not verify(copy).passed, path
        put_back(sealed, copy)


# What no other part says


def relabel(root: Path) -> None:
    """Give the first image another class everywhere."""
    label = (int(members(root)[1][1]) + 1) % 3
    poke(TAR, infos(root)[1].offset_data, b"%d" % label)(root)
    set_row("label", 0, label)(root)


UNSEEN: dict[str, Forge] = {
    "a label, everywhere": relabel,
    "an image": lambda root: poke(TAR, infos(root)[2].offset_data + 400, b"\x01")(root),
    "words of a class": set_field("classes", 0, "words", to="a dog"),
    "wnid of a class": set_field("classes", 2, "wnid", to="n9"),
    "seed": set_field("settings", "seed", to=8),
    "quality": set_field("settings", "quality", to=91),
    "source": set_field("source", "digest", to="0" * 64),
    "version": set_field("versions", "pillow", to="0"),
    "why one was rejected": with_reject(reason="too beautiful"),
    "licence": edit_bytes("LICENSE", lambda _: b"yours"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_said_once_is_only_as_good_as_the_lists_own_sha256(sealed: Path, copy: Path, name: str) -> None:
    """The docs say so: these are found by comparing that with one that was noted before."""
    UNSEEN[name](copy)
    reseal(copy)
    assert verify(copy).passed
    assert any((copy / name).read_bytes() != (sealed / name).read_bytes() for name in (MANIFEST, "SHA256SUMS"))
