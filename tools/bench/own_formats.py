"""Other loaders doing the same work, each as its own documentation recommends: those that read a format of their own.

`baselines.py` says what the work is. What is read is written once, of so many images at most, before the clock starts,
and goes with the row; of a data set at a URL all images are written, below that, and go with the command. A package is
imported by the row that measures it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np

from alexnet.shards.storage import Storage
from alexnet.tools.bench.baselines import (
    PREFETCH,
    Images,
    collate,
    counted,
    cropper,
    cutter,
    decoder_of,
    pixels_of,
    planar,
    versions_of,
)
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.stage import CannotRunError, Stage

WRITTEN = "alexnet-bench"
"""Where other loaders' files lie below the URL of a data set."""
_IMAGES = 10_000  # written: 2 GB of raw pixels, 0.2 GB of JPEGs
_QUALITY = 90
_REPEATS = 1_000  # of what was written, so that the end of an epoch is not felt
_LABEL_BYTES = 8


def ffcv(*, stored: str, **task: Any) -> Stage:
    """FFCV: its own file, written once before the clock starts, and its compiled pipeline.

    As its documentation has it: `os_cache=True` for data that fit in memory, `drop_last`. It has no decoder for a
    random crop of fixed size, so `RandomResizedCrop` is told the one scale and ratio that are it.
    """
    given, versions = LoaderTask(**task), versions_of("ffcv", "torch")
    from ffcv import fields, loader, transforms
    from ffcv.fields import decoders
    from ffcv.writer import DatasetWriter

    whole = Images(given, decoder_of("pil"), _IMAGES)
    file, crop_px = f"{_folder(given, whole)}/set.beton", given.crop_px
    columns = {
        "image": fields.RGBImageField(write_mode=stored, jpeg_quality=_QUALITY),
        "label": fields.IntField(),
    }
    DatasetWriter(file, columns, num_workers=given.threads).from_indexed_dataset(whole)
    scale = (crop_px / given.size_px) ** 2
    image = [
        decoders.RandomResizedCropRGBImageDecoder((crop_px, crop_px), scale=(scale, scale), ratio=(1.0, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.NormalizeImage(given.mean, np.ones(3), np.float32),
        transforms.ToTensor(),
        transforms.ToTorchImage(),
    ]
    label = [decoders.IntDecoder(), transforms.ToTensor(), transforms.Squeeze()]
    batches = loader.Loader(
        file,
        batch_size=given.batch_images,
        num_workers=given.threads,
        order=loader.OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        indices=np.tile(np.arange(len(whole)), _REPEATS),
        pipelines={"image": image, "label": label},
    )
    words = f"{stored}, os_cache, RANDOM, num_workers={given.threads}, channels last"
    return counted(batches, given, words, 4, versions)


def grain(*, decoder: str, **task: Any) -> Stage:
    """Grain: JPEGs behind their labels in an ArrayRecord file, read at random and batched in worker processes.

    As its documentation has it: `DataLoader`, as nothing is mixed or packed; records in groups of one; a `RandomMap`,
    which brings each record its own generator, then `Batch`; no threads that read, as what was just written lies in
    memory. Batches come as NumPy's, through shared memory.
    """
    given, versions = LoaderTask(**task), versions_of("grain", "array-record", "torch", decoder)
    import grain
    import torch

    whole, crop, batch_of = Images(given, bytes, _IMAGES), cropper(decoder, given), planar(given)

    class Crop(grain.transforms.RandomMap):  # type: ignore[misc]
        def random_map(self, record: bytes, rng: np.random.Generator) -> tuple[Any, int]:
            return crop(record[_LABEL_BYTES:], rng.random), int.from_bytes(record[:_LABEL_BYTES], "little")

    def batched(samples: Any) -> tuple[Any, Any]:
        crops, labels = zip(*samples, strict=True)
        return batch_of(crops), np.array(labels)

    source = grain.sources.ArrayRecordDataSource(_array_record(_folder(given, whole), whole))
    loader = grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(len(source), shuffle=True, seed=0),  # for ever
        operations=[Crop(), grain.transforms.Batch(given.batch_images, drop_remainder=True, batch_fn=batched)],
        worker_count=given.threads,
        worker_buffer_size=PREFETCH,
        read_options=grain.ReadOptions(num_threads=0, prefetch_buffer_size=0),
    )
    batches = ((torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in loader)
    words = f"ArrayRecord, worker_count={given.threads}, worker_buffer_size={PREFETCH}, num_threads=0, {decoder}"
    ready = given.threads * (2 * PREFETCH + 1)  # a queue on either side of each worker's pipe, and what it works on
    return counted(batches, given, words, ready, versions)


def _array_record(folder: str, images: Images) -> str:
    """Write JPEGs behind their labels; return the file."""
    from array_record.python.array_record_module import ArrayRecordWriter

    file = f"{folder}/set.array_record"
    writer = ArrayRecordWriter(file, "group_size:1")  # for reads at random
    for n in range(len(images)):
        jpeg, label = images[n]
        writer.write(label.to_bytes(_LABEL_BYTES, "little") + jpeg)
    writer.close()
    return file


def litdata(*, decoder: str, **task: Any) -> Stage:
    """LitData: JPEGs as they are in chunks that its `optimize` writes, streamed from there in worker processes.

    As its documentation has it: chunks of 64 MB, `shuffle`, `drop_last`, `StreamingDataLoader`. It decodes what it
    stored as `Jpeg`, with torchvision, whole; other decoders are given bytes.
    """
    given, versions = LoaderTask(**task), versions_of("litdata", "torch", decoder)
    from litdata import Jpeg, StreamingDataLoader, StreamingDataset, optimize
    from litdata.streaming import downloader

    if _endpoint().startswith("http:"):  # its users have no say in whether it speaks to a server without TLS
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"
    own = decoder == "torchvision"
    if own:
        import_module("torchvision.io")  # where its libraries cannot be loaded it says so here, and not in a worker
    images = Images(given, (lambda jpeg: Jpeg(bytes=jpeg, max_quality=None)) if own else bytes, _most(given))
    cut = cutter(given)
    crop: Callable[[Any], Any] = (lambda image: cut(pixels_of(image))) if own else cropper(decoder, given)
    where = _written_to(given, images, f"litdata-{decoder}")
    how = {"num_workers": given.threads, "start_method": "fork", "verbose": False}
    optimize(images.__getitem__, list(range(len(images))), where, chunk_bytes="64MB", **how)
    stored = StreamingDataset(
        where,
        cache_dir=tempfile.mkdtemp() if given.url else None,
        shuffle=True,
        drop_last=True,
        subsample=1.0 if given.url else float(_REPEATS),
        transform=lambda sample: (crop(sample[0]), sample[1]),
    )
    loader: Iterable[Any] = StreamingDataLoader(
        stored,
        batch_size=given.batch_images,
        num_workers=given.threads,
        prefetch_factor=PREFETCH,
        collate_fn=collate(given),
    )
    words = f"chunks of 64 MB, shuffle, num_workers={given.threads}, prefetch_factor={PREFETCH}, {decoder}"
    return counted(loader, given, words, given.threads * PREFETCH, versions)


def streaming(*, decoder: str, **task: Any) -> Stage:
    """MosaicML Streaming: JPEGs as they are in MDS shards that its writer uploads, read from there through a folder.

    As its documentation has it: shards of 64 MB, `remote` and `local`, `shuffle`, `batch_size` told to the data set,
    too, `StreamingDataLoader`. Its endpoint is S3_ENDPOINT_URL.
    """
    given, versions = LoaderTask(**task), versions_of("mosaicml-streaming", "torch", decoder)
    if not given.url:
        raise CannotRunError("is measured from object storage only; give a data set at a URL")
    if endpoint := _endpoint():
        os.environ.setdefault("S3_ENDPOINT_URL", endpoint)
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

    images, crop = Images(given, bytes), cropper(decoder, given)
    where = _written_to(given, images, "streaming")
    with MDSWriter(columns={"image": "bytes", "label": "int"}, out=where) as writer:
        for n in range(len(images)):
            jpeg, label = images[n]
            writer.write({"image": jpeg, "label": label})

    class Crops(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: int) -> tuple[Any, int]:
            sample = super().__getitem__(at)
            return crop(sample["image"]), sample["label"]

    loader: Iterable[Any] = StreamingDataLoader(
        Crops(remote=where, local=tempfile.mkdtemp(), shuffle=True, batch_size=given.batch_images),
        batch_size=given.batch_images,
        num_workers=given.threads,
        prefetch_factor=PREFETCH,
        collate_fn=collate(given),
    )
    words = f"MDS of 64 MB, shuffle, num_workers={given.threads}, prefetch_factor={PREFETCH}, {decoder}"
    return counted(loader, given, words, given.threads * PREFETCH, versions)


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT", "")


def delete_written(url: str) -> None:
    """Delete what loaders wrote below the URL of a data set."""
    storage = Storage(f"{url}/{WRITTEN}")
    storage.delete(storage.list())


def _most(task: LoaderTask) -> int | None:
    """Return how many images are written; of a data set at a URL all, as a loader then reads none of them twice."""
    return None if task.url else _IMAGES


def _written_to(task: LoaderTask, images: Images, name: str) -> str:
    """Return where a loader's files go: a new folder, or below the URL of the data set."""
    return f"{task.url}/{WRITTEN}/{name}" if task.url else _folder(task, images)


def _folder(task: LoaderTask, images: Images) -> str:
    """Return a new folder that goes with the row. Raises CannotRunError where the images' raw pixels do not fit in."""
    folder = tempfile.mkdtemp()
    most_bytes, free_bytes = len(images) * 3 * task.size_px**2, shutil.disk_usage(folder).free
    if free_bytes < most_bytes:
        raise CannotRunError(f"{folder}: has {free_bytes / 1e9:.1f} GB free; data may take {most_bytes / 1e9:.1f}")
    return folder
