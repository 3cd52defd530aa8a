"""What `alexnet-prep shard` says on its way: lines for logs, events for machines, one line when it is stopped."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL
import pytest
from click.testing import Result

from alexnet.shards.manifest import read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify import verify
from alexnet.tools.convert.pillow import describe_resizing, distribution
from tests.conftest import encode_picture, prep
from tests.sources import write_entries, write_files

pytestmark = pytest.mark.usefixtures("no_workers")
OPTIONS = ("--size", "40", "--shard-images", "10", "--seed", "7", "--workers", "1")


def shard(source: Path, out: Path, *more: object, code: int = 0) -> Result:
    return prep("shard", source, "--out", out, *OPTIONS, *more, code=code)


def events_of(source: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shard(source, out, "--json", *more).stdout.splitlines()]


def test_events_tell_all_that_lines_do(official: Path, tmp_path: Path) -> None:
    events = events_of(official, tmp_path / "set", "--md5")
    kinds = [event["event"] for event in events]
    assert kinds == sorted(kinds, key=["index", "source", "progress", "complete"].index)
    ends = {event["stage"]: event for event in events if event["event"] == "index"}
    counted = {stage: event["entries"] for stage, event in ends.items()}
    assert counted == {"class tars": 3, "train": 27, "val": 7, "md5": 0}
    assert all(event["done"] == event["total"] for event in ends.values())
    source = next(event for event in events if event["event"] == "source")
    assert source["kind"] == "ilsvrc2012-archives"
    assert (source["classes"], source["entries"]) == (3, {"train": 27, "val": 7})
    assert any("md5" in note for note in source["notes"])
    first, last = (next(e for e in order if e["event"] == "progress") for order in (events, events[::-1]))
    assert (first["done"], first["total"], first["unit"]) == (0, 34, "images")
    assert (last["done"], last["rejected"]) == (34, 3)
    counts = read_manifest(tmp_path / "set").counts
    assert events[-1]["counts"]["train"] == {"input": 27, "written": counts["train"].written, "rejected": 3}
    assert events[-1]["seconds"] > 0
    again = events_of(official, tmp_path / "set")
    assert not [event for event in again if event["event"] == "progress"]
    assert (again[-1]["event"], again[-1]["seconds"]) == ("complete", None)


def test_a_resumed_call_counts_its_own_images(official: Path, tmp_path: Path) -> None:
    shard(official, tmp_path / "set", "--max-rejected", "0", code=1)
    (tmp_path / "set" / "train" / "000001.tar").unlink()
    said = shard(official, tmp_path / "set").output
    assert "complete: 4 shards; 10 images (24 more by an earlier call) in " in said


def test_plain_lines_where_there_is_no_terminal(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.tools.progress.PLAIN_SECONDS", 0.0)
    result = shard(official, tmp_path / "set")
    lines = result.stdout.splitlines()
    assert lines[0] == f"reading the headers of {official} ..."
    assert describe_resizing() in lines
    assert any(line.startswith("index train: 0 of 0 MB (100%), ") and "27 entries" in line for line in lines)
    assert any(line.startswith("34 of 34 images (100%), ") and "3 rejected" in line for line in lines)
    assert "\x1b" not in result.stdout
    assert PIL.__version__ == version(distribution()), "pillow-simd's releases can be told from Pillow's"
    assert "warning" not in result.output


def test_interrupted_in_a_terminal_it_leaves_one_clean_line(tmp_path: Path) -> None:
    write_entries(tmp_path / "tars", 300, 600_000)  # 12 s of headers, if nobody interrupts
    command = [sys.executable, "-m", "alexnet.tools.prep", "shard", str(tmp_path / "tars"), "--out", f"{tmp_path}/set"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the command has left
                break
            if b"index train: " in shown and process.poll() is None:  # more than once: people do
                process.send_signal(signal.SIGINT)
    finally:
        process.kill()
        code = process.wait()
        os.close(ours)
    assert code == 130, shown
    assert shown.endswith(b"\x1b[1A\x1b[2Kinterrupted; the same command continues\r\n"), shown[-300:]
    assert b"Traceback" not in shown
    assert not (tmp_path / "set").exists()


def test_what_can_be_refused_before_any_header_is_read_is(official: Path, data_set: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "theses", {"thesis.tex": b""})
    cases: list[tuple[Path, tuple[str, ...], str]] = [
        (data_set, ("--seed", "8"), "seed 7 there, 8 asked for"),
        (tmp_path / "theses", (), "is no data set of alexnet-prep"),
        (tmp_path / "theses", ("--overwrite",), "so nothing was deleted"),
        (tmp_path / "set", ("--size", "0"), "size_px=0: must be between"),
        (tmp_path / "set", ("--quality", "0"), "quality=0: must be between"),
        (tmp_path / "set", ("--shard-images", "0"), "shard_images=0: must be between"),
        (tmp_path / "set", ("--address", "here:1"), "--address here:1: is of a Ray cluster; add --engine ray"),
    ]
    for out, more, said in cases:
        result = shard(official, out, *more, code=2)
        assert said in result.stderr
        assert result.stdout == "", "no header was read"


def test_an_output_among_the_images_is_refused_and_beside_them_is_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "pictures"
    write_files(images / "cat", {"1.jpg": encode_picture(1)})
    for inside in ("out", "cat/out", "../pictures"):
        line = shard(images, images / inside, code=2).stderr
        assert f"lies in {images}, whose files are taken for images" in line
    assert not (images / "out").exists()
    monkeypatch.chdir(images / "cat")
    prep("shard", "..", *OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "pictures-40"]
    monkeypatch.chdir(tmp_path)
    again = shard(Path("pictures"), Path("pictures-40"))
    assert "pictures-40 was already complete; nothing to do" in again.output


def test_names_of_any_bytes_are_told_where_no_surrogate_can_be_written(tmp_path: Path) -> None:
    """As in a terminal. Linux allows every byte in a name but two."""
    source, odd = tmp_path / "pic\udcfftures", "\udcff\n<b>\x1b[31m.jpg"
    write_files(source / "cat\n", {"1.jpg": encode_picture(1), odd: b"no picture"})
    command = [sys.executable, "-m", "alexnet.tools.prep", "shard", str(source), *OPTIONS, "--on-error", "fail"]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    stopped = subprocess.run(command, env=strict, capture_output=True, text=True, check=False)
    escaped = r"cat\n/\udcff\n<b>\x1b[31m.jpg: \udcff\n<b>\x1b[31m.jpg at byte 0: not an image of any known format"
    assert (stopped.returncode, stopped.stderr) == (1, f"Error: --on-error fail: {escaped}\n")
    assert f"{tmp_path}/pic\\udcfftures-40 is complete" in prep("shard", source, *OPTIONS).stdout


def test_overwrite_reads_the_source_anew_and_begins_where_there_is_nothing_yet(tmp_path: Path) -> None:
    """An image that was mended in place is not noticed by the kept index, so it must have a way in."""
    source, out = tmp_path / "pictures", tmp_path / "set"
    write_files(source / "cat", {f"{i}.jpg": encode_picture(i) for i in range(3)} | {"bad.jpg": b"no picture"})
    shard(source, out, "--max-rejected", "0", code=1)
    (source / "cat" / "bad.jpg").write_bytes(encode_picture(9))
    assert (out / ".work" / "index").exists()
    for root in (out, tmp_path / "new"):
        last = events_of(source, root, "--overwrite")[-1]
        assert last["counts"]["train"] == {"input": 4, "written": 4, "rejected": 0}
        assert last["seconds"] is not None


@pytest.mark.parametrize("as_json", [True, False])
def test_a_slow_pillow_or_no_host_decoder_is_named_at_once_and_does_not_end_the_run(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr("PIL.__version__", "12.1.1")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("alexnet.tools.convert.run.available", lambda: "the host decoder was not built; do this")
    result = shard(official, tmp_path / "set", *(["--json"] if as_json else []))
    line = result.stdout.splitlines()[0] if as_json else result.stderr.splitlines()[0]
    assert "Pillow 12.1.1 is in use and not pillow-simd" in line
    assert "pip install --force-reinstall --no-deps pillow-simd" in line
    assert "JPEGs that were cut short and closed again are not noticed, as the host decoder was not built" in line


def test_named_folders_and_listed_classes_make_a_sound_data_set(tmp_path: Path) -> None:
    source, out = tmp_path / "src", tmp_path / "set"
    for folder, images in (("learn", 3), ("check", 2)):
        for k, name in enumerate(("0", "1", "10", "2")):
            files = {f"{folder}-{i}.jpg": encode_picture(10 * k + i) for i in range(images)}
            write_files(source / folder / name, files)
    assert shard(source, out, code=2).stderr.startswith("Error: ")
    assert not out.exists()
    (tmp_path / "classes.txt").write_text("2\n10\n")
    chosen = ("--train", "learn", "--val", "check", "--classes", tmp_path / "classes.txt")
    made = shard(source, out, *chosen).stdout
    assert "labels: place of the class in classes.txt\n" in made
    assert "sorted as text" not in made
    manifest = read_manifest(out)
    assert [c.wnid for c in manifest.classes] == ["2", "10"]
    assert (manifest.counts["train"].written, manifest.counts["val"].written) == (6, 4)
    assert sorted(SplitReader(out, "val").labels.tolist()) == [0, 0, 1, 1]
    assert not verify(out).findings
    assert "was already complete; nothing to do" in shard(source, out, *chosen).stdout
    other = shard(source, out, *chosen[:4], code=2).stderr
    assert "is of the source as it was before (class 0 in the source only" in other
