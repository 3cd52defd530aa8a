"""The stages of the data path, each as something that can be run for a while and counted.

A stage is made in a process of its own, and loads only what it measures with: reading and libjpeg-turbo need no torch.
"""

from contextlib import closing
from importlib import import_module
from typing import Any

import numpy as np

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.measuring.stages_seam import Stage, StageSettings, Work


def make_stage(kind: str, options: dict[str, Any], settings: StageSettings) -> Stage:
    """Make the stage of a row. Raises CannotRunError with the reason where it cannot run here."""
    if kind in ("storage", "memory-copy"):
        from alexnet.tools.bench.loader import stages_storage

        if kind == "storage":
            return stages_storage.storage(settings, cold=bool(options["cold"]))
        return stages_storage.memory_copy(settings.threads)
    if kind == "read":
        return _read(settings)
    if kind == "jpeg":
        from alexnet.tools.bench.loader.stages_jpeg import jpeg

        return jpeg(settings, options)
    if kind == "stream":
        return _stream(settings, options)
    if kind in ("nvjpeg", "to-device"):
        from alexnet.tools.bench.loader import stages_gpu

        return (stages_gpu.nvjpeg if kind == "nvjpeg" else stages_gpu.to_device)(settings, options)
    if kind == "beside":
        from alexnet.tools.bench.loader.stages_beside import beside

        return beside(_stream(settings, options), settings, options)
    from alexnet.tools.bench.loader.peers import make_peer

    return make_peer(kind, options, settings)


def _read(settings: StageSettings) -> Stage:
    """Read one image after another through the reader, in the stream's order."""
    reader = SplitReader(settings.data, settings.split)

    def work() -> Work:
        order = np.random.default_rng(0)
        while True:
            ids = order.permutation(len(reader))
            for first in range(0, len(ids), settings.batch_images):
                batch = ids[first : first + settings.batch_images].tolist()
                yield len(batch), sum(len(reader.jpeg(sample_id)) for sample_id in batch)

    return Stage(work=work, settings="1 thread, shuffled")


def _stream(settings: StageSettings, options: dict[str, Any]) -> Stage:
    """Iterate the stream, epoch after epoch, letting go of each batch."""
    from alexnet.pipeline import ImageStream, StreamSettings
    from alexnet.pipeline.augment import AugmentSettings

    import_module("alexnet.pipeline.running")  # torch: it comes with the first batch otherwise, as if a batch's memory
    threads = int(options.get("threads", settings.threads))
    cuda = options.get("device") == "cuda"
    run = StreamSettings(
        decode=options.get("decode", "default"),
        depth=options.get("depth", 2),
        read_ahead_batches=options.get("read_ahead_batches", 8),
    )
    reader = SplitReader(settings.data, settings.split)
    stream = ImageStream(
        settings.data / settings.split,
        batch_images=settings.batch_images,
        rank=0,
        ranks=1,
        augment=bool(options.get("augment", True)),
        augmentation=AugmentSettings(crop_px=min(AugmentSettings().crop_px, reader.manifest.size_px)),
        device=options.get("device", "cpu"),
        threads=threads,
        output=options["output"],
        settings=run,
    )
    image_bytes = reader.jpeg_bytes() / len(reader)

    def work() -> Work:
        with closing(stream):
            while True:
                for _, labels in stream:
                    if cuda:
                        labels.sum().item()  # the GPU has passed the batch
                    yield len(labels), round(len(labels) * image_bytes)

    stage = Stage(work=work, settings=f"{stream.describe()[-1]}; depth {run.depth}", ready_batches=run.depth + 3)
    if not cuda:
        return stage
    from alexnet.tools.bench.loader.stages_gpu import watched

    return watched(stage)
