"""Data that tests share: made here, never downloaded."""

import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import alexnet.shards.verify as verifying
import alexnet.tools.decode.build as decoding
import alexnet.tools.decode.compare as comparing
from alexnet.pipeline.nvidia_packages import without_dali
from alexnet.shards import storage
from alexnet.shards.processes import WorkerPool
from alexnet.shards.url import OPTIONS
from alexnet.tools.convert import engines
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.prep import main
from tests.faulty_proxy import FaultyProxy
from tests.sources import write_official

if TYPE_CHECKING:
    from tests.object_storage import ObjectServer

WORDS = {"n00000003": "crane", "n00000001": "crane", "n00000002": "maillot, tank suit"}  # words are not unique
TRAIN_PER_CLASS = 9
HERE = BuildOptions(workers=0)  # starts no processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with processes that wait for each other: where tests run side by side, nobody waits for the last.

    Where DALI is not installed, skip what it decodes: by a parameter, or by a mark.
    """
    items.sort(key=lambda item: item.path.name != "test_train_processes.py")
    if reason := without_dali():
        for item in items:
            parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
            by_parameter = str(parameters.get("decode")).startswith(("dali", "gpu", "split"))
            if by_parameter or item.get_closest_marker("dali"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def signals_arrive() -> Iterator[None]:
    """Hear Ctrl-C, SIGTERM and SIGHUP, as processes that are started here then do.

    A command that was called here, by a test or for a fixture of a whole module, leaves this process deaf to them; so
    does a shell that started the tests in the background.
    """
    _hear_signals()
    yield
    _hear_signals()


def _hear_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def the_same_terminal_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing depend on whose terminal, editor or CI the tests run in: one that is dumb shows no bars."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that has NVML answer as an NVIDIA driver of a version would, with so many GPUs, none hidden."""

    def install(version: str, gpus: int = 1) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        answers = {"Init": None, "Shutdown": None, "DeviceGetCount": gpus, "SystemGetDriverVersion": version}
        for name, answer in answers.items():
            monkeypatch.setattr(f"pynvml.nvml{name}", lambda answer=answer: answer)

    return install


def pool_of_none(function: Any, _: int, **options: Any) -> WorkerPool[Any, Any]:
    """Stand for a pool: without processes, of which each takes a second to start."""
    return WorkerPool(function, 0, **options)


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `alexnet-prep` convert, decode and verify in this process."""
    for module in (engines, verifying, decoding, comparing):
        monkeypatch.setattr(module, "WorkerPool", pool_of_none)


@pytest.fixture(scope="session")
def ci_100() -> Path:
    return Path(__file__).parent.parent / "shards" / "ci-100"


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    return encode_picture


def digests(root: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by its path there."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def prep(*arguments: object, code: int = 0) -> Result:
    """Call `alexnet-prep` in this process; it must end with an exit code and no traceback."""
    result = CliRunner().invoke(main, [os.fsdecode(str(argument)) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == code, result.output
    return result


def list_anew(checkpoint: Path) -> None:
    """Have a checkpoint's SHA256SUMS say what is there now."""
    sums = {name: digest for name, digest in digests(checkpoint).items() if name != "SHA256SUMS"}
    (checkpoint / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def encode_picture(seed: int, width: int = 60, height: int = 48, file_format: str = "JPEG", **options: object) -> bytes:
    """Return a smooth random picture, encoded; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source in the official layout: 3 classes, 27 training entries of which 3 are no images, 7 for validation."""
    root = tmp_path_factory.mktemp("source") / "ilsvrc"
    train: dict[str, dict[str, bytes]] = {}
    for k, wnid in enumerate(sorted(WORDS)):
        files = {f"{wnid}_{i}.JPEG": encode_picture(100 * k + i) for i in range(TRAIN_PER_CLASS)}
        train[wnid] = files
    train["n00000002"]["n00000002_3.JPEG"] = b""
    train["n00000002"]["n00000002_4.JPEG"] = encode_picture(1)[:400]
    train["n00000003"]["n00000003_5.JPEG"] = b"<html>404</html>"
    train["n00000003"]["n00000003_6.JPEG"] = encode_picture(2, file_format="PNG")
    wnids = sorted(WORDS)
    val = [(wnids[i % 3], encode_picture(1000 + i, 50 + i, 70)) for i in (0, 2, 1, 1, 5, 4, 3)]
    write_official(root, WORDS, train, val)
    return root


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Have PyTorch use one thread, here and in processes that are started: sums are cut up by threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 7 validation images of 3 classes, 28 px: a step takes milliseconds."""
    root: Path = tmp_path_factory.mktemp("data") / "digits"
    build(open_source(official), root, ConvertSettings(size_px=28, shard_images=10, seed=7), HERE)
    return root


@pytest.fixture(scope="session")
def images_32(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 7 validation images of 3 classes, 32 px."""
    root: Path = tmp_path_factory.mktemp("data") / "small"
    build(open_source(official), root, ConvertSettings(size_px=32, shard_images=10, seed=7), HERE)
    return root


@pytest.fixture(scope="session")
def data_set(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source above as a data set of 40 px squares, 10 a shard."""
    root = tmp_path_factory.mktemp("data") / "set"
    settings = ConvertSettings(size_px=40, shard_images=10, seed=7)
    build(open_source(official), root, settings, HERE)
    return root


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ObjectServer]":
    """A server of S3, which takes 3 s to start."""
    from tests.object_storage import ObjectServer  # needs obstore, which not every machine with a GPU has

    with ObjectServer(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(object_server: "ObjectServer", monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What `s3://` leads to by the environment: the server, behind a proxy; who tries again does not wait."""
    from tests.object_storage import CREDENTIALS

    with FaultyProxy(object_server.address) as proxy:
        variables = {"AWS_ENDPOINT": f"http://{proxy.address}", "AWS_REGION": "us-east-1", **CREDENTIALS}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(OPTIONS, "")  # what a command sets is gone afterwards
        monkeypatch.setattr(storage, "_BACKOFF_SECONDS", 0.001)
        monkeypatch.setattr(storage, "_MOST_BACKOFF_SECONDS", 0.01)
        yield proxy


@pytest.fixture(scope="session")
def on_two_kinds_of_cpu() -> Callable[[str], tuple[str, str]]:
    """Return a function that runs Python code as this CPU would, and with every vector unit that NumPy found off."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    plain = {"NPY_DISABLE_CPU_FEATURES": " ".join(found), "OPENBLAS_CORETYPE": "Prescott"}
    # Names that NumPy does not know are passed over with a warning: make sure that they really are off.
    proof = "import numpy; assert not numpy.show_config(mode='dicts')['SIMD Extensions'].get('found')\n"

    def run(code: str) -> tuple[str, str]:
        outputs = [
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", before + code],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for before, environment in (("", {}), (proof, plain))
        ]
        return outputs[0], outputs[1]

    return run
