"""How a training run ends when it does not end well: a line that says why, what is kept, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import click

from alexnet.model.checkpoint import CheckpointError
from alexnet.model.divergence import DivergedError
from alexnet.model.memory import MemoryNeed, capacity, is_out_of_memory, memory_need
from alexnet.model.ranks import is_lost_process
from alexnet.model.stopping import StopRequestedError
from alexnet.model.trainer import Trainer
from alexnet.tools.console import StoppedError
from alexnet.tools.run.settings import RunSettings
from alexnet.tools.start import INTERRUPTED


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
        with lost_process_in_words():  # which may meet a checkpoint, too
            yield
    except (KeyboardInterrupt, StopRequestedError) as error:
        if trainer.ranks.layout.rank == 0:
            saved = "saved" if isinstance(error, StopRequestedError) else "not saved"
            click.echo(f"interrupted after step {trainer.step:,}, {saved}; the same command continues")
        raise SystemExit(INTERRUPTED) from None
    except DivergedError as error:
        raise StoppedError(f"{error}; {_kept(trainer)}; {_MEND}") from None
    except CheckpointError as error:
        raise StoppedError(f"{error}; make room {_AGAIN}") from None
    except OSError as error:
        if error.errno not in (*_NO_ROOM, *_NO_STORAGE):
            raise
        raise StoppedError(f"{_of_storage(error)}; {_kept(trainer)}; {_mend(error)} {_AGAIN}") from None
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise StoppedError(out_of_memory(trainer, settings)) from None
        if _NOT_DETERMINISTIC in str(error):
            operation = str(error).partition(_NOT_DETERMINISTIC)[0].strip()
            raise StoppedError(f"train.deterministic=true: {operation} has no such kernel here; leave it out") from None
        raise


# Of records and results; checkpoints say it themselves.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_STORAGE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENODEV, errno.ENOTCONN),
)
_NOT_DETERMINISTIC = "does not have a deterministic implementation"  # as PyTorch says it
_AGAIN = "and give the same command again"
_MEND = "lower optim.lr or set schedule.warmup_steps, with another --out"


def _of_storage(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _mend(error: OSError) -> str:
    return "make room" if error.errno in _NO_ROOM else "mend that"


def _kept(trainer: Trainer) -> str:
    """Say which checkpoint the run can go on from."""
    if trainer.saved_step is None:
        return "there is no checkpoint from before it"
    return f"the last good checkpoint is that of step {trainer.saved_step:,}"


def out_of_memory(trainer: Trainer, settings: RunSettings) -> str:
    """Say that memory ran out, and name a batch size that fits."""
    placement = trainer.placement
    need = memory_need(settings.net, placement, settings.augment.crop_px)
    room, now = capacity(placement.device), settings.train.batch_images
    said = f"out of memory on {placement.device} with train.batch_images={now}"
    parts = placement.layout.ranks if placement.layout.owt else placement.layout.groups
    fits = batch_that_fits(need, room, now, parts)
    if fits < placement.layout.ranks:
        return f"{said}; {room / 1e9:.1f} GB are too few for this network and a single image"
    return (
        f"{said}; {fits} should fit the {room / 1e9:.1f} GB that there are: --set train.batch_images={fits}, with "
        "another --out"
    )


def batch_that_fits(need: MemoryNeed, room: int, now: int, groups: int) -> int:
    """Return a power of two, at most half of the batch that did not fit; 0 if not an image fits.

    The estimate alone would not do: memory ran out, whatever it says of the batch that was tried.
    """
    most = min(need.images_in(room) * groups, now // 2)
    return 1 << (most.bit_length() - 1) if most else 0
