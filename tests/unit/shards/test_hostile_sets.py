"""Whatever somebody wrote into a data set, reading it ends in one line or in samples: no traceback, no waiting."""

import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.shards.reader import SplitReader
from tests.unit.shards.conftest import PROPERTY
from tests.unit.shards.forging import (
    TAR,
    Forge,
    edit_array,
    put_back,
    set_row,
    with_bytes,
    with_text,
    write_manifest,
)
from tests.unit.shards.readers import faults_of, stream

# Files that are none, and arrays that are others


def crafted() -> Iterator[tuple[str, Forge]]:
    """Yield names of crafted data sets and what makes each of a copy of a sound one."""
    yield from _arrays()
    zeros = b"0" * 64
    for content in (b"", b"\n" * 100_000, b"\xff" * 1000, zeros, zeros + b"  ../x\n", zeros + b"  /dev/zero\n"):
        yield f"list {content[60:80]!r}", with_bytes("SHA256SUMS", content)
    for content in (b"\n", b"[]", b"\xff\xfe", b"[" * 1_000_000, b"{}\n" * 1000, b"x" * 3_000_000):
        yield f"rejects {content[:10]!r}", with_bytes("rejected.jsonl", content)
    for text in ("", "[]", "{}", "null", "{", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "schema": 2}', "\x00\xff"):
        yield f"manifest {text[:20]!r}", with_bytes("manifest.json", text.encode("latin-1"))
    names = ("manifest.json", "index.npy", "mean_image.npy", "rejected.jsonl", "SHA256SUMS", TAR, "train/000000.idx")
    for name, kind in itertools.product((*names, "train"), INSTEAD):
        yield f"{name} is a {kind}", instead(name, INSTEAD[kind])


def _arrays() -> Iterator[tuple[str, Forge]]:
    for field, row in itertools.product(("offset", "length", "shard", "label", "place"), (0, 5, -1)):
        for value in (-(2**31), -1, 0, 1, 511, 2**31 - 1, *((2**63 - 1, -(2**63)) if field == "offset" else ())):
            yield f"index {field} {row} {value}", set_row(field, row, value)
    yield "index all one sample", edit_array("index.npy", lambda rows: rows[np.zeros(len(rows), int)])
    for value in (np.nan, np.inf, -np.inf, -1.0, 256.0, 3e38):
        yield f"mean image {value}", edit_array("mean_image.npy", functools.partial(_with_pixel, value))
    shapes = ((40, 40), (40, 40, 1), (39, 40, 3), (0, 40, 3), (4800,), (40, 40, 3, 1), ())
    others = [*(np.zeros(shape, "f4") for shape in shapes)]
    others += [np.zeros((40, 40, 3), dtype) for dtype in ("f8", "f2", "u1", "c8", ">f4", "S4", "O")]
    for other in others:
        yield f"mean image {other.dtype} {other.shape}", functools.partial(_save_mean_image, other)
    yield from headers("mean_image.npy", "(40, 40, 3)", "'<f4'", bytes(4 * 4800))
    yield from headers("index.npy", "(31,)", "[('offset', '<i8'), ('length', '<i4'), ('shard', '<i4')]", bytes(24 * 31))


def _save_mean_image(image: Any, root: Path) -> None:
    np.save(root / "mean_image.npy", image)


def _with_pixel(value: float, image: Any) -> None:
    image[3, 4, 1] = value


def headers(file: str, shape: str, descr: str, data: bytes) -> Iterator[tuple[str, Forge]]:
    """Yield NumPy files whose headers NumPy would evaluate, or believe."""
    magic, header = b"\x93NUMPY\x01\x00", "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
    wrong_shapes = ("(1000000000000,)", "(1000000, 1000000, 1000000)", "(-1,)", f"({'9' * 6000},)", "(1e400,)")
    odd = [header.format(descr, "False", wrong) for wrong in wrong_shapes]
    odd += [header.format(descr, "True", shape), header.format("'|O'", "False", shape)]
    odd += [header.format("[" * 9000 + "]" * 9000, "False", shape), "(" * 60_000, "{'descr': ", ""]
    odd += ["__import__('os').abort()"]
    for text in (text.encode() + b"\n" for text in odd):
        yield f"{file} {text[:99]!r}", with_bytes(file, magic + len(text).to_bytes(2, "little") + text + data)
    for version in (b"\x02\x00", b"\x03\x00", b"\xff\xff"):
        yield f"{file} {version!r}", with_bytes(file, magic[:6] + version + b"\xff\xff\xff\xff" + data)
    for content in (magic, b"PK\x03\x04" + data, b"\x80\x04cos\nabort\n(tR."):
        yield f"{file} {content[:9]!r}", with_bytes(file, content)


INSTEAD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a file of the system": lambda path: path.symlink_to("/etc/passwd"),
    "gap": lambda path: None,
    "empty file": lambda path: path.touch(),
}


def instead(name: str, make: Callable[[Path], object]) -> Forge:
    """Make files that are no longer any, or that are links to what is none."""

    def forge(root: Path) -> None:
        (root / name).rename(root.parent / "away")
        make(root / name)

    return forge


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_crafted_data_set_ends_in_one_line_or_in_samples(sealed: Path, copy: Path, step: int) -> None:
    """All of them also decode every image, for `verify --deep` and `show`."""
    crafts = list(crafted())
    assert len(crafts) > 200
    for name, craft in crafts[::step]:
        craft(copy)
        assert list(faults_of(copy, at_length=step == 1)) == [], name
        put_back(sealed, copy)


# Any value of the lists

ODD_NAMES = ('"../x"', '"/etc/passwd"', '"/dev/zero"', '"a\\u0000b"', '"\\u001b[31m"', '""')
ODD = (
    *ODD_NAMES,
    *("null", "-1", "0", "1.5", "10.0", "1e400", "NaN", str(2**31), str(2**63), str(2**70), "1" * 5000, "true"),
    *('"\\udc80"', f'"{"x" * 1_000_000}"', "[]", "{}", "[[[]]]", "[" * 400 + "]" * 400),
    *("[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=10,
).map(json.dumps) | st.sampled_from(ODD)


@pytest.mark.parametrize("examples", [25, pytest.param(5000, marks=pytest.mark.slow)])
def test_any_change_of_the_lists_ends_in_one_line_or_in_samples(sealed: Path, copy: Path, examples: int) -> None:
    """A value anywhere in the manifest, or in the record of a reject, is replaced, or dropped."""
    sound = json.loads((sealed / "manifest.json").read_text())
    reject = json.loads((sealed / "rejected.jsonl").read_text().splitlines()[0])

    @settings(PROPERTY, max_examples=examples)
    @given(data=st.data())
    def change(data: st.DataObject) -> None:
        name, fields = data.draw(st.sampled_from([("manifest.json", sound), ("rejected.jsonl", reject)]))
        changed: Any = json.loads(json.dumps(fields))
        inner, holder = changed, None
        while holder is None or (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            holder = inner
            step = data.draw(st.sampled_from(range(len(inner)) if isinstance(inner, list) else sorted(inner)))
            inner = inner[step]
        value = data.draw(st.none() | VALUES)
        if value is None:
            holder.pop(step)
        else:
            holder[step] = "put in below"
        (copy / name).write_text(json.dumps(changed).replace('"put in below"', value or "") + "\n")
        assert list(faults_of(copy)) == []
        shutil.copy(sealed / name, copy / name)

    change()


@pytest.mark.parametrize("flips", [6, pytest.param(1100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "mean_image.npy"])
def test_a_flipped_bit_is_refused_or_changes_no_image(sealed: Path, copy: Path, name: str, flips: int) -> None:
    """In the manifest it may be in a figure that nothing else says: `verify` finds that."""
    pixels = torch.cat([images for images, _ in stream(sealed, steps=None)])
    sound = (sealed / name).read_bytes()
    bits = np.random.default_rng(flips).integers(0, 8 * (1000 if name == "mean_image.npy" else len(sound)), flips)
    for bit in bits.tolist():
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        (copy / name).write_bytes(flipped)
        assert list(faults_of(copy)) == [], bit
        try:
            batches = stream(copy, steps=None if name == "index.npy" and flips > 100 else 1)
        except InputError:
            continue
        found = torch.cat([images for images, _ in batches])
        assert name == "manifest.json" or torch.equal(found, pixels[: len(found)]), bit


# What is meant


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_name_leads_out_of_the_data_set(copy: Path, name: str) -> None:
    with_text(("shards", 0, "file"), name)(copy)
    with pytest.raises(InputError, match=r"names '.*' where train/000000\.tar must be"):
        SplitReader(copy, "train")


def test_links_lead_to_other_disks_but_not_to_devices(copy: Path, tmp_path: Path) -> None:
    for name in ("train/000000.tar", "index.npy", "manifest.json"):
        (copy / name).rename(tmp_path / Path(name).name)
        (copy / name).symlink_to(tmp_path / Path(name).name)
    assert len(SplitReader(copy, "train").stored(0))
    (copy / "train/000000.tar").unlink()
    (copy / "train/000000.tar").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"train/000000\.tar: is no regular file"):
        SplitReader(copy, "train")


def test_what_was_read_is_written_as_it_was(copy: Path) -> None:
    fields = json.loads((copy / "manifest.json").read_text())
    fields["colour"]["mean"][0] = 17
    fields["settings"]["another"] = 1.0
    write_manifest(copy, fields)
    assert read_manifest(copy).to_json() == (copy / "manifest.json").read_text()


def test_a_mean_image_of_other_bytes_is_refused(copy: Path) -> None:
    edit_array("mean_image.npy", lambda image: image + np.float32(1e-3))(copy)
    with pytest.raises(InputError, match=r"mean_image\.npy: is not the one that the manifest names"):
        SplitReader(copy, "train").mean_image()
