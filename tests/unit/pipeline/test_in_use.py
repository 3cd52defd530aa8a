"""What a GPU still reads is kept; on a machine without one, by events that say what a test wants."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from alexnet.pipeline.batch import Batch
from alexnet.pipeline.in_use import InUse
from alexnet.pipeline.prefetch import _Work


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


def test_a_batch_is_copied_out_of_memory_that_is_not_pytorchs() -> None:
    """Such as DALI's, which is used again when its event has passed, whether the consumer has read it or not."""
    work = object.__new__(_Work)
    work._decoded_in_use = InUse()
    own = torch.zeros(2, 3, 4, 4)
    for images, copied in ((own, False), (from_dlpack(np.zeros((2, 3, 4, 4), np.float32)), True)):
        batch: Any = Batch(step_index=0, plan=None, normalization=None, reader=None, images=images)  # type: ignore[arg-type]
        given = work._with_event(batch, images)
        assert (given.images.data_ptr() != images.data_ptr()) is copied
        assert torch.equal(given.images, images)
