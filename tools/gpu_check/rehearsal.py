"""Training, rehearsed in parts: the network on made-up batches, the stream alone, and the two together.

The three figures belong together: end to end is at best the slower of the other two, and the share of time that the
loop waited for data says which of them it is. `pipeline` and `model` meet here as they do in `training`, with less
around them: no schedule, no records, no checkpoints.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.alexnet_2012 import PAPER
from alexnet.model.networks.build import build_network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.placement import Placement
from alexnet.pipeline import ImageStream
from alexnet.shards.reader import SplitReader
from alexnet.tools.gpu_check.limits import Rate, Row, figure, measure, rate_of, warm_up
from alexnet.tools.host_memory import keep_freed_memory

STREAM_BATCH_IMAGES = 128
CPU_BATCH_IMAGES = 32
_CLASSES = 1000
_PIXEL_DEVIATION = 64.0  # made-up pixels spread about as real ones do: 56 to 71 a channel in the bundled images


class TrainingStep:
    """Take full training steps of the two towers with 1,000 classes: forward, backward, update."""

    def __init__(self, placement: Placement) -> None:
        if placement.device.type == "cpu":
            keep_freed_memory()
        net = build_network(NetSettings(classes=_CLASSES))
        initialise(net, InitSettings(), seed=0)
        self._net = net.to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings = OptimSettings()
        self._optim = MomentumSGD(self._net, self._settings)
        self._placement = placement
        self._steps = 0

    def __call__(self, images: Tensor, labels: Tensor) -> int:
        """Take one step on a batch and return its images; a GPU may still be at work."""
        self._net.clock.set(0, self._steps)
        with self._placement.autocast():
            loss = F.cross_entropy(self._net(images).float(), labels)
        loss.backward()
        self._optim.step(self._settings.lr)
        self._steps += 1
        return len(labels)


def network(placement: Placement, batch_images: int, seconds: float) -> Iterator[Row]:
    """Train on one made-up batch over and over."""
    on_gpu = placement.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(placement.device)
    step = TrainingStep(placement)
    rate = _synthetic_rate(step, placement, batch_images, seconds)
    note = f"full training steps, {_precision(placement)}, channels-last; {rate.spread()}"
    if on_gpu:
        note += f"; {torch.cuda.max_memory_allocated(placement.device) / 2**30:.1f} GiB at most"
    name = f"network, batch {batch_images}"
    yield Row(name=name, value=rate.per_s, unit="images/s", note=note)
    yield Row(name=f"{name}, step", value=1000 * batch_images / rate.per_s, unit="ms", note="from the median above")


def stream_alone(placement: Placement, data: Path, seconds: float) -> Iterator[Row]:
    """Take batches from the stream and do nothing with them."""
    with _open_stream(placement, data, STREAM_BATCH_IMAGES) as stream:
        batches = _endless(stream)
        rate = measure(lambda: len(next(batches)[1]), placement.device, seconds)
        yield Row(name="stream", value=rate.per_s, unit="images/s", note=_stream_note(stream, rate))


def end_to_end(placement: Placement, data: Path, seconds: float) -> Iterator[Row]:
    """Train from the stream, and on a made-up batch of the same size for comparison."""
    wanted = STREAM_BATCH_IMAGES if placement.device.type == "cuda" else CPU_BATCH_IMAGES
    step = TrainingStep(placement)
    with _open_stream(placement, data, wanted) as stream:
        batches = _endless(stream)
        batch_images = len(next(batches)[1])
        synthetic = _synthetic_rate(step, placement, batch_images, seconds / 3)

        def fed() -> float:
            return step(*next(batches))

        warm_up(fed, placement.device, seconds / 6)
        waited = stream.meter.wait_seconds
        rate = rate_of(fed, placement.device, seconds / 2)
        waited = stream.meter.wait_seconds - waited
        note = f"{_precision(placement)}; {_stream_note(stream, rate)}"
        yield Row(name=f"end to end, batch {batch_images}", value=rate.per_s, unit="images/s", note=note)
    share, ratio = 100 * waited / rate.seconds, rate.per_s / synthetic.per_s
    why = "of the time that the loop stood waiting for a batch"
    yield Row(name="end to end, data wait", value=share, unit="%", note=why)
    note = f"the network alone, at this batch size and measured just before: {figure(synthetic.per_s)} images/s"
    yield Row(name="end to end / network alone", value=ratio, unit="ratio", note=note)


def _synthetic_rate(step: TrainingStep, placement: Placement, batch_images: int, seconds: float) -> Rate:
    device = placement.device
    px = PAPER.input_px[0]
    images = torch.randn(batch_images, 3, px, px, device=device) * _PIXEL_DEVIATION
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(_CLASSES, (batch_images,), device=device)
    return measure(lambda: step(images, labels), device, seconds)


def _open_stream(placement: Placement, data: Path, batch_images: int) -> ImageStream:
    return ImageStream(
        data / "train",
        batch_images=min(batch_images, len(SplitReader(data, "train"))),
        rank=0,
        ranks=1,
        device=str(placement.device),
        channels_last=True,
    )


def _endless(stream: ImageStream) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from stream


def _stream_note(stream: ImageStream, rate: Rate) -> str:
    """Say how the stream was measured, and whether the same few images came again and again."""
    note = f"augmented, batch {stream.meter.images // stream.meter.batches}; {rate.spread()}"
    epochs = stream.meter.images / stream.images
    if epochs > 1:
        note += f"; repeated: the data has {stream.images:,} images and was read {epochs:,.1f} times, from memory"
    return note


def _precision(placement: Placement) -> str:
    return "bf16 autocast" if placement.bf16 else "fp32"
