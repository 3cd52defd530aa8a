"""What a GPU still reads is kept; on a machine without one, by events that say what a test wants."""

import weakref
from collections.abc import Callable

import pytest

from alexnet.pipeline.in_use import InUse


class Memory:
    """Stand for a tensor; there is no more to it than whether it is still there."""


class Event:
    """Stand for an event of CUDA's: `done` once a test says so."""

    def __init__(self) -> None:
        self.recorded = self.done = False
        self.of: Callable[[], Memory | None] = lambda: None

    def record(self) -> None:
        self.recorded = True

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        assert self.of(), "gone before its event"
        self.done = True


@pytest.fixture(autouse=True)
def events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.Event", Event)


def kept(in_use: InUse) -> Event:
    memory = Memory()
    event = in_use.keep(memory)
    assert isinstance(event, Event)
    assert event.recorded
    event.of = weakref.ref(memory)
    return event


def test_memory_is_kept_until_its_event_and_no_longer() -> None:
    in_use = InUse()
    first, second = kept(in_use), kept(in_use)
    assert first.of()
    first.done = True
    third = kept(in_use)
    assert first.of() is None
    assert second.of()
    assert third.of()


def test_the_end_waits_for_all_of_it() -> None:
    in_use = InUse()
    events = [kept(in_use) for _ in range(3)]
    in_use.close()
    assert all(event.done and event.of() is None for event in events)
    in_use.close()
