"""`alexnet-prep shard` with folders and classes of the user's choice: what it prints, writes and takes up again."""

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from alexnet.shards.manifest import read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify import verify
from alexnet.tools.prep import main
from tests.sources import write_files

Picture = Callable[..., bytes]


def shard(source: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["shard", str(source), "--out", str(out), "--size", "32", "--workers", "1", *options]
    )


def test_named_folders_and_listed_classes_make_a_sound_data_set(tmp_path: Path, picture: Picture) -> None:
    source, out = tmp_path / "src", tmp_path / "set"
    for folder, images in (("learn", 3), ("check", 2)):
        for k, name in enumerate(("0", "1", "10", "2")):
            write_files(source / folder / name, {f"{folder}-{i}.jpg": picture(10 * k + i) for i in range(images)})
    refused = shard(source, out)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: ")
    assert refused.stderr.count("\n") == 1
    assert not out.exists()
    (tmp_path / "classes.txt").write_text("2\n10\n")
    chosen = ("--train", "learn", "--val", "check", "--classes", str(tmp_path / "classes.txt"))
    made = shard(source, out, *chosen)
    assert made.exit_code == 0, made.output
    assert "labels: place of the class in classes.txt\n" in made.stdout
    assert "sorted as text" not in made.stdout
    manifest = read_manifest(out)
    assert [c.wnid for c in manifest.classes] == ["2", "10"]
    assert (manifest.counts["train"].written, manifest.counts["val"].written) == (6, 4)
    assert sorted(SplitReader(out, "val").labels.tolist()) == [0, 0, 1, 1]
    assert not verify(out).findings
    assert "was already complete; nothing to do" in shard(source, out, *chosen).stdout
    other = shard(source, out, *chosen[:4])
    assert other.exit_code == 2
    assert "is of the source as it was before (class 0 in the source only" in other.stderr
