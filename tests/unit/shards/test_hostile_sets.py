"""Whatever somebody wrote into a data set, reading it ends in one line or in samples: no traceback, no waiting."""

import json
import shutil
import subprocess
import sys
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
from tests.unit.shards.forging import edit_array, holder_of, put_back, write_manifest
from tests.unit.shards.hostile_sets import TEXTS, crafted, large, with_field
from tests.unit.shards.readers import faults_of, stream


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_a_crafted_data_set_ends_in_one_line_or_in_samples(sealed: Path, copy: Path, step: int) -> None:
    """All of them also decode every image, for `verify --deep` and `show`."""
    crafts = list(crafted(sealed))
    assert len(crafts) > 1500
    for name, craft in crafts[::step]:
        craft(copy)
        assert list(faults_of(copy, at_length=step == 1)) == [], name
        put_back(sealed, copy)


LARGE = """
import resource, sys
from pathlib import Path
from tests.unit.shards.readers import faults_of

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

if __name__ == "__main__":
    sound, hostile = map(Path, sys.argv[1:])
    assert list(faults_of(sound, at_length=True)) == []
    before = peak_mb()
    faults = list(faults_of(hostile))
    print(*faults, int(peak_mb() - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in large()])
def test_a_large_one_takes_no_more_memory_than_its_files_explain(sealed: Path, copy: Path, name: str) -> None:
    dict(large())[name](copy)
    command = [sys.executable, "-c", LARGE, str(sealed), str(copy)]
    run = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 500


# Bits that flipped


@pytest.fixture(scope="module")
def bundled(ci_100: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(ci_100, tmp_path_factory.mktemp("bundled") / "set"))
    for path in root.rglob("*"):
        path.chmod(0o755)
    return root


@pytest.fixture(scope="module")
def pixels(bundled: Path) -> torch.Tensor:
    return torch.cat([images for images, _ in stream(bundled, steps=None)])


@pytest.mark.parametrize("flips", [6, pytest.param(1100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "mean_image.npy"])
def test_a_flipped_bit_is_refused_or_changes_no_image(
    bundled: Path, pixels: torch.Tensor, name: str, flips: int
) -> None:
    """In the manifest it may be in a figure that nothing else says: `verify` finds that."""
    rng = np.random.default_rng(flips)
    path = bundled / name
    sound = path.read_bytes()
    bits = rng.integers(0, 8 * (1000 if name == "mean_image.npy" else len(sound)), flips)
    for bit in bits.tolist():
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert list(faults_of(bundled)) == [], bit
            batches = stream(bundled, steps=None if name == "index.npy" and flips > 100 else 1)
        except InputError:
            continue
        finally:
            path.write_bytes(sound)
        found = torch.cat([images for images, _ in batches])
        assert name == "manifest.json" or torch.equal(found, pixels[: len(found)]), bit


# Anything at all


@settings(PROPERTY, max_examples=100)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_no_manifest(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_manifest(copy)
    assert "\n" not in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("examples", [12, pytest.param(5000, marks=pytest.mark.slow)])
def test_any_change_of_a_manifest_ends_in_one_line_or_in_samples(sealed: Path, copy: Path, examples: int) -> None:
    """A value anywhere is replaced, or dropped."""

    @settings(PROPERTY, max_examples=examples)
    @given(data=st.data())
    def change(data: st.DataObject) -> None:
        fields: Any = json.loads((sealed / "manifest.json").read_text())
        path: list[str | int] = []
        inner = fields
        while not path or (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            path.append(data.draw(st.sampled_from(range(len(inner)) if isinstance(inner, list) else sorted(inner))))
            inner = inner[path[-1]]
        holder = holder_of(fields, tuple(path))
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(VALUES)
        else:
            holder.pop(path[-1])
        (copy / "manifest.json").write_text(json.dumps(fields))
        assert list(faults_of(copy)) == []

    change()


# What is meant


@pytest.mark.parametrize("name", ["above", "absolute", "device", "NUL", "escape", "no text"])
def test_no_name_leads_out_of_the_data_set(copy: Path, name: str) -> None:
    with_field(("shards", 0, "file"), TEXTS[name])(copy)
    with pytest.raises(InputError, match=r"names '.*' where train/000000\.tar must be"):
        SplitReader(copy, "train")


def test_links_lead_to_other_disks_but_not_to_devices(copy: Path, tmp_path: Path) -> None:
    for name in ("train/000000.tar", "index.npy", "manifest.json"):
        (copy / name).rename(tmp_path / Path(name).name)
        (copy / name).symlink_to(tmp_path / Path(name).name)
    assert len(SplitReader(copy, "train").jpeg(0))
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
