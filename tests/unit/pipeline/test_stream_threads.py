"""Nobody waits for ever: whoever closes, forks, interrupts or forgets a stream, and on whatever thread."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.batch import Batch
from alexnet.pipeline.cpu import HostDecoder
from alexnet.pipeline.decode import make_decoder
from alexnet.pipeline.host import available
from alexnet.pipeline.meter import StreamMeter
from alexnet.pipeline.prefetch import Prefetcher

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

PATIENCE_SECONDS = 120.0  # how long a thread may take to do what it has to; never waited for when all is well

Make = Callable[[], ImageStream]
Hold = Callable[[str, Callable[[], bool], Callable[[], object]], tuple[threading.Event, threading.Event]]
Fork = Callable[[Callable[[], bool]], int]


@pytest.fixture
def make(ci_100: Path) -> Make:
    return lambda: ImageStream(ci_100 / "train", batch_images=10, threads=2, settings=StreamSettings(decode="host"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Return a function that has a decoder's method stop, from when it says so: it gives (stopped there, go on)."""

    def hold(
        name: str, when: Callable[[], bool], then: Callable[[], object]
    ) -> tuple[threading.Event, threading.Event]:
        there, go_on = threading.Event(), threading.Event()
        method = getattr(HostDecoder, name)

        def waiting(self: HostDecoder, *arguments: Any) -> Any:
            if when() and not there.is_set():
                there.set()
                assert go_on.wait(PATIENCE_SECONDS)
                then()
            return method(self, *arguments)

        monkeypatch.setattr(HostDecoder, name, waiting)
        return there, go_on

    return hold


def test_closing_a_stream_ends_the_wait_of_a_consumer_on_another_thread(
    make: Make, held: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, ends, waits, next_batch = make(), [], threading.Event(), Prefetcher.next_batch
    there, go_on = held("submit", lambda: True, lambda: None)

    def noted(prefetcher: Prefetcher, meter: StreamMeter) -> Batch:
        waits.set()  # so the stream has a prefetcher by now, which it can close
        return next_batch(prefetcher, meter)

    monkeypatch.setattr(Prefetcher, "next_batch", noted)

    def consume() -> None:
        try:
            next(iter(stream))
        except RuntimeError as error:
            ends.append(str(error))

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert waits.wait(PATIENCE_SECONDS)
    assert there.wait(PATIENCE_SECONDS)  # so no batch will come
    closing = threading.Thread(target=stream.close)
    closing.start()
    consumer.join(PATIENCE_SECONDS)
    go_on.set()
    closing.join(PATIENCE_SECONDS)
    assert ends == ["the stream was closed on another thread while this one waited for a batch"]


class Owner:
    """What a training script has: an object that holds a stream, and that something in it refers back to."""

    def __init__(self, stream: ImageStream) -> None:
        self.stream, self.batches, self.myself = stream, iter(stream), self


@pytest.mark.parametrize("method", ["submit", "_decode"])
def test_the_collector_may_find_a_stream_on_its_own_threads(make: Make, held: Hold, method: str) -> None:
    """There it must not wait: not for the thread it is on, nor for one that waits for this one.

    It finds the stream at the third batch, which is begun when the first has been handed over, and asks nobody.
    """
    before, calls, collected = set(threading.enumerate()), itertools.count(1), threading.Event()

    def collect() -> None:
        gc.collect()
        collected.set()

    gc.disable()
    try:
        there, go_on = held(method, lambda: next(calls) == 3, collect)
        owner = Owner(make())
        alive = weakref.ref(owner)
        next(owner.batches)
        assert there.wait(PATIENCE_SECONDS)
        del owner
        go_on.set()
        assert collected.wait(PATIENCE_SECONDS)
    finally:
        gc.enable()
    assert alive() is None
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_SECONDS)
    assert set(threading.enumerate()) <= before


def test_a_stream_goes_on_where_the_main_thread_has_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on, executors take no more work."""
    monkeypatch.setattr("concurrent.futures.thread._shutdown", True)
    with make() as stream:
        assert sum(1 for _ in stream) == len(stream)


def test_a_stream_whose_closing_was_interrupted_can_be_used_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make()
    for _ in stream:
        pass

    close = Prefetcher.close

    def interrupted(prefetcher: Prefetcher) -> None:
        close(prefetcher)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Prefetcher, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.close()
    with stream:
        assert sum(1 for _ in stream) == len(stream)


@pytest.fixture
def forked() -> Fork:
    """Return a function that runs another in a forked child and returns the exit code: 0 for True."""

    def run(work: Callable[[], bool]) -> int:
        gc.collect()  # what other tests left, whose threads would not be there in the child
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
            child = os.fork()
        if child == 0:
            signal.alarm(int(PATIENCE_SECONDS))
            code = 1
            try:
                code = 0 if work() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


def test_a_forked_child_is_told_to_make_its_own_stream(make: Make, forked: Fork) -> None:
    """It may close its own: also if a thread that did not come along held the lock of the open files."""
    stream = make()
    for _ in stream:  # the next epoch's first batches are under way
        pass

    def child() -> bool:
        try:
            next(iter(stream))
        except RuntimeError as error:
            stream.close()  # must not wait for threads that are not there
            return "make a new stream in process" in str(error) and len(list(stream)) == len(stream)
        return False

    with stream._reader.files._lock:
        assert forked(child) == 0
    with stream:
        assert sum(1 for _ in stream) == len(stream)


def test_a_stream_that_was_not_started_can_be_used_in_a_forked_child(make: Make, forked: Fork) -> None:
    stream = make()
    assert forked(lambda: sum(1 for _ in stream) == len(stream)) == 0


def test_more_threads_than_the_system_starts_are_an_error_in_one_line() -> None:
    code = textwrap.dedent("""
        import resource
        import numpy as np
        from alexnet.pipeline.host import JpegPool
        decoder, out = JpegPool(4000), np.empty((0, 8, 8, 3), np.uint8)
        limit = 4 << 30  # of addresses; each thread takes 8 MiB for its stack
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        places, mirror = np.empty((0, 2), np.int32), np.empty(0, np.bool_)
        for _ in range(2):
            try:
                decoder.decode([], crop_yx=places, mirror=mirror, size=(9, 9), out=out)
            except OSError as error:
                print(error)
    """)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("threads=4000: the system does not start that many (") for line in lines)


def test_a_stream_that_stays_open_runs_on_into_the_next_epoch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As validation's does on a GPU, where a decoder takes as long to start as the images do."""
    made = Mock(wraps=make_decoder)
    monkeypatch.setattr("alexnet.pipeline.prefetch.make_decoder", made)
    with make() as stream:
        for epoch in range(3):
            stream.seek(epoch, 0)
            assert len(list(stream)) == 10
        assert made.call_count == 1
        stream.seek(0, 0)
        list(stream)
        assert made.call_count == 2
