"""Where a stream stands at an epoch's end, and states that are none."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.shards.errors import InputError
from tests.unit.pipeline.streams import labels_of, stream_of


def epoch_of(stream: ImageStream) -> list[list[int]]:
    return [labels.tolist() for _, labels in stream]


@pytest.mark.parametrize("options", [{}, {"batch_images": 100}, {"batch_images": 30, "drop_last": False}])
def test_a_state_of_an_epochs_last_step_is_the_start_of_the_next(ci_100: Path, options: dict[str, int]) -> None:
    with stream_of(ci_100, **options) as stream:
        states = [json.dumps(stream.state()) for _ in stream]
        assert json.loads(states[-1]) == stream.state() == {**json.loads(states[0]), "epoch": 1, "step": 0}
    with stream_of(ci_100, **options) as resumed:
        resumed.resume(json.loads(states[-1]))
        assert resumed.state() == stream.state()
        assert [epoch_of(resumed) for _ in range(2)] == [labels_of(stream, epoch) for epoch in (1, 2)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_state_that_names_the_last_step_resumes_with_the_next_epoch(ci_100: Path, ranks: int) -> None:
    """As earlier versions wrote it."""
    earlier = {**stream_of(ci_100).state(), "epoch": 2, "step": 4}
    parts = []
    for rank in range(ranks):
        with stream_of(ci_100, rank=rank, ranks=ranks) as stream:
            stream.resume(earlier)
            assert (stream.state()["epoch"], stream.state()["step"]) == (3, 0)
            parts.append(epoch_of(stream))
            assert stream.state()["epoch"] == 4
    whole = [list(itertools.chain(*batch)) for batch in zip(*parts, strict=True)]
    assert whole == labels_of(stream_of(ci_100), 3)


def test_the_finishing_pass_of_such_a_state_is_that_of_the_next_epoch(ci_100: Path) -> None:
    augmentation = AugmentSettings(crop_px=32, lighting_division=True, lighting_epochs=1)
    stream = stream_of(ci_100, augmentation=augmentation)
    windows, means = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8), torch.zeros(1, 3)
    lit = stream.finish_pass()(windows, means)
    stream.resume({**stream.state(), "step": len(stream)})
    assert torch.equal(stream.finish_pass()(windows, means), torch.full_like(lit, 100))
    assert not torch.equal(lit, torch.full_like(lit, 100))


def test_seeking_the_end_of_an_epoch_ends_an_iteration_and_begins_none_that_is_empty(ci_100: Path) -> None:
    with stream_of(ci_100) as stream:
        stream.seek(0, 4)
        assert epoch_of(stream) == labels_of(stream, 1)
        for step, _ in enumerate(stream):
            if step == 1:
                stream.seek(2, 4)
        assert step == 1
        assert epoch_of(stream) == labels_of(stream, 3)


def test_an_iteration_left_at_the_last_batch_is_followed_by_the_next_epoch(ci_100: Path) -> None:
    with stream_of(ci_100) as stream:
        for _, _ in zip(range(len(stream)), stream, strict=False):  # asks for no fifth
            pass
        assert epoch_of(stream) == labels_of(stream, 1)


@pytest.mark.parametrize("state", [None, [], "state", 3, [("epoch", 0)], np.zeros((3, 3)), {1, 2}, b"{}"])
def test_what_is_no_state_is_refused(ci_100: Path, state: Any) -> None:
    with pytest.raises(InputError, match=r"^state=[^\n]*: must be what the state\(\) of a stream returned$"):
        stream_of(ci_100).resume(state)


WRONG: list[Any] = [None, "0", "x", [0], {}, 0.5, math.nan, math.inf, -1, -(10**30), np.zeros(2), torch.zeros(2), b"0"]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_damaged_state_is_refused_by_name_and_changes_nothing(ci_100: Path, value: Any) -> None:
    stream = stream_of(ci_100)
    stream.seek(1, 2)
    before = stream.state()
    for name in before:
        with pytest.raises(InputError, match=rf"^{name}[=:][^\n]*$|^epoch=-\d+, step=0: [^\n]*$|^epoch=0, step=-\d+: "):
            stream.resume({**before, "epoch": 0, "step": 0, name: value})
        assert stream.state() == before


@pytest.mark.parametrize("step", [5, 10**30])
def test_a_step_beyond_the_epoch_is_refused(ci_100: Path, step: int) -> None:
    stream = stream_of(ci_100)
    with pytest.raises(InputError, match=rf"^epoch=0, step={step}: epochs count from 0, steps from 0 to 4$"):
        stream.resume({**stream.state(), "step": step})


def test_a_state_lacks_nothing(ci_100: Path) -> None:
    stream = stream_of(ci_100)
    for name in stream.state():
        lacking = {key: value for key, value in stream.state().items() if key != name}
        with pytest.raises(InputError, match=rf"^{name}[=:].*None"):
            stream.resume(lacking)


@pytest.mark.parametrize("as_number", [float, np.int64, np.float64, int])
def test_a_state_whose_numbers_took_another_type_on_their_way_is_one(ci_100: Path, as_number: type) -> None:
    stream = stream_of(ci_100)
    state = {**stream.state(), "epoch": 10**9, "step": 3}
    stream.resume({name: as_number(value) if type(value) is int else value for name, value in state.items()})
    assert json.loads(json.dumps(stream.state())) == state
