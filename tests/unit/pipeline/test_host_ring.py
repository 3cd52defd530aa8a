"""Memory goes back to the ring when nobody can see it any more, and never before."""

import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.dlpack import from_dlpack

from alexnet.pipeline.host import Ring

SHAPE = (6, 4, 5)
BYTES = 6 * 4 * 5 * 4

# Ways to go on seeing an array's memory without the array itself.
HOLDERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda array: array,
    "a view": lambda array: array[1:, ::2],
    "a view of a view": lambda array: array.reshape(-1)[3:][::2],
    "other bits": lambda array: array.view(np.uint32),
    "memoryview": lambda array: memoryview(array),
    "tensor": lambda array: torch.from_numpy(array),
    "view of a tensor": lambda array: torch.from_numpy(array).permute(2, 0, 1)[1:],
    "numpy of a tensor": lambda array: torch.from_numpy(array)[2:].numpy(),
    "DLPack": lambda array: from_dlpack(array),
    "iterator": lambda array: array.flat,
    "in a cycle": lambda array: in_a_cycle(array),
}


def in_a_cycle(array: Any) -> Any:
    ring: list[Any] = [array]
    ring.append(ring)
    return ring


def address_of(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("way", HOLDERS)
def test_memory_comes_back_with_the_last_reference_and_not_before(way: str) -> None:
    ring = Ring(BYTES)
    array: Any = ring.take(SHAPE)
    array[:] = 7
    address = address_of(array)
    held = HOLDERS[way](array)
    del array
    other: Any = ring.take(SHAPE)
    assert address_of(other) != address
    other[:] = 8
    assert held is not None
    del held
    if way == "in a cycle":
        gc.collect()
    assert address_of(ring.take(SHAPE)) == address


COUNTED = [way for way in HOLDERS if way != "in a cycle"]  # whose memory comes back at once, without the collector
ACTIONS = st.lists(st.tuples(st.sampled_from(["take", "hold", "drop"]), st.sampled_from(COUNTED)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS, keep=st.integers(1, 4), chance=st.randoms())
def test_no_two_holders_ever_see_the_same_memory(actions: list[tuple[str, str]], keep: int, chance: Any) -> None:
    """Take, hold in other ways and drop in any order: each batch keeps its number until the last holder lets go."""
    made: list[int] = []

    def allocate(bytes_: int) -> Any:
        made.append(bytes_)
        return np.empty(bytes_, np.uint8)

    ring, most = Ring(BYTES, keep=keep, allocate=allocate), 0
    holders: list[tuple[int, Any]] = []
    for number, (action, way) in enumerate(actions):
        if action == "take":
            array: Any = ring.take(SHAPE)
            array[:] = number
            holders.append((number, HOLDERS[way](array)))
            del array
        elif holders:
            which, held = holders.pop(chance.randrange(len(holders)))
            if action == "hold":
                whole = isinstance(held, np.ndarray) and held.shape == SHAPE and held.dtype == np.float32
                holders += [(which, held), (which, HOLDERS[way](held) if whole else held)]
            del held
        assert all(set(numbers_of(held).ravel().tolist()) == {float(which)} for which, held in holders)
        most = max(most, len({which for which, _ in holders}))
    if keep >= most:
        assert len(made) <= max(most, 1)  # no more buffers than there ever were batches out


def numbers_of(held: Any) -> Any:
    """Return the float32 values that a holder sees."""
    if isinstance(held, np.flatiter):
        return np.array(held.base)
    array = np.asarray(held)
    return array.view(np.float32) if array.dtype == np.uint32 else array


def test_batches_may_be_let_go_in_other_threads() -> None:
    """Producers take and stamp, consumers check the stamp some time later."""
    ring = Ring(1000, keep=3)
    wrong: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        kept: list[tuple[int, Any]] = []
        for i in range(2000):
            array: Any = ring.take((250,))
            array[:] = seed * 10_000 + i
            kept.append((seed * 10_000 + i, torch.from_numpy(array)))
            del array
            while len(kept) > chance.randrange(6):
                stamp, tensor = kept.pop(chance.randrange(len(kept)))
                if not bool((tensor == stamp).all()):
                    wrong.append(stamp)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_consumer_that_keeps_batches_waits_for_nobody_and_the_surplus_is_freed() -> None:
    alive: set[int] = set()

    class Noted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            alive.discard(id(self))

    def allocate(bytes_: int) -> Any:
        memory = np.empty(bytes_, np.uint8).view(Noted)
        alive.add(id(memory))
        return memory

    ring = Ring(100, keep=2, allocate=allocate)
    kept = [ring.take((25,)) for _ in range(10)]
    assert len({address_of(array) for array in kept}) == 10
    kept.clear()
    free = {address_of(ring.take((25,))) for _ in range(10)}  # each goes back at once
    assert len(free) <= 2


def test_arrays_are_what_was_asked_for_and_begin_with_a_line() -> None:
    ring = Ring(4096)
    for shape, dtype in (((0, 3), np.float32), ((3, 4, 5), np.float16), ((4096,), np.uint8), ((2, 7), np.uint16)):
        array = ring.take(shape, dtype)
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.size == 0 or address_of(array) % 64 == 0
    array = ring.take((5,))
    array[:] = 3
    del ring
    assert set(array.tolist()) == {3.0}, "a batch outlives its ring"
    ring = Ring(4096)
    with pytest.raises(ValueError, match="needs 4,100 bytes, the ring's buffers have 4,096"):
        ring.take((1025,))
    with pytest.raises(ValueError, match="must be at least 1"):
        Ring(10, keep=0)
