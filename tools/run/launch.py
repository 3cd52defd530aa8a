"""Start a run's processes on this machine and stay until they end.

Each gets the environment that torchrun would give it and is an ordinary worker from there on. PyTorch's own spawning
does the work: when one process ends otherwise than well, the others get some seconds to leave, then SIGTERM, then
SIGKILL, so that a dead rank ends the run.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import click
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from alexnet.shards.errors import InputError
from alexnet.shards.processes import handling, starting_workers
from alexnet.tools.console import MISTAKE, StoppedError, guard_output, output_is_lost, stop_signals
from alexnet.tools.run.ending import LostProcessError, StopSignal, say_stopping
from alexnet.tools.start import INTERRUPTED, end_when_interrupted

GRACE_SECONDS = 8
"""Granted twice, before SIGTERM and before SIGKILL: a run with a dead rank is over within 30 seconds."""

_AFTER_THE_FIRST_SECONDS = 1.0
"""What a process waits that fails: where another was lost, all fail, and the one that was lost is to be named."""

_HERE = "127.0.0.1"
_CONTINUE = "the same command continues from the last checkpoint"


def launch(work: Callable[[], None], processes: int) -> None:
    """Run `work` in each of so many new processes; leave as they do.

    Raises InputError or StoppedError with the line of the first process that could not go on, and SystemExit if they
    were interrupted.
    """
    store = TCPStore(_HERE, 0, is_master=True, wait_for_workers=False)  # port 0: one that is free
    endings = get_context("spawn").SimpleQueue()
    arguments = (work, processes, store.port, endings)
    started = list[BaseProcess]()
    stop = StopSignal(partial(_pass_on, started), partial(_kill, started))
    with handling(stop_signals(), stop.hear):
        with starting_workers():  # they import for seconds, and Ctrl-C in a terminal is for them, too
            workers = start_processes(_worker, arguments, nprocs=processes, join=False, start_method="spawn")
            assert workers is not None  # with join=False there is always a context
            started += workers.processes
            if stop():  # heard before any was there
                _kill(started)
        try:
            while not workers.join(grace_period=GRACE_SECONDS):
                pass
            _raise_told(endings)
        except ProcessExitedException as error:
            if error.signal_name is None:  # one that was killed is named, not those that missed it
                _raise_told(endings)
            if stop() or error.exit_code == INTERRUPTED:  # some may not have got as far as to listen
                raise SystemExit(INTERRUPTED) from None
            raise StoppedError(f"rank {error.error_index} {_how(error)}; {_CONTINUE}") from None
        except ProcessRaisedException as error:
            _raise_told(endings)
            click.echo(str(error).strip(), err=True)
            raise StoppedError(f"rank {error.error_index} failed as shown above; {_CONTINUE}") from None


def take_place(rank: int, processes: int, port: int) -> None:
    """Say in the environment, as torchrun would, which of the processes on this machine this one is."""
    place = {"MASTER_ADDR": _HERE, "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({name: str(value) for name, value in {**place, **ranks}.items()})
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it looks for the host's name, which may lead nowhere


def _pass_on(processes: list[BaseProcess]) -> None:
    say_stopping()
    for process in processes:
        process.terminate()


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _how(error: ProcessExitedException) -> str:
    """Say how a process ended that could not say so itself."""
    process = f"(process {error.error_pid})"
    if error.signal_name is None:
        return f"{process} ended with exit code {error.exit_code}"
    memory = ", as the system does when memory runs out" if error.signal_name == "SIGKILL" else ""
    return f"{process} was ended by {error.signal_name}{memory}"


def _raise_told(endings: Any) -> None:
    """Raise the error of the first process that said why it ended, if one did; without a line, leave in silence."""
    if not endings.empty():
        code, line = endings.get()
        if not line:
            raise SystemExit(code) from None
        raise (InputError(line) if code == MISTAKE else StoppedError(line)) from None


def _worker(rank: int, work: Callable[[], None], processes: int, port: int, endings: Any) -> None:
    """Be one of the processes. It hears Ctrl-C from here on, which is also what it gets when its parent dies."""
    end_when_interrupted(b"")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    guard_output()
    take_place(rank, processes, port)
    try:
        work()
        if output_is_lost():
            endings.put((1, "standard output could not be written; the run itself is complete"))
    except (InputError, StoppedError) as error:
        if isinstance(error, LostProcessError):  # one that was killed is to be named instead
            time.sleep(_AFTER_THE_FIRST_SECONDS)
        code = MISTAKE if isinstance(error, InputError) else 1
        endings.put((code, str(error)))
        sys.exit(code)
    except SystemExit as end:
        if end.code == 1:  # whoever read the output has left
            endings.put((1, ""))
        raise
    except KeyboardInterrupt:  # which PyTorch would take for a good end
        sys.exit(INTERRUPTED)
    except Exception:
        time.sleep(_AFTER_THE_FIRST_SECONDS)
        raise
