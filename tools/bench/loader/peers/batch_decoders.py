"""Libraries that decode a batch of JPEGs on a GPU: nvImageCodec, and torchvision's `decode_jpeg`; both go to nvJPEG.

They leave windows, mirrors and the mean to their user, who does them in PyTorch where the pixels are. One thread reads
ahead. Without a GPU they are no peers: neither is made for that.
Written for a GPU, and not yet run on one.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.peers.work import counted, crop_px_of, endless_ids, mean_of
from alexnet.tools.bench.loader.stages_gpu import watched
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings

DecodeBatch = Callable[[list[bytes]], list[Tensor]]
"""JPEG bytes to images on the device: uint8 (3, height, width), in whatever memory order."""


def make(options: dict[str, Any], settings: StageSettings, versions: dict[str, str]) -> Stage:
    """Make the stage. Raises CannotRunError without a GPU."""
    if not torch.cuda.is_available():
        raise CannotRunError("decodes batches on a GPU, and torch has none here")
    decode = _nvimagecodec(settings.threads) if options["library"] == "nvimagecodec" else _torchvision()
    batches = _batches(SplitReader(settings.data, settings.split), settings.batch_images, decode)
    words = "all its backends; window, mirror and mean in PyTorch on the GPU; one thread reads ahead"
    return watched(Stage(work=counted(batches, settings), settings=words, ready_batches=1, versions=versions))


def _nvimagecodec(threads: int) -> DecodeBatch:
    from nvidia import nvimgcodec

    decoder = nvimgcodec.Decoder(device_id=torch.cuda.current_device(), max_num_cpu_threads=threads)
    return lambda jpegs: [from_dlpack(image).permute(2, 0, 1) for image in decoder.decode(jpegs)]


def _torchvision() -> DecodeBatch:
    io: Any = import_module("torchvision.io")

    def decode(jpegs: list[bytes]) -> list[Tensor]:
        data = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        return list(io.decode_jpeg(data, mode=io.ImageReadMode.RGB, device="cuda"))

    return decode


def _batches(reader: SplitReader, batch_images: int, decode: DecodeBatch) -> Iterator[tuple[Tensor, list[int]]]:
    ids, rng = endless_ids(len(reader)), np.random.default_rng(0)
    crop_px, size_px = crop_px_of(reader.manifest), reader.manifest.size_px
    mean = torch.from_numpy(mean_of(reader.manifest)).cuda()[:, None, None]

    def read() -> tuple[list[bytes], list[int]]:
        chosen = list(islice(ids, batch_images))
        return [reader.jpeg(i).tobytes() for i in chosen], [int(reader.labels[i]) for i in chosen]

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(read)
        while True:
            jpegs, labels = coming.result()
            coming = ahead.submit(read)
            batch = torch.empty((len(jpegs), 3, crop_px, crop_px), device="cuda")
            places = rng.integers(0, (size_px - crop_px + 1, size_px - crop_px + 1, 2), (len(jpegs), 3)).tolist()
            for out, image, (y, x, mirror) in zip(batch, decode(jpegs), places, strict=True):
                window = image[:, y : y + crop_px, x : x + crop_px]
                torch.sub(window.flip(-1) if mirror else window, mean, out=out)
            yield batch, labels
