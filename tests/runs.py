"""Runs of `alexnet-train` that tests make, here or in processes of their own, and what they leave."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from click.testing import CliRunner, Result
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.checkpoint import Checkpoint, checkpoints, step_name
from alexnet.model.checkpoint_writer import CheckpointWriter
from alexnet.model.trainer import Trainer
from alexnet.tools.model import main as model_command
from alexnet.tools.train import main as train_command
from tests.conftest import digests

LENET = ("--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=4")
"""On the fixture `digits` an epoch has 6 steps of milliseconds."""
END_SECONDS = 600  # after which whatever was started hangs, on the slowest machine
REFUSED = "another alexnet-train is writing there; wait for it, or take another folder\n"
_TOLD = ("step", "epoch", "loss", "lr", "grad_norm", "val_loss", "val_top1", "val_top5", "val_images")


def called(command: click.Command, *arguments: object, code: int = 0) -> Result:
    """Call a command in this process; it must end with an exit code and without a traceback."""
    result = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def trained(*arguments: object, code: int = 0) -> Result:
    """Train in this process."""
    return called(train_command, *arguments, code=code)


def train(*arguments: object, code: int = 0) -> str:
    """Train in this process; return all that is printed."""
    return trained(*arguments, code=code).output


def model(*arguments: object, code: int = 0) -> Result:
    """Call `alexnet-model` in this process."""
    return called(model_command, *arguments, code=code)


def start(
    *arguments: object, before: str = "", stdout: IO[str] | int = subprocess.PIPE, told: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Train in a process of its own, in which some code runs `before`, and which is `told` more of its environment."""
    code = f"{before}\nfrom alexnet.tools.train import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(told or {})}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)


def in_processes(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Train in processes of their own; return standard output and error."""
    process = start(*arguments)
    out, error = process.communicate(timeout=END_SECONDS)
    assert process.returncode == code, error
    return out, error


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process prints up to a line that begins with these words."""
    read = ""
    assert process.stdout is not None
    for line in process.stdout:
        read += line
        if line.startswith(words):
            return read
    raise AssertionError(read + (process.stderr.read() if process.stderr else ""))


@contextmanager
def meeting() -> Iterator[list[dict[str, str]]]:
    """Host where two processes meet, as the command itself does, and yield what the environment tells each."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # its own port: one looked up can be lost
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    yield [{**here, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", "RANK": rank} for rank in ("0", "1")]


def failing(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises."""

    def fail(*_: object) -> None:
        raise error

    return fail


def at_step(step: int, happening: Callable[[], object]) -> Callable[..., Any]:
    """Return a training step before which, at one of them, something happens."""
    update = Trainer.train_step

    def stepped(self: Trainer, *batch: Any) -> Any:
        if self.step == step:
            happening()
        return update(self, *batch)

    return stepped


def records(out: Path, having: str = "step") -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl: all, or those of steps (`loss`) or validations (`val_loss`)."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if having in line]


def measured(out: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what depends on the machine's mood."""
    return [{name: record[name] for name in _TOLD if name in record} for record in records(out)]


def losses(out: Path) -> list[tuple[int, float]]:
    """Return what was logged of each step."""
    return [(record["step"], record["loss"]) for record in records(out, "loss")]


def result_of(out: Path) -> dict[str, Any]:
    """Return result.json."""
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def outcome(out: Path) -> dict[str, Any]:
    """Return all that a run leaves, but for times and speeds, the report, which shows them, and half a file."""
    special = ("metrics.jsonl", "result.json", "report.html", ".report.html.partial", ".LATEST.partial")
    files = {name: digest for name, digest in digests(out).items() if Path(name).name not in special}
    return {"lines": measured(out), "result": {**result_of(out), "images_per_s": 0}, **files}


def saved(out: Path) -> dict[int, Path]:
    """Return the whole checkpoints by their steps, the newest last."""
    return {int(path.name.removeprefix("step-")): path for path in checkpoints(out / "checkpoints")}


def newest(out: Path) -> Path:
    """Return the newest checkpoint."""
    return checkpoints(out / "checkpoints")[-1]


def tensors_of(out: Path) -> bytes:
    """Return the newest checkpoint's file of tensors, written by one process."""
    return (newest(out) / "tensors.safetensors").read_bytes()


def events(file: Path) -> list[Any]:
    """Read an event file: length, checksum, event, checksum, time and again."""
    from tensorboardX.proto.event_pb2 import Event

    content, read = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        read.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return read


def scalars(file: Path) -> dict[str, dict[int, float]]:
    """Return the values of an event file by name and step."""
    read: dict[str, dict[int, float]] = {}
    for event in events(file):
        for value in event.summary.value:
            read.setdefault(value.tag, {})[event.step] = value.simple_value
    return read


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint and wait for it, then drop all but the newest `keep`."""
    writer = CheckpointWriter(folder, keep=keep)
    writer.save(checkpoint)
    writer.wait()
    return folder / step_name(checkpoint.step)
