"""Hash what must stay the same bytes from version to version: data sets, batches, weights.

    python -m tests.golden.hashes sets|streams|weights DIR

prints a JSON object of sha256 by case; DIR is an empty folder to work in. `hashes.json` holds `sets` and `streams`,
which no machine changes; sums of floats differ between CPUs, so `weights` are compared on one machine, before and after
a change.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.tools.prep import main as prep
from alexnet.tools.train import main as train
from tests.conftest import encode_picture
from tests.sources import (
    write_cifar10,
    write_class_tars,
    write_files,
    write_kaggle,
    write_mnist,
    write_official,
    write_tree,
)

CI_100 = Path(__file__).parents[2] / "shards" / "ci-100"
WORDS = {"n00000003": "crane", "n00000001": "crane", "n00000002": "maillot, tank suit"}
TRAIN = {
    wnid: {
        **{f"{wnid}_{i}.JPEG": encode_picture(10 * k + i, 60 + 9 * i, 48 + 5 * k) for i in range(7)},
        f"{wnid}_7.JPEG": encode_picture(90 + k, file_format="PNG"),
        f"{wnid}_8.JPEG": b"<html>404</html>",
    }
    for k, wnid in enumerate(sorted(WORDS))
}
VAL = [(sorted(WORDS)[i % 3], encode_picture(1000 + i, 50 + i, 70)) for i in (0, 2, 1, 1, 5, 4, 3)]


def sets(work: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of the data set that each kind of source becomes."""
    _write_sources(work / "sources")
    cases: list[tuple[str, tuple[object, ...]]] = []
    cases += [(source, ("--size", 40)) for source in ("official", "tree", "kaggle", "class-tars", "folders")]
    cases += [("official", ("--size", 32, "--quality", 75, "--seed", 5, "--workers", 3)), ("cifar", ()), ("mnist", ())]
    for number, (source, options) in enumerate(cases):
        out = work / f"set-{number}"
        _run(prep, "shard", work / "sources" / source, "--out", out, "--shard-images", 10, *options)
        yield " ".join(map(str, (source, *options))), _digest(out)
    for layout in ("shards", "official"):
        out = work / f"synth-{layout}"
        size = ("--size", 64) if layout == "shards" else ()
        _run(prep, "synth", out, "--classes", 3, "--images", 9, "--val-images", 3, "--layout", layout, *size)
        yield f"synth {layout}", _digest(out)
    for name, jpegs in (("ci-100", CI_100), ("mnist", work / "set-7")):
        _run(prep, "decode", jpegs, "--out", work / f"planes-{name}")
        yield f"decode {name}", _digest(work / f"planes-{name}")


def streams(work: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of batches, for each way to order, decode and finish them."""
    _write_sources(work / "sources")
    _run(prep, "shard", work / "sources" / "official", "--out", work / "set", "--shard-images", 5, "--size", 40)
    orders: tuple[Literal["global", "blocks"], ...] = ("global", "blocks")
    for decode, order, ranks in itertools.product(("host", "dali", "split=0.5"), orders, (1, 3)):
        settings = StreamSettings(decode=decode, order=order, window_shards=2)
        for rank in range(ranks):
            way = {"augmentation": AugmentSettings(crop_px=32), "batch_images": 7, "rank": rank, "world_size": ranks}
            yield f"{decode} {order} rank={rank} of {ranks}", _batches(work / "set", settings, steps=5, **way)
    ways: dict[str, AugmentSettings] = {
        "as in 2012": AugmentSettings(
            crop_per="32-images", lighting="krizhevsky", lighting_division=True, lighting_epochs=1, mean="image"
        ),
        "unit variance, no lighting": AugmentSettings(scale="unit-variance", lighting="off", crop_px=200),
        "torch": AugmentSettings(lighting="torch", mirror=False),
    }
    for name, augmentation in ways.items():
        for decode, output in itertools.product(("host", "dali"), ("uint8", "float32", "bfloat16")):
            settings = StreamSettings(decode=decode)
            yield (
                f"{name}, {decode} {output}",
                _batches(CI_100, settings, steps=6, augmentation=augmentation, output=output),
            )
    for decode in ("host", "dali"):
        settings = StreamSettings(decode=decode)
        yield f"ten views, {decode}", _batches(CI_100, settings, steps=2, augment=False, views=10)
        yield f"centre, {decode} channels last", _batches(CI_100, settings, steps=2, augment=False, channels_last=True)


def weights(work: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of all tensors of a checkpoint after three steps, for each kind of network and layout."""
    torch.set_num_threads(1)
    small = ("--steps", 3, "--device", "cpu", "--set", "train.batch_images=4", "--set", "train.train_accuracy=false")
    cases: list[tuple[object, ...]] = [
        ("--recipe", "small"),
        ("--recipe", "small", "--set", "train.precision=bf16"),
        ("--recipe", "source-2012"),
        ("--recipe", "alexnet-owt"),
        ("--recipe", "conv6", "--final-views", 1),
        ("--recipe", "one-tower", "--set", "net.activation=tanh"),
        ("--recipe", "small", "--gpus", 2),
        ("--recipe", "alexnet-owt", "--gpus", 2, "--parallel", "owt"),
        ("--recipe", "alexnet-owt", "--gpus", 2, "--parallel", "data"),
    ]
    for number, case in enumerate(cases):
        out = work / f"run-{number}"
        _run(train, CI_100, *case, *small, "--out", out)
        (checkpoint,) = (out / "checkpoints").glob("step-*")
        tensors = {k: v for file in sorted(checkpoint.glob("*.safetensors")) for k, v in load_file(file).items()}
        digest = hashlib.sha256()
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
        yield " ".join(map(str, case)), digest.hexdigest()


def _write_sources(root: Path) -> None:
    write_official(root / "official", WORDS, TRAIN, VAL)
    write_tree(root / "tree", TRAIN, VAL)
    write_kaggle(root / "kaggle", WORDS, TRAIN, VAL)
    write_class_tars(root / "class-tars", TRAIN)
    for wnid, files in TRAIN.items():
        write_files(root / "folders" / WORDS[wnid].replace("crane", wnid), files)
    write_cifar10(root / "cifar", 7)
    write_mnist(root / "mnist", 23, 11)


def _run(command: object, *arguments: object) -> None:
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)  # type: ignore[arg-type]
    if result.exit_code:
        raise RuntimeError(result.output)


def _digest(root: Path) -> str:
    """Return one sha256 of the names and bytes of all files, hidden ones left out."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            digest.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _batches(root: Path, settings: StreamSettings, *, steps: int, **options: object) -> str:
    """Return one sha256 of batches, of which the last two come from a stream that was resumed."""
    digest = hashlib.sha256()
    given = {"batch_images": 25, "seed": 3, "settings": settings, **options}
    with ImageStream(root / "train", **given) as stream:  # type: ignore[arg-type]
        _take(stream, steps - 2, digest)
        state = json.loads(json.dumps(stream.state()))
    with ImageStream(root / "train", **given) as resumed:  # type: ignore[arg-type]
        resumed.resume(state)
        _take(resumed, 2, digest)
    return digest.hexdigest()


def _take(stream: ImageStream, steps: int, digest: "hashlib._Hash") -> None:
    while steps:
        for images, labels in itertools.islice(stream, steps):
            digest.update(str((tuple(images.shape), images.dtype, images.stride())).encode())
            digest.update(images.contiguous().view(torch.uint8).numpy().tobytes() + labels.numpy().tobytes())
            steps -= 1


if __name__ == "__main__":
    what, folder = sys.argv[1:]
    made = {"sets": sets, "streams": streams, "weights": weights}[what]
    print(json.dumps(dict(made(Path(folder))), indent=1))
