"""The graphs for a GPU, where there is none: DALI takes their operators and arguments, and starts with a full run."""

import itertools
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

pytest.importorskip("nvidia.dali")

from nvidia.dali import Pipeline, fn

from alexnet.pipeline import dali, dali_graph
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.batch import Batch, DecodeSettings
from alexnet.pipeline.normalize import normalization_of
from alexnet.pipeline.settings import Output
from alexnet.shards.reader import SplitReader
from tests.unit.pipeline.streams import stream_of

SETTINGS = DecodeSettings(
    encoding="jpeg",
    decode="dali",
    device_id=0,
    threads=2,
    depth=2,
    max_images=128,
    size_px=256,
    crop_px=224,
    crops_only=False,
    views_px=None,
    output="float32",
    channels_last=True,
    mean_image=False,
    resident="off",
    images=1000,
    reserve_bytes=0,
)


def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the graph define its operators in a pipeline of no device: DALI checks them without looking for a GPU."""
    monkeypatch.setattr(dali_graph, "Pipeline", lambda **options: Pipeline(**{**options, "device_id": None}))


def serialized(settings: DecodeSettings) -> bytes:
    graph: bytes = dali_graph.define_graph(settings, 1024, deque()).serialize()
    return graph


def test_dali_takes_every_graph_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses wrong names, kinds and places of arguments when a graph is serialized."""
    without_a_gpu(monkeypatch)
    kinds = itertools.product(get_args(Output), (False, True), (False, True), ("dali", "split=0.5"), (None, 224))
    graphs = set()
    for output, channels_last, mean_image, decode, views_px in kinds:
        settings = replace(
            SETTINGS,
            output=output,
            channels_last=channels_last,
            mean_image=mean_image,
            decode=decode,
            views_px=views_px,
            crops_only=views_px is not None or decode != "dali",
        )
        graph = serialized(settings)
        assert (b"CropMirrorNormalize" in graph) == dali_graph.normalizes(settings)
        graphs.add(graph)
    # Normalized: two types in two layouts; else crops, of DALI alone and of a share.
    assert len(graphs) == 6


@pytest.mark.parametrize(
    ("operator", "wrong", "message"),
    [
        ("decoders.image", {"preallocate_with_hint": 256}, "preallocate_with_hint"),
        ("decoders.image", {"hw_decoder_load": "all"}, "to float: 'all'"),
        ("slice", {"device": "cpu"}, "(?i)gpu"),
        ("crop_mirror_normalize", {"device": "mixed"}, "mixed"),
    ],
)
def test_and_refuses_one_with_a_fault(
    monkeypatch: pytest.MonkeyPatch, operator: str, wrong: dict[str, Any], message: str
) -> None:
    """What the test above stands on."""
    without_a_gpu(monkeypatch)
    *modules, name = operator.split(".")
    module = fn.decoders if modules else fn
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *inputs, **options: right(*inputs, **{**options, **wrong}))
    with pytest.raises((RuntimeError, KeyError, TypeError, ValueError), match=message):
        serialized(SETTINGS)


@pytest.mark.parametrize("first", [5, 64])
def test_the_first_run_of_a_gpu_is_a_full_one(ci_100: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """Here on DALI's CPU decoder; a first run that is full needs none before it."""
    runs: list[int] = []

    def build(settings: DecodeSettings, images: int, waiting: deque[dali_graph.Inputs]) -> Any:
        assert images == 64
        graph = dali_graph.build_graph(replace(settings, device_id=None), images, waiting)
        schedule = graph.schedule_run

        def counted() -> None:
            runs.append(len(waiting[0][0]))
            schedule()

        graph.schedule_run = counted
        return graph

    monkeypatch.setattr(dali, "build_graph", build)
    monkeypatch.setattr(dali, "_GPU_RUN_IMAGES", 64)
    stream, reader = stream_of(ci_100, augment=False, batch_images=64), SplitReader(ci_100, "train")
    constants = normalization_of(AugmentSettings(), reader.manifest.colour, training=False)
    plans = [stream.plan(0, 0).select(np.arange(64) < first), stream.plan(0, 1)]
    batches = [Batch(step_index=i, plan=p, normalization=constants, reader=reader) for i, p in enumerate(plans)]
    decoders = [dali.DaliDecoder(replace(SETTINGS, device_id=device_id, max_images=64)) for device_id in (0, None)]
    with_warm_up, plain = ([take().images for take in [*map(d.submit, batches)]] for d in decoders)
    small = [5] if first == 5 else []
    assert runs == [64, *small, 36, first, 36], "with one, and without"
    assert all(torch.equal(a, b) for a, b in zip(with_warm_up, plain, strict=True))
