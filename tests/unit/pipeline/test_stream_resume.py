"""Where a stream stands, from epoch to epoch; resuming exactly; and states that are none."""

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
from tests.unit.pipeline.streams import epochs_of, labels_of, same, stream_of, together

LIT_ONCE = AugmentSettings(crop_px=32, lighting_division=True, lighting_epochs=1)


def epoch_of(stream: ImageStream) -> list[list[int]]:
    return [labels.tolist() for _, labels in stream]


def test_iteration_goes_from_epoch_to_epoch(ci_100: Path) -> None:
    with stream_of(ci_100) as stream:
        epochs = [epoch_of(stream) for _ in range(2)]
        assert epochs == [labels_of(stream, epoch) for epoch in range(2)]
        assert epochs[0] != epochs[1]
        for _ in stream:
            break
        assert epoch_of(stream) == labels_of(stream, 3), "an epoch left half-way is not taken up again"
        for _, _ in zip(range(len(stream)), stream, strict=False):  # asks for no fifth
            pass
        assert epoch_of(stream) == labels_of(stream, 5), "nor one left at its last batch"


def test_an_iteration_cannot_be_taken_up_when_another_has_begun(ci_100: Path) -> None:
    """Both would move on one cursor, and each would lack what the other took."""
    with stream_of(ci_100) as stream:
        left = iter(stream)
        next(left)
        other = iter(stream)
        assert next(other)[1].tolist() == labels_of(stream, 1)[0]
        with pytest.raises(RuntimeError, match="ended when another one began"):
            next(left)
        assert len(list(other)) == len(stream) - 1


def test_an_epoch_that_an_iteration_was_sent_to_and_left_is_not_taken_up_again(ci_100: Path) -> None:
    with ImageStream(ci_100 / "train", batch_images=25) as stream:
        left = iter(stream)
        next(left)
        stream.seek(1, 1)
        next(left)
        stream.start()
        for _ in stream:
            break
        assert (stream.state()["epoch"], stream.state()["step"]) == (2, 1)


def test_seeking_the_end_of_an_epoch_ends_an_iteration_and_begins_none_that_is_empty(ci_100: Path) -> None:
    with stream_of(ci_100) as stream:
        stream.seek(0, 4)
        assert epoch_of(stream) == labels_of(stream, 1)
        for step, _ in enumerate(stream):
            if step == 1:
                stream.seek(2, 4)
        assert step == 1
        assert epoch_of(stream) == labels_of(stream, 3)
        taken = []
        for step, (_, labels) in enumerate(stream):
            taken.append(labels.tolist())
            if step == 1:
                stream.seek(7, 2)  # an iteration that is going on continues there
        assert taken == labels_of(stream, 4)[:2] + labels_of(stream, 7)[2:]


def test_resuming_at_any_step_gives_the_same_batches(ci_100: Path) -> None:
    """In every epoch: the third has neither noise nor division."""
    options = {"augmentation": AugmentSettings(crop_px=64, lighting_division=True, lighting_epochs=2)}
    states, batches = [], []
    with stream_of(ci_100, **options) as stream:
        for images, labels in itertools.chain(stream, stream, stream):
            batches.append((images.clone(), labels.tolist()))
            states.append(json.dumps(stream.state()))
    assert max(map(len, states)) < 400, "a state is a few hundred bytes"
    for done, state in enumerate(states[:-1], start=1):
        with stream_of(ci_100, **options) as resumed:
            resumed.resume(json.loads(state))
            images, labels = next(iter(resumed))
            assert same([(images, labels.tolist())], batches[done : done + 1])


def test_resuming_on_another_number_of_ranks_gives_the_same_global_batches(ci_100: Path) -> None:
    with stream_of(ci_100, rank=0, world_size=2) as stream:
        next(iter(stream))
        state = json.loads(json.dumps(stream.state()))
    shares = []
    for rank in range(3):
        part = stream_of(ci_100, rank=rank, world_size=3)
        part.resume(state)
        shares.append(epochs_of(part))
    assert same(epochs_of(stream_of(ci_100))[1:], together(shares))


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
    """As earlier versions wrote it; the finishing pass is the next epoch's, too."""
    earlier = {**stream_of(ci_100, augmentation=LIT_ONCE).state(), "epoch": 0, "step": 4}
    grey, parts = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8), []
    for rank in range(ranks):
        with stream_of(ci_100, augmentation=LIT_ONCE, rank=rank, world_size=ranks) as stream:
            before = stream.finish_pass()(grey, torch.zeros(1, 3))
            stream.resume(earlier)
            assert (stream.state()["epoch"], stream.state()["step"]) == (1, 0)
            after = stream.finish_pass()(grey, torch.zeros(1, 3))
            assert torch.equal(after, torch.full_like(after, 100))
            assert not torch.equal(before, after)
            parts.append(epoch_of(stream))
            assert stream.state()["epoch"] == 2
    whole = [list(itertools.chain(*batch)) for batch in zip(*parts, strict=True)]
    assert whole == labels_of(stream_of(ci_100), 1)


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("seed", 4, "seed"),
        ("batch_images", 24, "batch_images"),
        ("augment", False, "augment"),
        ("drop_last", False, "drop_last"),
        ("order", "blocks", "order"),
        pytest.param("decode", "dali", "decode", marks=pytest.mark.dali),
        ("augmentation", AugmentSettings(lighting="off"), "augment"),
    ],
)
def test_a_changed_setting_is_refused_by_name(ci_100: Path, option: str, value: object, name: str) -> None:
    changed: dict[str, object] = {option: value}
    if option == "augment":
        changed |= {"shuffle": True, "drop_last": True}
    with pytest.raises(InputError, match=rf"^{name}: "):
        stream_of(ci_100, **changed).resume(stream_of(ci_100).state())


def test_the_digest_of_settings_is_what_it_was() -> None:
    """Whatever fields there will be: a state that was taken by an earlier version resumes."""
    assert AugmentSettings().digest() == "b22fe6222ede47e6"
    assert AugmentSettings(crop_px=227, mirror=False, lighting_epochs=66).digest() == "5d763e767b8c9213"


def test_changed_data_are_refused(ci_100: Path, data_set: Path) -> None:
    state = stream_of(ci_100, batch_images=10).state()
    small = stream_of(data_set, batch_images=10, augmentation=AugmentSettings(crop_px=32))
    with pytest.raises(InputError, match=r"^augment: "):
        small.resume(state)
    with pytest.raises(InputError, match=r"^manifest: "):
        small.resume({**small.state(), "manifest": state["manifest"]})


@pytest.mark.parametrize("state", [None, [], "state", 3, [("epoch", 0)], np.zeros((3, 3)), {1, 2}, b"{}"])
def test_what_is_no_state_is_refused(ci_100: Path, state: Any) -> None:
    with pytest.raises(InputError, match=r"^state=[^\n]*: must be what the state\(\) of a stream returned$"):
        stream_of(ci_100).resume(state)


WRONG: list[Any] = [None, "0", "x", [0], {}, 0.5, math.nan, math.inf, -1, -(10**30), np.zeros(2), torch.zeros(2), b"0"]


def test_a_damaged_state_is_refused_by_name_and_changes_nothing(ci_100: Path) -> None:
    stream = stream_of(ci_100)
    stream.seek(1, 2)
    before = stream.state()
    for name in before:
        lacking = {key: value for key, value in before.items() if key != name}
        for state in (lacking, *({**before, "epoch": 0, "step": 0, name: value} for value in WRONG)):
            with pytest.raises(InputError, match=rf"^{name}[=:][^\n]*$|^epoch=-\d+, step=0: [^\n]*$|^epoch=0, step=-"):
                stream.resume(state)
            assert stream.state() == before
    for step in (5, 10**30):
        with pytest.raises(InputError, match=rf"^epoch=1, step={step}: epochs count from 0, steps from 0 to 4$"):
            stream.resume({**before, "step": step})


@pytest.mark.parametrize("as_number", [float, np.int64, np.float64, int])
def test_a_state_whose_numbers_took_another_type_on_their_way_is_one(ci_100: Path, as_number: type) -> None:
    stream = stream_of(ci_100)
    state = {**stream.state(), "epoch": 10**9, "step": 3}
    stream.resume({name: as_number(value) if type(value) is int else value for name, value in state.items()})
    assert json.loads(json.dumps(stream.state())) == state
