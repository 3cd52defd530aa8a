"""Damaged checkpoints: each is passed over, and the newest whole one comes back as it was saved, to the bit."""

import contextlib
import itertools
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from alexnet.model.checkpoint import Checkpoint, candidates, load_checkpoint, read_progress
from alexnet.shards.errors import InputError
from tests.conftest import list_anew
from tests.runs import save_checkpoint
from tests.unit.model.damage import outcomes

NEWEST, OLDER, OLDEST = "step-000000006", "step-000000004", "step-000000002"
FILES = TENSORS, PROGRESS, SUMS = ("tensors.safetensors", "progress.json", "SHA256SUMS")
WEIGHTS_BYTES = 2 * 40 * 40 * 4
Damage = Callable[[Path], object]


def saved(step: int) -> Checkpoint:
    drawn = torch.Generator().manual_seed(step)
    tensors = {name: torch.randn(40, 40, generator=drawn) for name in ("net.w", "momentum.w")}
    return Checkpoint(step=step, tensors=tensors, progress={"epoch": step // 2, "run": {"seed": 1, "manifest": "m"}})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for step in (2, 4, 6):
        save_checkpoint(folder, saved(step), keep=3)
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A run's folder of three checkpoints, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "checkpoints"))


def newest_whole(folder: Path) -> tuple[int | None, list[str]]:
    """Return the step that a run goes on from, which must be as it was saved, and why not from newer ones."""
    passed: list[str] = []
    for path in candidates(folder):
        try:
            found = load_checkpoint(path)
        except InputError as error:
            passed.append(str(error))
            continue
        expected = saved(found.step)
        assert found.progress == expected.progress
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
        return found.step, passed
    return None, passed


def overwrite(position: int, what: bytes) -> Damage:
    def damage(step: Path) -> None:
        content = bytearray((step / TENSORS).read_bytes())
        content[position : position + len(what)] = what
        (step / TENSORS).write_bytes(content)

    return damage


def cut(name: str, size: int) -> Damage:
    return lambda step: os.truncate(step / name, size if size > 0 else (step / name).stat().st_size + size)


def longer(name: str, by: bytes) -> Damage:
    return lambda step: (step / name).open("ab").write(by)


def from_older(*names: str) -> Damage:
    return lambda step: [shutil.copy(step.parent / OLDER / name, step / name) for name in names]


def instead(make: Damage, name: str = ".") -> Damage:
    """Put something else in the place of a file, or of the folder."""

    def damage(step: Path) -> None:
        path = step / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return damage


def unix_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # such names are short
        made.bind(path.name)


def hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


def edited(key: str, value: object) -> Damage:
    def damage(step: Path) -> None:
        progress = json.loads((step / PROGRESS).read_text())
        (progress["run"] if key == "seed" else progress)[key] = value
        (step / PROGRESS).write_text(json.dumps(progress, indent=1))

    return damage


def exchanged(step: Path) -> None:
    """Have parameters and momentum change places: the same bytes, in another order."""
    tensors = load_file(step / TENSORS)
    momentum = next(name for name in tensors if name.startswith("momentum."))
    net = momentum.replace("momentum.", "net.", 1)
    tensors[net], tensors[momentum] = tensors[momentum], tensors[net]
    save_file(tensors, step / TENSORS, metadata={"format": "pt"})


SPECIAL: dict[str, Damage] = {
    "FIFO": os.mkfifo,
    "socket": unix_socket,
    "folder": Path.mkdir,
    "link to a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "nothing": lambda path: None,
    "an empty file": Path.touch,
    "a hole of 1 TB": hole,
    "[[[[": lambda path: path.write_bytes(b"[" * 200_000),
    "line breaks": lambda path: path.write_bytes(b"\n" * 200_000),
}
DAMAGES: dict[str, Damage] = {
    **{f"{name}: {what}": instead(make, name) for name in FILES for what, make in SPECIAL.items()},
    **{f"the folder: {what}": instead(make) for what, make in SPECIAL.items() if what != "nothing"},
    "4 KiB are zero": overwrite(4096, bytes(4096)),
    "a sector is another's": overwrite(8192, b"x" * 512),
    **{
        f"{name} cut to {size}": cut(name, size) for name, size in zip(FILES, (WEIGHTS_BYTES // 2, 20, 70), strict=True)
    },
    "cut short by a byte": cut(TENSORS, -1),
    "a byte longer": longer(TENSORS, b"x"),
    "an empty line more": longer(SUMS, b"\n"),
    **{f"another's {' and '.join(of)}": from_older(*of) for n in (1, 2) for of in itertools.combinations(FILES, n)},
    "tensors exchanged": exchanged,
    **{f"step {step}": edited("step", step) for step in (7, 5, -5)},
    "another epoch": edited("epoch", 0),
    "another seed": edited("seed", 2),
    "other sizes": edited("files", {TENSORS: 1}),
    "a tensors file too many": lambda step: shutil.copy(step / TENSORS, step / "more.safetensors"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_the_one_before_it_whole(folder: Path, what: str) -> None:
    DAMAGES[what](folder / NEWEST)
    step, (passed,) = newest_whole(folder)
    assert step == 4
    assert f"{NEWEST}: not a whole checkpoint (" in passed
    assert "\n" not in passed


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_goes_unnoticed(folder: Path, stride: int) -> None:
    """One bit of every so many bytes of the small files and of the header, and of fewer of the weights."""
    for name in FILES:
        size = (folder / NEWEST / name).stat().st_size
        header = size - WEIGHTS_BYTES if name == TENSORS else size
        places = (*range(0, header, stride), *range(header, size, 11 * stride))
        found = outcomes(
            folder / NEWEST / name,
            (8 * place + place % 8 for place in places),
            lambda: load_checkpoint(folder / NEWEST).progress,
        )
        assert set(found) == {"refused"}
    assert newest_whole(folder) == (6, [])


LATEST: dict[str, Damage] = {
    "another's name": lambda latest: latest.write_text(f"{OLDER}\n"),
    "what lies elsewhere": lambda latest: latest.write_text("../../etc"),
    "nonsense": lambda latest: latest.write_bytes(b"\xff\x00" * 400),
    "a gigabyte": lambda latest: os.truncate(latest, 10**9),
    **{what: instead(make) for what, make in SPECIAL.items()},
}


@pytest.mark.parametrize("what", LATEST)
def test_a_damaged_latest_names_no_wrong_checkpoint(folder: Path, what: str) -> None:
    LATEST[what](folder / "LATEST")
    assert newest_whole(folder) == (4 if what == "another's name" else 6, [])


def test_with_none_whole_there_is_none(folder: Path) -> None:
    for path in folder.glob("step-*"):
        overwrite(5000, bytes(8))(path)
    found, passed = newest_whole(folder)
    assert found is None
    assert len(passed) == 3


def test_a_checkpoint_that_is_being_replaced_is_the_last_to_be_tried(folder: Path) -> None:
    """A run killed between the two renames has it under another name; the next one's success ends that."""
    for name in (OLDER, OLDEST):
        shutil.rmtree(folder / name)
    (folder / NEWEST).rename(folder / ".replaced-000000006")
    assert newest_whole(folder)[0] == 6
    for _ in range(2):  # and again, for that run may be killed, too
        save_checkpoint(folder, saved(6), keep=1)
        assert sorted(path.name for path in folder.iterdir()) == ["LATEST", NEWEST]
        shutil.copytree(folder / NEWEST, folder / ".replaced-000000006")
    assert [path.name for path in candidates(folder)] == [NEWEST, ".replaced-000000006"]


@pytest.mark.parametrize("what", SPECIAL)
def test_whatever_has_a_checkpoints_name_gives_way_to_it(folder: Path, what: str) -> None:
    instead(SPECIAL[what])(folder / NEWEST)
    save_checkpoint(folder, saved(6), keep=3)
    assert sorted(path.name for path in folder.iterdir()) == ["LATEST", OLDEST, OLDER, NEWEST]
    assert newest_whole(folder) == (6, [])


@pytest.mark.parametrize("offset", [40, 10**12])
def test_parts_that_claim_to_be_of_a_larger_tensor_are_not_filled_up(folder: Path, offset: int) -> None:
    """Memory is taken for what the files hold, and nothing is read that was never written."""
    path = folder / NEWEST
    places = {"net.w": {"saved_offsets": [offset, 0]}, "momentum.w": {"saved_offsets": [0, 0]}}
    save_file(saved(6).tensors, path / TENSORS, metadata={"DCP_SHARDING_INFO": json.dumps(places)})
    edited("files", {TENSORS: (path / TENSORS).stat().st_size})(path)
    list_anew(path)
    with pytest.raises(InputError, match=r"parts of net\.w are not the whole of it"):
        load_checkpoint(path)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["step", "files", "run"]) | st.text(), inner),
)
ONCE = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONCE
@given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_for_progress_are_refused_or_good(folder: Path, content: bytes) -> None:
    """With checksums that agree, too, which chance does not make."""
    (folder / NEWEST / PROGRESS).write_bytes(content)
    list_anew(folder / NEWEST)
    with contextlib.suppress(InputError):
        assert read_progress(folder / NEWEST)["step"] >= 0


@ONCE
@given(content=st.binary())
def test_any_bytes_for_the_checksums_are_refused(folder: Path, content: bytes) -> None:
    (folder / NEWEST / SUMS).write_bytes(content)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        read_progress(folder / NEWEST)
