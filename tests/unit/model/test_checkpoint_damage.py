"""Damaged checkpoints: each is passed over, and the newest whole one comes back as it was saved, to the bit."""

import contextlib
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
from alexnet.model.checkpoint_writer import save_checkpoint
from alexnet.shards.errors import InputError
from tests.conftest import list_anew

NEWEST, OLDER = "step-000000006", "step-000000004"
FILES = ("tensors.safetensors", "progress.json", "SHA256SUMS")
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


def newest_whole(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return what a run goes on from, and why not from newer ones, as commands do it."""
    passed: list[str] = []
    for path in candidates(folder):
        try:
            return load_checkpoint(path), passed
        except InputError as error:
            passed.append(str(error))
    return None, passed


def assert_as_saved(found: Checkpoint | None) -> None:
    assert found is not None
    expected = saved(found.step)
    assert found.progress == expected.progress
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def hole(path: Path, size: int = 10**12) -> None:
    path.touch()
    os.truncate(path, size)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << position % 8
    path.write_bytes(content)


def overwrite(name: str, position: int, what: bytes) -> Damage:
    def damage(step: Path) -> None:
        content = bytearray((step / name).read_bytes())
        content[position : position + len(what)] = what
        (step / name).write_bytes(content)

    return damage


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
    here = Path.cwd()
    os.chdir(path.parent)  # such names are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def edited(path: str, value: object) -> Damage:
    def damage(step: Path) -> None:
        progress = json.loads((step / "progress.json").read_text())
        *above, last = path.split(".")
        place = progress
        for key in above:
            place = place[key]
        place[last] = value
        (step / "progress.json").write_text(json.dumps(progress, indent=1))

    return damage


def exchanged(step: Path) -> None:
    """Have parameters and momentum change places: the same bytes, in another order."""
    file, other = step / "tensors.safetensors", {"net": "momentum", "momentum": "net"}
    tensors = {name.partition("."): tensor for name, tensor in load_file(file).items()}
    swapped = {f"{other[kind]}.{name}": tensor for (kind, _, name), tensor in tensors.items()}
    save_file(swapped, file, metadata={"format": "pt"})


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
WHOLE = 2 * 40 * 40 * 4
DAMAGES: dict[str, Damage] = {
    **{f"{name}: {what}": instead(make, name) for name in FILES for what, make in SPECIAL.items()},
    "4 KiB are zero": overwrite(FILES[0], 4096, bytes(4096)),
    "a sector is another's": overwrite(FILES[0], 8192, b"x" * 512),
    "cut short by a byte": lambda step: os.truncate(step / FILES[0], (step / FILES[0]).stat().st_size - 1),
    "cut short by half": lambda step: os.truncate(step / FILES[0], WHOLE // 2),
    "a byte longer": lambda step: (step / FILES[0]).open("ab").write(b"x"),
    "progress.json cut short": lambda step: os.truncate(step / FILES[1], 20),
    "SHA256SUMS cut short": lambda step: os.truncate(step / FILES[2], 70),
    "an empty line more": lambda step: (step / FILES[2]).open("ab").write(b"\n"),
    "another's tensors": from_older(FILES[0]),
    "another's progress": from_older(FILES[1]),
    "another's checksums": from_older(FILES[2]),
    "another's tensors and progress": from_older(*FILES[:2]),
    "another's tensors and checksums": from_older(FILES[0], FILES[2]),
    "another's progress and checksums": from_older(*FILES[1:]),
    "tensors exchanged": exchanged,
    "a later step": edited("step", 7),
    "an earlier step": edited("step", 5),
    "step -5": edited("step", -5),
    "another epoch": edited("epoch", 0),
    "another seed": edited("run.seed", 2),
    "other sizes": edited("files", {"tensors.safetensors": 1}),
    "a tensors file too many": lambda step: shutil.copy(step / FILES[0], step / "more.safetensors"),
    **{f"the folder: {what}": instead(make) for what, make in SPECIAL.items() if what != "nothing"},
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_the_one_before_it_whole(run: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(run, folder)
    DAMAGES[what](folder / NEWEST)
    found, passed = newest_whole(folder)
    assert_as_saved(found)
    assert found is not None
    assert found.step == 4
    assert len(passed) == 1
    assert f"{NEWEST}: not a whole checkpoint (" in passed[0]
    assert "\n" not in passed[0]


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_goes_unnoticed(run: Path, tmp_path: Path, stride: int) -> None:
    """One bit of every so many bytes of the small files and of the header, and of fewer of the weights."""
    shutil.copytree(run / NEWEST, tmp_path / NEWEST)
    unnoticed = []
    for name in FILES:
        file = tmp_path / NEWEST / name
        content = file.read_bytes()
        header = len(content) - WHOLE if name == FILES[0] else len(content)
        for position in (*range(0, header, stride), *range(header, len(content), 11 * stride)):
            flip(file, position)
            try:
                load_checkpoint(tmp_path / NEWEST)
                unnoticed.append((name, position))
            except InputError:
                pass
            file.write_bytes(content)
    assert not unnoticed
    assert_as_saved(load_checkpoint(tmp_path / NEWEST))


LATEST: dict[str, Damage] = {
    "another's name": lambda latest: latest.write_text(f"{OLDER}\n"),
    "what lies elsewhere": lambda latest: latest.write_text("../../etc"),
    "nonsense": lambda latest: latest.write_bytes(b"\xff\x00" * 400),
    "a gigabyte": lambda latest: os.truncate(latest, 10**9),
    **{what: instead(make) for what, make in SPECIAL.items()},
}


@pytest.mark.parametrize("what", LATEST)
def test_a_damaged_latest_names_no_wrong_checkpoint(run: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(run, folder)
    LATEST[what](folder / "LATEST")
    found, _ = newest_whole(folder)
    assert_as_saved(found)
    assert found is not None
    assert found.step == (4 if what == "another's name" else 6)


def test_with_none_whole_there_is_none(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(run, folder)
    for path in folder.glob("step-*"):
        flip(path / FILES[0], 5000)
    found, passed = newest_whole(folder)
    assert found is None
    assert len(passed) == 3


def test_a_checkpoint_that_is_being_replaced_is_the_last_to_be_tried(run: Path, tmp_path: Path) -> None:
    """A run killed between the two renames has it under another name; the next one's success ends that."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(run, folder)
    for name in (OLDER, "step-000000002"):
        shutil.rmtree(folder / name)
    (folder / NEWEST).rename(folder / ".replaced-000000006")
    found, _ = newest_whole(folder)
    assert_as_saved(found)
    for _ in range(2):  # and again, for that run may be killed, too
        save_checkpoint(folder, saved(6), keep=1)
        assert sorted(path.name for path in folder.iterdir()) == ["LATEST", NEWEST]
        shutil.copytree(folder / NEWEST, folder / ".replaced-000000006")
    assert [path.name for path in candidates(folder)] == [NEWEST, ".replaced-000000006"]


@pytest.mark.parametrize("what", SPECIAL)
def test_whatever_has_a_checkpoints_name_gives_way_to_it(run: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(run, folder)
    instead(SPECIAL[what])(folder / NEWEST)
    save_checkpoint(folder, saved(6), keep=3)
    assert sorted(path.name for path in folder.iterdir()) == ["LATEST", "step-000000002", OLDER, NEWEST]
    assert_as_saved(load_checkpoint(folder / NEWEST))


def test_parts_that_claim_to_be_of_a_larger_tensor_are_not_filled_up(run: Path, tmp_path: Path) -> None:
    """Memory is taken for what the files hold, and nothing is read that was never written."""
    path = tmp_path / NEWEST
    shutil.copytree(run / NEWEST, path)
    for offset in (40, 10**12):
        places = {"net.w": {"saved_offsets": [offset, 0]}, "momentum.w": {"saved_offsets": [0, 0]}}
        metadata = {"DCP_SHARDING_INFO": json.dumps(places)}
        save_file(saved(6).tensors, path / FILES[0], metadata=metadata)
        edited("files", {FILES[0]: (path / FILES[0]).stat().st_size})(path)
        list_anew(path)
        with pytest.raises(InputError, match=r"parts of net\.w are not the whole of it"):
            load_checkpoint(path)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["step", "files", "run"]) | st.text(), inner),
)
AS_TEXT = JSON.map(lambda value: json.dumps(value).encode())
ONCE = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONCE
@given(content=st.binary() | AS_TEXT)
def test_any_bytes_for_progress_are_refused_or_good(run: Path, tmp_path: Path, content: bytes) -> None:
    """With checksums that agree, too, which chance does not make."""
    path = tmp_path / NEWEST
    shutil.copytree(run / NEWEST, path, dirs_exist_ok=True)
    (path / "progress.json").write_bytes(content)
    list_anew(path)
    with contextlib.suppress(InputError):
        assert read_progress(path)["step"] >= 0


@ONCE
@given(content=st.binary())
def test_any_bytes_for_the_checksums_are_refused(run: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / NEWEST
    shutil.copytree(run / NEWEST, path, dirs_exist_ok=True)
    (path / "SHA256SUMS").write_bytes(content)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        read_progress(path)
