"""A forger who makes every size and sha256 right again is found wherever two parts of a data set say the same."""

import dataclasses
import functools
import io
import itertools
import operator
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.shards.verify import Report, verify
from alexnet.tools.stored_jpeg import decode_stored
from tests.unit.shards.forging import (
    TAR,
    Forge,
    edit_array,
    edit_bytes,
    edit_field,
    edit_lines,
    edit_rejects,
    edit_row,
    edit_tar,
    infos,
    list_anew,
    members,
    poke,
    put_back,
    reseal,
    set_field,
)

INDEX, DALI, MANIFEST, REJECTS, MEAN = (
    "index.npy",
    "val/000000.idx",
    "manifest.json",
    "rejected.jsonl",
    "mean_image.npy",
)


def problems(report: Report) -> str:
    return "\n".join(map(str, report.findings))


# What is found, and what is said of it


def with_label(label: bytes) -> Forge:
    return edit_tar(lambda m: [m[0], (m[1][0], label), *m[2:]])


def with_key(key: str) -> Forge:
    return edit_tar(lambda m: [(f"{key}.jpg", m[0][1]), (f"{key}.cls", m[1][1]), *m[2:]])


def with_row(field: str, value: int) -> Forge:
    return edit_row(field, 3, lambda _: value)


NAMED: dict[str, tuple[Forge, str, str]] = {
    "label": (with_label(b"9"), TAR, "manifest has 3 classes"),
    "no number": (with_label(b"x"), TAR, "must be digits"),
    "no label": (edit_tar(lambda m: [m[0], *m[2:]]), TAR, "where the file 0"),
    "label first": (edit_tar(lambda m: [m[1], m[0], *m[2:]]), TAR, "where a file KEY.jpg must be"),
    "odd last": (edit_tar(lambda m: m[:-1]), TAR, "without its label"),
    "one short": (edit_tar(lambda m: m[:-2]), TAR, "samples where the manifest says"),
    "key": (with_key("0_a"), TAR, "its key is not"),
    "dotted key": (with_key("00000000_a.b"), TAR, "its key is not"),
    "key of another shard": (with_key("00000010_a"), TAR, "this shard holds 0 to 9"),
    "key twice": (edit_tar(lambda m: [*m[:2], *m[:2], *m[4:]]), TAR, "so that keys are unique"),
    "order": (edit_tar(lambda m: [*m[2:4], *m[:2], *m[4:]]), TAR, "so that keys are unique"),
    "label in the index": (with_row("label", 5), INDEX, "says label 5"),
    "offset": (with_row("offset", 7), INDEX, "says offset 7"),
    "length": (with_row("length", 7), INDEX, "says length 7"),
    "shard": (with_row("shard", 2), INDEX, "says shard 2"),
    "place": (with_row("place", 0), INDEX, "place 0 of train is there more than once"),
    "short index": (edit_array(INDEX, lambda rows: rows[1:]), INDEX, "rows where the manifest counts"),
    "no index": (edit_bytes(INDEX, lambda _: b"\x93NUMPY\x01\x00\x02\x00{("), INDEX, "cannot be used"),
    "dali offset": (edit_lines(DALI, lambda t: [t[0], t[1].replace(" 512 ", " 513 "), *t[2:]]), DALI, "line 2 is"),
    "dali count": (edit_lines(DALI, lambda t: ["v1.2 99\n", *t[1:]]), DALI, "must be 'v1.2 7'"),
    "dali short": (edit_lines(DALI, lambda t: t[:-1]), DALI, "line 8 is ''"),
    "dali long": (edit_lines(DALI, lambda t: [*t, t[-1]]), DALI, "must be ''"),
    "reject gone": (edit_rejects(lambda r: r[1:]), REJECTS, "lists 2 train images"),
    "reject elsewhere": (edit_rejects(lambda r: [r[0], r[0], r[2]]), INDEX, "there more than once"),
    "reject broken": (edit_lines(REJECTS, lambda t: ["{}\n", *t[1:]]), REJECTS, "line 1 is not"),
    "classes": (set_field("classes", 1, "wnid", to="n00000009"), MANIFEST, "labels follow the sorted WNIDs"),
    "class twice": (set_field("classes", 1, "wnid", to="n00000001"), MANIFEST, "labels follow the sorted WNIDs"),
    "no classes": (set_field("classes", to=[]), MANIFEST, "of length >= 1 - at `$.classes`"),
    "images": (set_field("shards", 0, "images", to=9), MANIFEST, "train shards hold"),
    "half an image": (set_field("shards", 0, "images", to=10.0), MANIFEST, "got `float` - at `$.shards[0].images`"),
    "size": (set_field("settings", "size_px", to="40"), MANIFEST, "got `str` - at `$.settings.size_px`"),
    "file": (
        set_field("shards", 0, "file", to="../x.tar"),
        MANIFEST,
        "names '../x.tar' where train/000000.tar must be",
    ),
    "split": (set_field("counts", to={"test": {"input": 0, "written": 0, "rejected": 0}}), MANIFEST, "splits"),
    "axes": (set_field("colour", "eigenvalues", 1, to=1.0), MANIFEST, "not those of colour.covariance"),
    "colour": (set_field("colour", "mean", to=[1.0, "x", 2.0]), MANIFEST, "got `str` - at `$.colour.mean[1]`"),
    "mean": (
        set_field("colour", "mean", to=[300.0, 1.0, 2.0]),
        MANIFEST,
        "<= 255.0 - at `$.colour.mean[0]`",
    ),
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

# Where name, mode, uid, gid, size, mtime, link, magic, version, owner, group, device numbers, folder and filling lie.
_FIELDS = (3, 105, 114, 122, 134, 146, 157, 257, 263, 265, 297, 329, 337, 345, 511)
_KINDS = (b"\0", b"1", b"2", b"3", b"5", b"7", b"L", b"S", b"x", b"g")
HEADER = [*((at, b"7") for at in _FIELDS), *((156, kind) for kind in _KINDS)]
MEMBERS: dict[str, Callable[[Any], Any]] = {
    "two labels exchanged": lambda m: (
        [m[0], (m[1][0], m[3][1]), m[2], (m[3][0], m[1][1]), *m[4:]] if m[1][1] != m[3][1] else m[2:]
    ),
    "two images exchanged": lambda m: [(m[0][0], m[2][1]), m[1], (m[2][0], m[0][1]), *m[3:]],
    "one twice": lambda m: [*m[:2], *m],
    "reversed": lambda m: [x for pair in zip(m[-2::-2], m[::-2], strict=True) for x in pair],
    "a third": lambda m: [*m[:2], (m[0][0].replace(".jpg", ".txt"), b""), *m[2:]],
    "another": lambda m: [*m, ("00000009_x.jpg", m[0][1]), ("00000009_x.cls", b"0")],
    "label with a break": lambda m: [m[0], (m[1][0], m[1][1] + b"\n"), *m[2:]],
    "label with a nought": lambda m: [m[0], (m[1][0], b"0" + m[1][1]), *m[2:]],
    "label of nothing": lambda m: [m[0], (m[1][0], b""), *m[2:]],
}
LISTED: dict[str, Callable[[Any], Any]] = {
    "none": lambda records: [],
    "one less": lambda records: records[1:],
    "one twice": lambda records: [records[0], *records],
    "other order": lambda records: records[::-1],
    "no reason": lambda records: [{k: v for k, v in records[0].items() if k != "reason"}, *records[1:]],
    "other place": lambda records: [{**records[0], "place": records[0]["place"] + 1}, *records[1:]],
    "other split": lambda records: [{**records[0], "split": "val"}, *records[1:]],
    "source elsewhere": lambda records: [{**records[0], "source": "../x"}, *records[1:]],
    "no sha256": lambda records: [{**records[0], "sha256": "x"}, *records[1:]],
    "negative length": lambda records: [{**records[0], "bytes": -1}, *records[1:]],
}


def forgeries() -> Iterator[tuple[str, Forge]]:
    yield from _in_tars()
    yield from _in_lists()


def _in_tars() -> Iterator[tuple[str, Forge]]:
    for member in (0, 1, 8, -1):
        yield from ((f"header {member} {forged}", in_header(member, *forged)) for forged in HEADER)
    yield from ((f"filling {member}", behind_data(member)) for member in (0, 1, 2, 9, -1))
    yield from ((f"end {at}", poke(TAR, at, b"x")) for at in (-1, -512, -1024, -1025))
    yield from ((f"end longer by {by}", longer(by)) for by in (-10240, -1024, -512, 512, 1024, 10240))
    yield from ((f"members {name}", edit_tar(change)) for name, change in MEMBERS.items())
    header = tarfile.TarInfo("x").create_pax_global_header({"comment": "x"})
    yield "pax", edit_bytes(TAR, lambda data: header + data)


def _in_lists() -> Iterator[tuple[str, Forge]]:
    for field, row in itertools.product(("offset", "length", "shard", "label", "place"), (0, 3, 9, 10, 23, 24, 30)):
        for by in (-1, 1, 512):
            yield f"index {field} {row} {by}", edit_row(field, row, functools.partial(operator.add, by))
    for pair in ((0, 1), (0, 10), (9, 10), (23, 24), (24, 25)):
        yield f"index rows {pair}", edit_array(INDEX, functools.partial(exchange, pair=list(pair)))
    for file in ("train/000000.idx", DALI):
        yield from ((f"{file} {at}", poke(file, at, b"#")) for at in range(0, 700, 29))
    yield from ((f"rejects {name}", edit_rejects(change)) for name, change in LISTED.items())


def behind_data(member: int) -> Forge:
    return lambda root: poke(TAR, infos(root)[member].offset_data + infos(root)[member].size, b"x")(root)


def longer(by: int) -> Forge:
    return lambda root: os.truncate(root / TAR, (root / TAR).stat().st_size + by)


def exchange(rows: Any, pair: list[int]) -> None:
    rows[pair] = rows[pair[::-1]]


def in_header(member: int, at: int, content: bytes) -> Forge:
    """Change a field of a member's header and make the header's checksum right."""

    def forge(root: Path) -> None:
        start = infos(root)[member].offset
        poke(TAR, start + at, content)(root)
        data = bytearray((root / TAR).read_bytes())
        block = data[start : start + 512]
        block[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
        (root / TAR).write_bytes(data)

    return forge


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_what_two_parts_say_differently_is_found(sealed: Path, copy: Path, step: int) -> None:
    every = list(forgeries())
    assert len(every) > 280
    for name, forge in every[::step]:
        forge(copy)
        reseal(copy)
        assert not verify(copy).passed, name
        put_back(sealed, copy)


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
    edit_row("label", 0, lambda _: label)(root)


UNSEEN: dict[str, Forge] = {
    "a label, everywhere": relabel,
    "an image": lambda root: poke(TAR, infos(root)[2].offset_data + 400, b"\x01")(root),
    "words of a class": set_field("classes", 0, "words", to="a dog"),
    "wnid of a class": set_field("classes", 2, "wnid", to="n9"),
    "seed": set_field("settings", "seed", to=8),
    "quality": set_field("settings", "quality", to=91),
    "source": set_field("source", "digest", to="0" * 64),
    "version": set_field("versions", "pillow", to="0"),
    "why one was rejected": edit_rejects(lambda records: [{**records[0], "reason": "too beautiful"}, *records[1:]]),
    "licence": edit_bytes("LICENSE", lambda _: b"yours"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_said_once_is_only_as_good_as_the_lists_own_sha256(sealed: Path, copy: Path, name: str) -> None:
    """The docs say so: these are found by comparing that with one that was noted before."""
    UNSEEN[name](copy)
    reseal(copy)
    assert verify(copy).passed
    assert any((copy / name).read_bytes() != (sealed / name).read_bytes() for name in (MANIFEST, "SHA256SUMS"))


def test_a_forged_manifest_that_no_reader_takes_is_a_finding(copy: Path) -> None:
    set_field("shards", 0, "file", to="/etc/passwd")(copy)
    with pytest.raises(InputError):
        read_manifest(copy)
    assert "names '/etc/passwd' where train/000000.tar must be" in problems(verify(copy))


# What only pixels say


def encode(pixels: np.ndarray[Any, Any], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("jpeg", "problem"),
    [
        (b"no image", "cannot be decoded"),
        (encode(np.zeros((40, 40, 3), np.uint8))[:-100], "cannot be decoded"),
        (encode(np.zeros((40, 41, 3), np.uint8)), "is 40x41x3 (height, width, channels): must be 40x40x3"),
        (encode(np.zeros((40, 40), np.uint8)), "is 40x40x1 (height, width, channels): must be 40x40x3"),
        (encode(np.zeros((40, 40, 3), np.uint8), progressive=True), "of the kind progressive: must be baseline"),
        (bytes(90_000), "more than any of this size can have"),
    ],
)
def test_deep_finds_images_of_another_kind_by_name(copy: Path, jpeg: bytes, problem: str) -> None:
    edit_tar(lambda m: [(m[0][0], jpeg), *m[1:]])(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    key = members(copy)[0][0].removesuffix(".jpg")
    (found,) = [f for f in report.findings if f.sample == key and f.file == TAR]
    assert problem in found.problem
    assert report.decoded == sum(report.images.values()) - 1
    assert "stored images" not in problems(report)


def exchange_channels(fields: Any) -> dict[str, Any]:
    swap = [2, 1, 0]
    return {
        **fields,
        "mean": [fields["mean"][c] for c in swap],
        "covariance": [[fields["covariance"][a][b] for b in swap] for a in swap],
        "eigenvectors": [[row[c] for c in swap] for row in fields["eigenvectors"]],
    }


def rescale(fields: Any, factor: float) -> dict[str, Any]:
    return {
        **fields,
        "covariance": [[v * factor**2 for v in row] for row in fields["covariance"]],
        "eigenvalues": [v * factor**2 for v in fields["eigenvalues"]],
        "standard_deviations": [v * factor for v in fields["standard_deviations"]],
    }


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            exchange_channels,
            ["manifest.json: says colour.mean", "mean_image.npy: differs from the stored images' mean"],
        ),
        (lambda fields: rescale(fields, 0.5), ["manifest.json: says colour.standard_deviations"]),
        (lambda fields: rescale(fields, 2.0), ["manifest.json: says colour.standard_deviations"]),
    ],
)
def test_deep_finds_colours_of_other_images(
    ci_100: Path, tmp_path: Path, change: Callable[[Any], Any], found: list[str]
) -> None:
    root = Path(shutil.copytree(ci_100, tmp_path / "set"))
    edit_field("colour", change=change)(root)
    if change is exchange_channels:
        edit_array(MEAN, lambda image: image[:, :, ::-1])(root)
    reseal(root)
    assert verify(root).passed
    told = problems(verify(root, decode=decode_stored))
    assert [part for part in found if part in told] == found


@pytest.mark.parametrize("quality", [100, 50, 5])
def test_deep_allows_for_what_encoding_takes_from_noise(copy: Path, quality: int) -> None:
    """Noise of single pixels is the worst case: halved colour resolution takes half of its colours' spread."""
    rng, sums = np.random.default_rng(0), ColourSums(40)

    def with_noise(member: tuple[str, bytes], train: bool) -> tuple[str, bytes]:
        if member[0].endswith("cls"):
            return member
        image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        if train:
            sums.add(image)
        return member[0], encode(image, quality=quality, subsampling="4:2:0")

    for shard in read_manifest(copy).shards:
        edit_tar(lambda m, train=shard.split == "train": [with_noise(x, train) for x in m], shard.file)(copy)  # type: ignore[misc]
    np.save(copy / MEAN, sums.mean_image())
    set_field("colour", to=dataclasses.asdict(statistics_of(sums)))(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    assert report.decoded == sum(report.images.values())
    assert not [f for f in report.findings if f.file in (MANIFEST, MEAN)], problems(report)


def test_deep_takes_grey_images_where_the_settings_say_so(copy: Path) -> None:
    def grey(member: tuple[str, bytes]) -> tuple[str, bytes]:
        name, data = member
        return name, encode(np.asarray(Image.open(io.BytesIO(data)).convert("L"))) if name.endswith("jpg") else data

    for file in (shard.file for shard in read_manifest(copy).shards):
        edit_tar(lambda contents: list(map(grey, contents)), file)(copy)
    set_field("settings", "channels", to=1)(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    assert report.decoded == sum(report.images.values())
