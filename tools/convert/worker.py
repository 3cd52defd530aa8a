"""A worker process: takes shards from a pipe, converts them, says what became of each.

It publishes the position of the image it is on, so that whoever finds it dead knows what killed it. It leaves when its
parent is gone, however that went.
"""

import ctypes
import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any

from alexnet.tools.convert.resize import UndecodableError, convert_image
from alexnet.tools.convert.source_files import SourceChangedError, SourceFiles
from alexnet.tools.convert.work import ShardJob, Step, attempt_shard
from alexnet.tools.host_memory import keep_freed_memory

_PR_SET_PDEATHSIG = 1
_TRIAL_BYTES = 2 << 30


class StoppedError(Exception):
    """Leave a shard half-way because the run was told to stop."""


class Board:
    """What a worker publishes: the position of the image it is on (-1: none), and counts of this shard's images."""

    def __init__(self, context: SpawnContext) -> None:
        self.position: Any = context.Value("q", -1, lock=False)
        self.written: Any = context.Value("q", 0, lock=False)
        self.rejected: Any = context.Value("q", 0, lock=False)

    def clear(self) -> None:
        """Start a shard."""
        self.position.value, self.written.value, self.rejected.value = -1, 0, 0


def serve(jobs: Connection, board: Board, stop: Any) -> None:
    """Convert jobs from a pipe until it closes, or until the shared flag `stop` is set."""
    leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops workers itself, so none prints a traceback
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()

    def on_image(position: int, step: Step) -> None:
        if stop.value:
            raise StoppedError
        board.position.value = position
        if step != "begun":
            count = board.written if step == "written" else board.rejected
            count.value += 1

    while True:
        try:
            job: ShardJob = jobs.recv()
        except (EOFError, OSError):  # the latter where the parent left in the middle of a job
            return
        board.clear()
        try:
            report = attempt_shard(job, on_image)
        except StoppedError:
            return
        except MemoryError:
            os._exit(1)  # like any other death on an image: the parent finds out whose fault it was
        board.position.value = -1
        try:
            jobs.send(report)
        except ConnectionError:
            return


def try_alone(job: ShardJob, position: int, verdict: Connection) -> None:
    """Decode one image that a worker died on, with at most 2 GiB of address space; send a reason to reject it, or ''.

    If this process dies, too, its exit code is the verdict.
    """
    leave_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (_TRIAL_BYTES, _TRIAL_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    member = job.members[position]
    try:
        with SourceFiles(job.source) as files:
            convert_image(files.read(member), job.settings.size_px, job.settings.quality, job.encoding)
    except (UndecodableError, SourceChangedError, OSError):
        verdict.send("")  # no decoder's fault: the shard's next run says what it is
    except MemoryError:
        verdict.send(f"decoding takes more than {_TRIAL_BYTES >> 30} GiB of memory")
    else:
        verdict.send("")


def leave_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; leave at once if it already has.

    A parent may well have the number 1: in a container, a command often has.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
