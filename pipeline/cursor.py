"""A stream's state: which batch comes next (`Cursor`), and what identifies the stream (`identity`)."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from alexnet.pipeline.decode import decode_name
from alexnet.pipeline.plan import Planner
from alexnet.pipeline.settings import shown, whole
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader


class Cursor:
    """Know which batch comes next: epoch and step, of so many `steps` an epoch."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.epoch_number, self.step = 0, 0
        self._entered = False  # whether an iteration has begun since the last seek
        self._iterations = 0

    @property
    def index(self) -> int:
        """Return the number of the next batch, counted over all epochs."""
        return self.epoch_number * self._steps + self.step

    @property
    def place(self) -> tuple[int, int]:
        """Return epoch and step of the next batch."""
        return self.place_of(self.epoch_number, self.step)

    def place_of(self, epoch: Any, step: Any) -> tuple[int, int]:
        """Return a place as an iteration begins there: where an epoch's last step is done, the next one's first."""
        epoch, step = self._known(epoch, step)
        return (epoch + 1, 0) if 0 < self._steps == step else (epoch, step)

    def epoch(self) -> Iterator[None]:
        """Go through an epoch, from where `seek` left it or from the start of the next; the user calls `advance`.

        There is one place to stand at: an iteration that is taken up again when another has begun raises RuntimeError.
        """
        if self.step > 0 and (self._entered or self.step == self._steps):
            self.epoch_number, self.step = self.epoch_number + 1, 0
        self._entered = True
        self._iterations += 1
        mine = self._iterations
        while self.step < self._steps:
            yield
            if mine != self._iterations:
                raise RuntimeError("this iteration of the stream ended when another one began; go on with that one")
        self.epoch_number, self.step = self.epoch_number + 1, 0

    def advance(self) -> None:
        """Count a step as done."""
        self.step += 1

    def seek(self, epoch: int, step: int) -> None:
        """Move to a step of an epoch: an iteration that is going on, or else the next, continues there."""
        self.epoch_number, self.step = self._known(epoch, step)
        self._entered = False

    def _known(self, epoch: Any, step: Any) -> tuple[int, int]:
        epoch, step = whole("epoch", epoch), whole("step", step)
        if epoch < 0 or not 0 <= step <= self._steps:
            raise InputError(f"epoch={epoch}, step={step}: epochs count from 0, steps from 0 to {self._steps}")
        return epoch, step


def identity(planner: Planner, reader: SplitReader, *, ten_views: bool, dali_share: float) -> dict[str, Any]:
    """Return what a stream is: streams of one identity yield the same batches.

    Ranks are not part of it, nor threads: they change nothing.
    """
    settings = planner.settings
    digest = hashlib.sha256(repr(sorted(asdict(planner.augment).items())).encode()).hexdigest()[:16]
    return {
        "seed": settings.seed,
        "batch_images": settings.batch_images,
        "order": settings.order_name,
        "augment": digest if settings.augment else f"off {digest}",
        "views": 10 if ten_views else 1,
        "drop_last": settings.drop_last,
        "split": reader.split,
        "manifest": reader.manifest.digest()[:16],
        "decode": decode_name(dali_share),
    }


def check_state(state: Mapping[str, Any], mine: dict[str, Any]) -> None:
    """Compare a state with a stream's identity. Raises InputError for what differs, by name."""
    for name, value in mine.items():
        theirs = state.get(name)
        if getattr(theirs, "ndim", 0) or theirs != value:  # an array is equal to nothing
            raise InputError(
                f"{name}: the state to resume from has {shown(theirs)}, this stream {value!r}; "
                "resume with the same data and settings, or start anew"
            )
