"""`alexnet-prep synth` as a user types it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from alexnet.shards.manifest import Split, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.tools.prep import main
from tests.conftest import digests

SMALL = (
    "--classes",
    "5",
    "--images",
    "60",
    "--val-images",
    "11",
    "--shard-images",
    "16",
    "--size",
    "48",
    "--seed",
    "3",
)
SMALL_OFFICIAL = ("--layout", "official", *SMALL[:6], "--seed", "3")


def prep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "set"
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    result = prep("synth", root, *SMALL, "--workers", "2")
    for number, handler in before.items():  # the command leaves its process deaf, and this one is pytest's
        signal.signal(number, handler)
    assert result.exit_code == 0, result.output
    assert "drawing 5 classes, 60 train and 11 val pictures, from seed 3" in result.output
    assert "train: 60 in = 60 written + 0 rejected" in result.output
    return root


def test_the_shards_verify_to_the_last_pixel(shards: Path) -> None:
    result = prep("verify", "--deep", shards, "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "71 images decoded: all is well" in result.output


def test_the_manifest_says_what_it_is(shards: Path) -> None:
    manifest = read_manifest(shards)
    assert manifest.source["kind"] == "synthetic-1"
    assert manifest.settings["seed"] == 3
    assert [record.wnid for record in manifest.classes] == [f"n9000000{k}" for k in range(1, 6)]
    assert manifest.classes[0].words == "disc of coarse steep stripes on fine upright stripes"
    assert np.bincount(SplitReader(shards, "train").labels).tolist() == [12] * 5


def test_workers_do_not_change_a_byte(shards: Path, tmp_path: Path) -> None:
    assert prep("synth", tmp_path / "set", *SMALL, "--workers", "1").exit_code == 0
    assert digests(tmp_path / "set") == digests(shards)


def test_another_seed_gives_other_pictures(shards: Path, tmp_path: Path) -> None:
    assert prep("synth", tmp_path / "set", *SMALL[:-1], "4", "--workers", "1").exit_code == 0
    ours, others = digests(shards), digests(tmp_path / "set")
    assert ours.keys() == others.keys()
    assert [name for name in ours if ours[name] == others[name]] == ["rejected.jsonl"]


def test_typed_again_it_does_nothing(shards: Path) -> None:
    before = digests(shards)
    result = prep("synth", shards, *SMALL)
    assert result.exit_code == 0
    assert "already complete; nothing to do" in result.output
    assert digests(shards) == before


def test_the_official_layout_converts_to_the_same_classes_places_and_names(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "ilsvrc"
    result = prep("synth", root, *SMALL_OFFICIAL, "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "in ILSVRC-2012's layout; 71 images" in result.output
    assert "already complete" in prep("synth", root, *SMALL_OFFICIAL).output
    out = tmp_path / "out"
    assert prep("shard", root, "--out", out, "--seed", "3", "--size", "48", "--shard-images", "16").exit_code == 0
    assert read_manifest(out).classes == read_manifest(shards).classes
    for shard in read_manifest(shards).shards:
        indices = [(folder / shard.file).with_suffix(".idx").read_text().split("\n") for folder in (shards, out)]
        keys = [[line.split()[3] for line in lines[1:] if line] for lines in indices]
        assert keys[0] == keys[1]
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        assert np.array_equal(SplitReader(shards, split).labels, SplitReader(out, split).labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--classes", "0"), "Error: classes=0: must be between 1 and 4,096"),
        (("--classes", "5000"), "Error: classes=5000: must be between 1 and 4,096"),
        (("--images", "999"), "Error: images=999: must be between 1,000 and 20,000,000, one for each class"),
        (("--val-images", "-3"), "Error: val_images=-3: must be between 0 and 20,000,000"),
        (("--seed", "-1"), "Error: seed=-1: must be between 0 and"),
        (("--size", "257"), "Error: size_px=257: must be at most 256, as large as pictures are drawn"),
        (("--size", "15"), "Error: size_px=15: must be between 16 and"),
        (("--shard-images", "0"), "Error: shard_images=0: must be between 1 and"),
        (("--layout", "official", "--size", "64"), "Error: --size 64: is for --layout shards"),
        (("--layout", "official", "--val-images", "50000"), "Error: val_images=50000: "),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    result = prep("synth", root, *arguments)
    assert result.exit_code == 2
    assert result.output.startswith(message)
    assert len(result.output.splitlines()) == 1
    assert not root.exists()


@pytest.mark.parametrize("layout", ["shards", "official"])
def test_a_folder_with_anything_else_is_refused_and_untouched(layout: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for more in ((), ("--overwrite",)):
        result = prep("synth", tmp_path, "--layout", layout, "--classes", "2", "--images", "4", *more)
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert "--out" not in result.output
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    result = prep("synth", tmp_path / "thesis.tex", "--layout", layout)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)


def test_a_set_is_not_drawn_over_one_of_the_other_layout(shards: Path, tmp_path: Path) -> None:
    before = digests(shards)
    for more in ((), ("--overwrite",)):
        result = prep("synth", shards, *SMALL_OFFICIAL, *more)
        assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
        assert digests(shards) == before


def test_overwrite_draws_anew(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(shards, root)
    refused = prep("synth", root, *SMALL[:-1], "4", "--workers", "1")
    assert refused.exit_code == 2
    assert "seed 3 there, 4 asked for" in refused.output
    assert "give another DIR, or --overwrite" in refused.output
    assert prep("synth", root, *SMALL[:-1], "4", "--workers", "1", "--overwrite").exit_code == 0
    assert read_manifest(root).settings["seed"] == 4


def test_events_for_machines(tmp_path: Path) -> None:
    for layout in ("shards", "official"):
        result = prep("synth", tmp_path / layout, "--layout", layout, "--classes", "2", "--images", "4", "--json")
        assert result.exit_code == 0, result.output
        events = [json.loads(line) for line in result.output.splitlines()]
        assert [events[0]["event"], events[-1]["event"]] == ["source", "complete"]
        assert events[0]["entries"] == {"train": 4, "val": 2}
        assert events[-2]["event"] == "progress"
        assert (events[-2]["done"], events[-2]["total"]) == (6, 6)


def strike(command: list[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal to a run that has drawn something and not all; return its exit code and what it said of it."""
    run = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if json.loads(line)["event"] == "progress" and json.loads(line)["done"] > 0:
            break
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    return run.returncode, errors


def large(root: Path, layout: str, pictures: int = 3000) -> list[str]:
    """Return a command of seconds of work."""
    images = ("--classes", "40", "--images", str(pictures), "--val-images", "40", "--workers", "2")
    shards = ("--shard-images", "200") if layout == "shards" else ()
    return [sys.executable, "-m", "alexnet.tools.prep", "synth", str(root), "--layout", layout, *images, *shards]


@pytest.mark.parametrize("layout", ["shards", "official"])
def test_interrupted_it_says_so_in_one_line(layout: str, tmp_path: Path) -> None:
    said = strike(large(tmp_path, layout, pictures=8000 if layout == "official" else 30_000), signal.SIGINT)
    assert said == (130, "interrupted; the same command continues\n")
    assert (tmp_path / ".work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["shards", "official"])
def test_interrupted_or_killed_it_goes_on_and_gives_the_same_bytes(layout: str, tmp_path: Path) -> None:
    root = tmp_path / "struck"
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, 130)):
        assert strike(large(root, layout), number)[0] in (code, 0)
    for folder in (root, tmp_path / "whole"):
        assert subprocess.run(large(folder, layout), capture_output=True, check=False).returncode == 0
    assert digests(root) == digests(tmp_path / "whole")


def test_a_full_disk_ends_in_one_line_and_the_next_call_continues(tmp_path: Path) -> None:
    """A file size limit of 1 MB makes writing fail as a full disk does."""
    root = tmp_path / "set"
    command = [sys.executable, "-m", "alexnet.tools.prep", "synth", str(root), *SMALL_OFFICIAL]
    limited = ["bash", "-c", 'ulimit -f 1000; trap "" XFSZ; exec "$@"', "bash", *command]
    run = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert run.stderr.startswith("Error: File too large: ")
    assert len(run.stderr.splitlines()) == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_needs_neither_torch_nor_dali(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom alexnet.tools.prep import main\n"
        f"main(['synth', {str(tmp_path / 'set')!r}, '--classes', '2', '--images', '4'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'nvidia')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert run.stdout.splitlines()[-1] == "[]"
