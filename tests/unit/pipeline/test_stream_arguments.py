"""What a stream is given: any spelling that is clear, and one line for what is not."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.shards.errors import InputError
from tests.unit.pipeline.streams import RUNNING


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def stream_of(root: Path, **options: Any) -> ImageStream:
    running = {name: options.pop(name) for name in RUNNING & set(options)}
    given = {"settings": StreamSettings(**running)} if running else {}
    return ImageStream(root / "train", **{"batch_images": 25, "threads": 1, **given, **options})


WHOLE = "must be a whole number"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_images": "25"}, f"batch_images='25': {WHOLE}"),
        ({"batch_images": 25.5}, f"batch_images=25.5: {WHOLE}"),
        ({"batch_images": [25]}, f"batch_images=[25]: {WHOLE}"),
        ({"batch_images": None}, "batch_images: must be given, the images in a batch of all ranks together"),
        ({"seed": None}, f"seed=None: {WHOLE}"),
        ({"seed": "lucky\n" * 99}, f"seed='lucky\\nlucky...ucky\\nlucky\\n': {WHOLE}"),
        ({"seed": float("nan")}, f"seed=nan: {WHOLE}"),
        ({"rank": "0", "world_size": 2}, f"rank='0': {WHOLE}"),
        ({"rank": 0, "world_size": "2"}, f"world_size='2': {WHOLE}"),
        ({"rank": 0, "world_size": 0}, "world_size=0: must be at least 1"),
        ({"threads": "2"}, f"threads='2': {WHOLE}"),
        ({"threads": -1}, "threads=-1: must be at least 1"),
        ({"augment": "False"}, "augment='False': must be True or False"),
        ({"augment": None}, "augment=None: must be True or False"),
        ({"shuffle": "no"}, "shuffle='no': must be True or False"),
        ({"drop_last": 2}, "drop_last=2: must be True or False"),
        ({"channels_last": "nhwc"}, "channels_last='nhwc': must be True or False"),
        ({"views": "10", "augment": False}, "views='10': must be 1 or 10"),
        ({"views": 5, "augment": False}, "views=5: must be 1 or 10"),
        ({"views": 10}, "views=10: is for evaluation; give augment=False as well"),
        ({"output": "int8"}, "output='int8': must be one of uint8, float32, float16, bfloat16"),
        ({"output": torch.float32}, "output=torch.float32: must be one of uint8, float32, float16, bfloat16"),
        ({"device": "gpu"}, "device='gpu': must be cpu, cuda or cuda:N"),
        ({"device": "cuda:-1"}, "device='cuda:-1': must be cpu, cuda or cuda:N"),
        ({"device": "cuda:²"}, "device='cuda:²': must be cpu, cuda or cuda:N"),
        ({"device": 0}, "device=0: must be cpu, cuda or cuda:N"),
        ({"device": None}, "device=None: must be cpu, cuda or cuda:N"),
        ({"settings": {"depth": 3}}, "settings={'depth': 3}: must be StreamSettings(...)"),
        ({"augmentation": StreamSettings()}, "must be AugmentSettings(...)"),
        ({"augmentation": AugmentSettings(crop_px="64")}, f"crop_px='64': {WHOLE}"),  # type: ignore[arg-type]
        ({"augmentation": AugmentSettings(mirror="no")}, "mirror='no': must be True or False"),  # type: ignore[arg-type]
        ({"augmentation": AugmentSettings(lighting_std="0")}, "lighting_std='0': must be a number"),  # type: ignore[arg-type]
        ({"depth": "2"}, f"depth='2': {WHOLE}"),
        ({"read_ahead_batches": 1.5}, f"read_ahead_batches=1.5: {WHOLE}"),
        ({"window_shards": "16"}, f"window_shards='16': {WHOLE}"),
        ({"decode": 0.5}, "decode=0.5: must be text"),
        ({"on_error": True}, "on_error=True: must be one of stop, skip"),
        ({"order": "sorted"}, "order='sorted': must be one of global, blocks"),
        ({"order": "blocks", "window_shards": 0}, "window_shards=0: must be at least 1"),
        ({"order": ["global"]}, "order=['global']: must be one of global, blocks"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_line(ci_100: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        stream_of(ci_100, **options)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("as_number", [np.int64, np.int32, np.uint8, float, torch.tensor])
def test_numbers_of_other_libraries_are_numbers(ci_100: Path, as_number: Any) -> None:
    plain: dict[str, Any] = {"batch_images": 24, "seed": 3, "rank": 1, "world_size": 2, "threads": 2}
    stream, other = stream_of(ci_100, **plain), stream_of(ci_100, **{k: as_number(v) for k, v in plain.items()})
    assert json.dumps(other.state()) == json.dumps(stream.state())
    assert other.plan(as_number(1), as_number(2)).sample_ids.tolist() == stream.plan(1, 2).sample_ids.tolist()
    assert other.global_plan(as_number(1), as_number(2)).mirror.tolist() == stream.global_plan(1, 2).mirror.tolist()
    assert other.sample(as_number(7)) == stream.sample(7)
    for one in (stream, other):
        one.seek(as_number(1), as_number(2))
    with stream, other:
        assert torch.equal(next(iter(other))[0], next(iter(stream))[0])
    assert json.dumps(other.state()) == json.dumps(stream.state())


def test_flags_of_other_libraries_are_flags(ci_100: Path) -> None:
    other = stream_of(ci_100, augment=np.True_, shuffle=1, drop_last=np.bool_(0), channels_last=0)
    assert json.dumps(other.state()) == json.dumps(stream_of(ci_100, drop_last=False).state())


@pytest.mark.parametrize("call", [lambda s: s.plan("1", 0), lambda s: s.seek(0, None), lambda s: s.sample(1.5)])
def test_a_place_that_is_none_is_refused(ci_100: Path, call: Any) -> None:
    with pytest.raises(InputError, match=WHOLE):
        call(stream_of(ci_100))


def test_a_path_may_have_any_type_that_the_system_takes(ci_100: Path) -> None:
    text = str(ci_100 / "train")
    for path in (text, Path(text), os.fsencode(text), text + "/"):
        assert ImageStream(path, batch_images=25).images == 100
    for none in (None, 3, ["train"]):
        with pytest.raises(InputError, match=r"^path=.*: must be a split of a data set, such as DIR/train$"):
            ImageStream(none, batch_images=25)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "environment", "part"),
    [
        ({}, {}, (0, 1)),
        ({}, {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"rank": 0, "world_size": 1}, {"RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),
        ({"rank": 2}, {"WORLD_SIZE": "3"}, (2, 3)),
        ({"world_size": 3}, {"RANK": "2"}, (2, 3)),
        ({"rank": 0}, {}, (0, 1)),
        ({"world_size": 1}, {}, (0, 1)),
        ({}, {"RANK": "0"}, (0, 1)),
        ({}, {"WORLD_SIZE": "1"}, (0, 1)),
        ({"rank": 1}, {}, None),
        ({"world_size": 2}, {}, None),
        ({}, {"RANK": "1"}, None),
        ({}, {"WORLD_SIZE": "2"}, None),
    ],
)
def test_half_of_a_rank_is_refused_where_it_would_give_all_the_same_part(
    ci_100: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, int],
    environment: dict[str, str],
    part: tuple[int, int] | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if part:
        assert stream_of(ci_100, **given).describe()[0].endswith(f"rank {part[0]} of {part[1]}")
    else:
        with pytest.raises(
            InputError, match=r"^rank=.*, world_size=.*: give both, as torchrun does with RANK and WORLD_SI"
        ):
            stream_of(ci_100, **given)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", torch.device("cuda:7"), torch.device("cuda")])
@pytest.mark.parametrize("decode", ["default", "host"])
def test_a_gpu_that_is_not_there_is_refused_by_who_needs_it(
    ci_100: Path, monkeypatch: pytest.MonkeyPatch, device: Any, decode: str
) -> None:
    """Plans and samples need none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    stream = stream_of(ci_100, device=device, decode=decode)
    plan, gpu = stream.plan(0, 0), 7 if "7" in str(device) else 0
    for ask in (lambda: next(iter(stream)), stream.finish_pass, lambda: stream.means_of(plan)):
        with pytest.raises(
            InputError,
            match=f"^device='cuda:{gpu}': this machine has no GPU that PyTorch can use .*; device='cpu'",
        ):
            ask()


def test_a_gpu_beyond_the_last_is_refused_with_those_that_are_there(
    ci_100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"has 2 GPUs that PyTorch can use \(cuda:0 to cuda:1\); device="):
        next(iter(stream_of(ci_100, device="cuda:2")))


def test_a_torch_device_is_a_device(ci_100: Path) -> None:
    with stream_of(ci_100, device=torch.device("cpu")) as stream, stream_of(ci_100) as other:
        assert torch.equal(next(iter(stream))[0], next(iter(other))[0])
