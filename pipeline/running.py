"""Start a stream: find out how to decode, and put decoder, feed and read-ahead together.

Here torch and the decoders are loaded, with a stream's first batch and not before.
"""

import time
from contextlib import closing
from dataclasses import replace

import torch
from torch.utils.data import get_worker_info

from alexnet.pipeline.blueprint import Blueprint
from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.decoders.make import make_decoder
from alexnet.pipeline.feed import Feed, FeedSettings
from alexnet.pipeline.host.extension import available
from alexnet.pipeline.read_ahead import ReadAhead
from alexnet.shards.errors import InputError

_TRIAL_SECONDS = 1.0
_SHARE_STEP = 0.05


def refuse_in_a_worker() -> None:
    """Raise InputError in a DataLoader's worker, which cannot know the epoch nor which images are its own."""
    worker = get_worker_info()
    if worker is not None:
        raise InputError(
            f"a stream cannot run in a DataLoader's worker (this is {worker.id} of {worker.num_workers}): each would "
            "yield every image, and the same epoch every time; iterate the stream itself, which decodes on threads of "
            "its own, or give the DataLoader num_workers=0"
        )


def resolve(decode: Decode, blueprint: Blueprint) -> Decode:
    """Settle `auto` on a GPU: run each decoder alone for a second, and give it a share in proportion to its speed."""
    if decode.dali_share is not None:
        return decode
    s = blueprint.planner.settings
    if available() is not None or s.batch_images < s.ranks:  # no decoder to share with, or nothing to time on some rank
        return Decode(dali_share=1.0)
    with torch.cuda.device(blueprint.decoder_settings().device):  # not on GPU 0, which may be another rank's
        dali, host = (_speed(Decode(dali_share=share), blueprint) for share in (1.0, 0.0))
    return Decode(dali_share=round(dali / (dali + host) / _SHARE_STEP) * _SHARE_STEP)


def start_feed(decode: Decode, blueprint: Blueprint, first: int) -> Feed:
    """Start handing over batches from one on."""
    settings = FeedSettings(
        decoder=blueprint.decoder_settings(),
        decode=decode,
        crop_px=blueprint.crop_px,
        on_error=blueprint.settings.on_error,
        views=blueprint.views,
    )
    ahead = blueprint.settings.read_ahead_batches
    read_ahead = ReadAhead(blueprint.reader, blueprint.planner, first, ahead) if ahead else None
    return Feed(settings, blueprint.batches(first), read_ahead)


def _speed(decode: Decode, blueprint: Blueprint) -> float:
    """Return images/s of a decoder on the first batches; its start is not counted."""
    batches = (batch for batch in blueprint.batches(0) if len(batch))
    settings = replace(blueprint.decoder_settings(), windows_only=True)
    with closing(make_decoder(decode, settings)) as decoder:
        for _ in range(decoder.ahead):
            decoder.submit(next(batches))
        decoder.result()
        images, started = 0, time.perf_counter()
        while time.perf_counter() < started + _TRIAL_SECONDS:
            decoder.submit(next(batches))
            images += len(decoder.result().batch)
        return images / (time.perf_counter() - started)
