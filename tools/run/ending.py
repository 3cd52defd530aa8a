"""End a training run that was told to stop or cannot go on, in a line that says why, what is kept, and what to do."""

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from alexnet.model.checkpoint import CheckpointError
from alexnet.model.evaluate import StopRequestedError
from alexnet.model.needs import MemoryNeed, capacity, is_out_of_memory, memory_need
from alexnet.model.optim import DivergedError
from alexnet.model.ranks import is_lost_process
from alexnet.model.trainer import Trainer
from alexnet.shards.processes import handling
from alexnet.shards.url import StorageError
from alexnet.tools.console import StoppedError, stop_signals
from alexnet.tools.run.settings import RunSettings
from alexnet.tools.start import INTERRUPTED

STOPPING = "stopping after this step, with a checkpoint; once more to stop at once, without one"

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_STORAGE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENODEV, errno.ENOTCONN),
)
_NOT_DETERMINISTIC = "does not have a deterministic implementation"  # as PyTorch says it
_AGAIN = "and give the same command again"


def say_stopping() -> None:
    """Say what becomes of the first signal."""
    click.echo(STOPPING, err=True)


def stop_at_once() -> None:
    """End what runs, wherever it is."""
    raise KeyboardInterrupt


def _nothing() -> None:
    """Leave it to whoever started the process: Ctrl-C in a terminal reaches it from there, too."""


class StopSignal:
    """Remember whether a signal to stop came, or whoever read the output left.

    `first`: called at the first signal; `again`: at a second one, which the end of a terminal is not, for it is told
    twice, by the terminal and by the shell.
    """

    def __init__(self, first: Callable[[], object] = _nothing, again: Callable[[], object] = _nothing) -> None:
        self._first, self._again = first, again
        self._heard = False

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self._heard

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over, in the main thread."""
        with handling((*stop_signals(), signal.SIGPIPE), self.hear):
            yield

    def hear(self, number: int, _: object) -> None:
        """Handle a signal."""
        again = self._heard
        self._heard = True  # first: the line may meet the reader's end, which is a signal of its own
        if number == signal.SIGPIPE:
            return
        if not again:
            self._first()
        elif number != signal.SIGHUP:
            self._again()


class LostProcessError(StoppedError):
    """End a process whose run has lost another one, which is the one to be told about."""


@contextmanager
def lost_process_in_words() -> Iterator[None]:
    """Turn the loss of another process of the run into a line: whatever is exchanged with it may fail."""
    try:
        yield
    except Exception as error:
        if not is_lost_process(error):
            raise
        reason = str(error).strip().split("\n")[0][:200]
        raise LostProcessError(
            f"another process of this run has ended, or cannot be reached ({reason}); the same command continues from "
            "the last checkpoint"
        ) from None


@contextmanager
def ending_in_words(trainer: Trainer, settings: RunSettings) -> Iterator[None]:
    """Turn what can end a run into a line and an exit code.

    130: stopped, and the same command continues. 1: it went wrong.
    """
    try:
        yield
    except (KeyboardInterrupt, StopRequestedError) as error:
        if trainer.ranks.layout.rank == 0:
            saved = "saved" if isinstance(error, StopRequestedError) else "not saved"
            click.echo(f"interrupted after step {trainer.step:,}, {saved}; the same command continues")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        line = "" if is_lost_process(error) else _line_of(error, trainer, settings)
        if not line:
            raise
        raise StoppedError(line) from None


def _line_of(error: Exception, trainer: Trainer, settings: RunSettings) -> str:
    """Say why a run ended, what is kept and what to do; '' of an error that is not expected."""
    kept = "there is no checkpoint from before it"
    if trainer.saved_step is not None:
        kept = f"the last good checkpoint is that of step {trainer.saved_step:,}"
    if isinstance(error, DivergedError):
        return f"{error}; {kept}; lower optim.lr or set schedule.warmup_steps, with another --out"
    if isinstance(error, StorageError):
        return f"{error}; {kept}; mend that {_AGAIN}"
    if isinstance(error, CheckpointError):
        return f"{error}; make room {_AGAIN}"
    if isinstance(error, OSError) and error.errno in (*_NO_SPACE, *_NO_STORAGE):  # of records and results
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        return f"{what}; {kept}; {'make room' if error.errno in _NO_SPACE else 'mend that'} {_AGAIN}"
    if is_out_of_memory(error):
        return _out_of_memory(trainer, settings)
    operation, not_deterministic, _ = str(error).partition(_NOT_DETERMINISTIC)
    if isinstance(error, RuntimeError) and not_deterministic:
        return f"train.deterministic=true: {operation.strip()} has no such kernel here; leave it out"
    return ""


def _out_of_memory(trainer: Trainer, settings: RunSettings) -> str:
    """Say that memory ran out, and name a batch size that fits."""
    placement = trainer.placement
    need = memory_need(settings.net, placement, settings.augment.crop_px)
    there, now = capacity(placement.device), settings.train.batch_images
    said = f"out of memory on {placement.device} with train.batch_images={now}"
    parts = placement.layout.ranks if placement.layout.owt else placement.layout.groups
    fits = batch_that_fits(need, there, now, parts)
    if fits < placement.layout.ranks:
        return f"{said}; {there / 1e9:.1f} GB are too few for this network and a single image"
    return (
        f"{said}; {fits} should fit the {there / 1e9:.1f} GB that there are: --set train.batch_images={fits}, with "
        "another --out"
    )


def batch_that_fits(need: MemoryNeed, memory_bytes: int, now: int, groups: int) -> int:
    """Return a power of two, at most half of the batch that did not fit; 0 if not an image fits.

    The estimate alone would not do: memory ran out, whatever it says of the batch that was tried.
    """
    most = min(need.images_in(memory_bytes) * groups, now // 2)
    return 1 << (most.bit_length() - 1) if most else 0
