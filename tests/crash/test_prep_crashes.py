"""Whatever a killed converter leaves, or one whose disk was full, the same command takes up and ends in the same bytes.

It is struck before and after each call that changes a file, in each state that a folder can be in when it begins.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.sources import open_source
from tests.conftest import HERE, digests, encode_picture
from tests.crash.harness import Crasher, How, Strike
from tests.sources import write_tree

SETTINGS = ConvertSettings(size_px=16, shard_images=3, seed=3)
SHARD = ("--size", "16", "--shard-images", "3", "--seed", "3")
OTHER = ("--size", "20", "--shard-images", "4", "--seed", "4")
DRAWN = ("--layout", "official", "--classes", "2", "--images", "2", "--val-images", "1")
DECODED = ("decode",)
ADOPTED = ("adopt",)
OVERWRITE = "--overwrite"
OWNED = ("/.work/job.json", "/.work/synth.json")  # by the file that says whose a folder is


@dataclass(frozen=True)
class Place:
    """Hold where all happens.

    The source, what it was before it was mended, the data set that it becomes, and the folder that is written.
    """

    source: Path
    before: Path
    jpegs: Path
    out: Path
    crasher: Crasher

    def shard(self, *options: str, source: Path | None = None) -> list[str]:
        return ["shard", str(source or self.source), "--out", str(self.out), *options]

    def decode(self) -> list[str]:
        return ["decode", str(self.jpegs), "--out", str(self.out)]

    def adopt(self) -> list[str]:
        return ["adopt", str(self.out)]

    def synth(self, *options: str) -> list[str]:
        return ["synth", str(self.out), *options]

    def run(self, command: Sequence[str], code: int = 0) -> Strike:
        strike = self.crasher.strike(command)
        assert strike.code == code, strike
        return strike

    def kill(self, command: Sequence[str], what: str) -> None:
        """Kill a command after its first call whose name and path end so."""
        calls = self.crasher.calls(command)
        shutil.rmtree(self.out)
        at = next(number for number, call in enumerate(calls, start=1) if call.endswith(what))
        assert self.crasher.strike(command, at, "after").struck

    def reset(self, state: Path | None) -> None:
        shutil.rmtree(self.out.parent, ignore_errors=True)
        if state is not None:
            shutil.copytree(state, self.out)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("crashes")
    train = {f"n0000000{k}": {f"{k}_{i}.JPEG": encode_picture(10 * k + i) for i in range(4)} for k in range(2)}
    train["n00000001"]["1_2.JPEG"] = b"<html>404</html>"
    val = [(f"n0000000{k}", encode_picture(50 + k)) for k in range(2)]
    write_tree(root / "source", train, val)
    source = open_source(root / "source")
    with_reject = next(p for p in plan_shards(source, SETTINGS) if "1_2.JPEG" in [m.name for m in p.members(source)])
    same = {member.name for member in with_reject.members(source)} - {"1_2.JPEG"}
    longer = {
        wnid: {name: data + b"\0" * (name not in same) for name, data in files.items()} for wnid, files in train.items()
    }
    write_tree(root / "before", longer, val)
    build(source, root / "jpegs", SETTINGS, HERE)
    out = root / "parent" / "set"
    with Crasher(root, "prep", out.parent) as crasher:
        yield Place(root / "source", root / "before", root / "jpegs", out, crasher)


@pytest.fixture(scope="module")
def undisturbed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the converter makes of the source with its pool, never struck."""
    root = tmp_path_factory.mktemp("undisturbed") / "set"
    build(open_source(place.source), root, SETTINGS)
    return digests(root)


def nothing(place: Place) -> None: ...


def begun(*options: str) -> Callable[[Place], None]:
    """Return what leaves a conversion of which one shard is done."""
    return lambda place: place.kill(place.shard(*options), "rename {}".format(place.out / "train/000000.tar"))


def begun_before_it_was_mended(place: Place) -> None:
    """Its training shards are done: in one only the reject had another length, in the others all had."""
    place.kill(place.shard(*SHARD, source=place.before), "train/000002.tar")


def unaccepted(place: Place) -> None:
    place.run(place.shard(*SHARD, "--max-rejected", "0"), 1)


def finished(*options: str) -> Callable[[Place], None]:
    return lambda place: void(place.run(place.shard(*options)))


def unsealed(*options: str) -> Callable[[Place], None]:
    return lambda place: place.kill(place.shard(*options), ".SHA256SUMS.partial")


def half_deleted(place: Place) -> None:
    place.run(place.shard(*OTHER))
    (place.out / "manifest.json").rename(place.out / ".clearing")
    (place.out / "train" / "000000.tar").unlink()


def drawn(place: Place) -> None:
    place.run(place.synth(*DRAWN, "--seed", "9"))


def half_decoded(place: Place) -> None:
    place.kill(place.decode(), "rename {}".format(place.out / "train/000000.tar"))


def tars(place: Place) -> None:
    for tar in place.jpegs.glob("*/*.tar"):
        copy = place.out / tar.relative_to(place.jpegs)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tar, copy)


def half_drawn(place: Place) -> None:
    place.kill(place.synth(*DRAWN, "--seed", "9"), "/.work/ILSVRC2012_img_val.tar")


def void(_: object) -> None: ...


CASES: dict[str, tuple[Callable[[Place], None], tuple[str, ...]]] = {
    "first": (nothing, SHARD),
    "first, to overwrite": (nothing, (*SHARD, OVERWRITE)),
    "resumed": (begun(*SHARD), SHARD),
    "of a source that was mended": (begun_before_it_was_mended, SHARD),
    "accepted": (unaccepted, SHARD),
    "to be sealed": (unsealed(*SHARD), SHARD),
    "sealed not yet, to overwrite": (unsealed(*OTHER), (*SHARD, OVERWRITE)),
    "finished, to overwrite": (finished(*OTHER), (*SHARD, OVERWRITE)),
    "begun, to overwrite": (begun(*OTHER), (*SHARD, OVERWRITE)),
    "half deleted": (half_deleted, SHARD),
    "decoded": (nothing, DECODED),
    "half decoded": (half_decoded, DECODED),
    "adopted": (tars, ADOPTED),
    "drawn": (nothing, DRAWN),
    "drawn, to overwrite": (drawn, (*DRAWN, OVERWRITE)),
    "half drawn, to overwrite": (half_drawn, (*DRAWN, OVERWRITE)),
}


@dataclass(frozen=True)
class Trial:
    """Hold a state, the command that begins in it, its calls, and what must come of it."""

    place: Place
    state: Path | None
    command: list[str]
    calls: tuple[str, ...]
    wanted: dict[str, str]

    def strike(self, at: int, how: How, again: int = 0) -> None:
        """Strike the command, and once more at its call number `again`; given again, it must end as undisturbed."""
        self.place.reset(self.state)
        for number in (at, again)[: 1 + bool(again)]:
            strike = self.place.crasher.strike(self.command, number, how)
            assert strike.struck or number == again
            assert "Traceback" not in strike.errors, strike
            assert strike.code in ((-9, 0) if how in ("before", "after") else (0, 1, 2)), strike
        last = self.place.crasher.strike(self.command)
        assert last.code == 0, f"{how} {strike}\n{last}"
        assert digests(self.place.out) == self.wanted, f"{how} {strike}"
        assert not [path for path in self.place.out.rglob("*") if path.is_dir() and path.name not in ("train", "val")]


@pytest.fixture(scope="module")
def trial_of(
    place: Place, undisturbed: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trial]:
    def make(name: str) -> Trial:
        prepare, options = CASES[name]
        place.reset(None)
        prepare(place)
        state = None
        if place.out.exists():
            state = Path(shutil.copytree(place.out, tmp_path_factory.mktemp("state") / "set"))
        command = place.synth(*options) if options[:2] == DRAWN[:2] else place.shard(*options)
        command = place.decode() if options == DECODED else place.adopt() if options == ADOPTED else command
        calls = place.run(command).calls
        shards = options not in (DECODED, ADOPTED) and options[:2] != DRAWN[:2]
        return Trial(place, state, command, calls, undisturbed if shards else digests(place.out))

    return make


def test_struck_where_the_folder_is_claimed_sealed_or_deleted_the_same_command_goes_on(
    trial_of: Callable[[str], Trial],
) -> None:
    windows: dict[str, tuple[str, ...]] = {
        "first": ("job.json", "/train", "/val", "000001.tar", "manifest.json", "/.work", ".SHA256SUMS.partial"),
        "of a source that was mended": ("unlink .notes", "rename .notes"),
        "decoded": ("job.json", "/train", "rename .notes", "000001.tar", "index.npy", "manifest.json", "/.work"),
        "adopted": (
            "job.json",
            ".000001.idx.partial",
            "rename .notes",
            "index.npy",
            "manifest.json",
            ".SHA256SUMS.partial",
        ),
        "sealed not yet, to overwrite": (".clearing", "job.json", "/train"),
    }
    hows: tuple[How, ...] = ("before", "after", "full")
    for name, endings in windows.items():
        trial = trial_of(name)
        for k, what in enumerate(endings):
            verb, _, ending = what.rpartition(" ")
            calls = enumerate(trial.calls, start=1)
            at = max(number for number, call in calls if call.startswith(verb) and call.endswith(ending))
            trial.strike(at, hows[k % 3])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_struck_at_any_call_the_same_command_goes_on(trial_of: Callable[[str], Trial], name: str) -> None:
    trial, rng = trial_of(name), random.Random(name)
    share: dict[How, float] = {"before": 1, "after": 0.2, "full": 0.5, "once": 0.2}  # after one is before the next
    owned = next((at for at, call in enumerate(trial.calls, start=1) if call.endswith(OWNED)), 0)
    for at, call in enumerate(trial.calls, start=1):
        piece = call.startswith("write") and trial.calls[at - 2] == call  # of a file that is written in many
        known = OVERWRITE in trial.command and owned and at > owned + 6  # as in a first call from there on
        for how, of_all in share.items():
            if rng.random() < of_all * (0.1 if piece or known else 1):
                trial.strike(at, how, rng.randrange(1, len(trial.calls)) if rng.random() < 0.2 else 0)
