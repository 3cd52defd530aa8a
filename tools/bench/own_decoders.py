"""Other loaders doing the same work, each as its own documentation recommends: those that decode by themselves.

`baselines.py` says what the work is. A package is imported by the row that measures it.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np

from alexnet.pipeline.nvidia_packages import installed, without_dali
from alexnet.tools.bench.baselines import Images, counted, decoder_of, draw, id_batches, shards_of, versions_of
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.gpu_stages import watched
from alexnet.tools.bench.stage import CannotRunError, Stage

_INITIAL_FILL, _PREFETCH = 1_024, 2  # DALI's defaults
_LABEL_BYTES = 8
_FFCV_IMAGES, _QUALITY = 10_000, 90  # written: raw, 2 GB
_FFCV_REPEATS = 1_000  # of the ids, so that the end of an epoch is not felt


def dali(*, crops_early: bool = False, device: str = "cpu", **task: Any) -> Stage:
    """DALI by itself: its own reader, decoder and normalisation, handed over by its iterator for PyTorch.

    The plain graph decodes whole images and lets `crop_mirror_normalize` cut, as the examples of its documentation do;
    with `crops_early` the decoder is told the crop, which is less to decode. Labels stay text, as DALI has no parser.
    """
    if reason := without_dali(on_gpu=device == "cuda"):
        raise CannotRunError(reason)
    given, versions = LoaderTask(**task), versions_of(*installed("DALI"), "torch")
    import torch
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    cuda = device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")

    @pipeline_def  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        jpegs, labels = fn.readers.webdataset(  # type: ignore[misc]
            paths=shards_of(given),
            ext=["jpg;jpeg", "cls"],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=_INITIAL_FILL,
            name="reader",
        )
        y, x = (fn.random.uniform(range=(0.0, 1.0)) for _ in range(2))
        crop = {"crop": (given.crop_px, given.crop_px), "crop_pos_x": x, "crop_pos_y": y}
        decode = fn.decoders.image_crop if crops_early else fn.decoders.image
        how = {"device": "mixed" if cuda else "cpu", "output_type": types.RGB}
        images = decode(jpegs, **how, **(crop if crops_early else {}))
        normal = {"mean": given.mean.tolist(), "dtype": types.FLOAT, "output_layout": "CHW"}
        mirror = fn.random.coin_flip()
        batch = fn.crop_mirror_normalize(images, mirror=mirror, **normal, **({} if crops_early else crop))
        return batch, fn.pad(labels, axes=0, shape=[_LABEL_BYTES])

    how = {"num_threads": given.threads, "device_id": 0 if cuda else None, "prefetch_queue_depth": _PREFETCH}
    built = graph(batch_size=given.batch_images, **how)
    names, end = ["images", "labels"], {"auto_reset": True, "last_batch_policy": LastBatchPolicy.DROP}
    iterator = DALIGenericIterator([built], names, reader_name="reader", **end)

    def batches() -> Iterator[Any]:
        while True:
            for (batch,) in iterator:
                yield batch["images"], batch["labels"]

    words = (
        f"readers.webdataset, decoders.image{'_crop' * crops_early}{', mixed' * cuda}, crop_mirror_normalize, "
        f"DALIGenericIterator; num_threads={given.threads}, prefetch_queue_depth={_PREFETCH}"
    )
    stage = counted(batches(), given, words, _PREFETCH + 1, versions)
    return watched(stage) if cuda else stage


def ffcv(*, stored: str, **task: Any) -> Stage:
    """FFCV: its own file, written once before the clock starts, and its compiled pipeline.

    As its documentation has it: `os_cache=True` for data that fit in memory, `drop_last`. It has no decoder for a
    random crop of fixed size, so `RandomResizedCrop` is told the one scale and ratio that are it.
    """
    given, versions = LoaderTask(**task), versions_of("ffcv", "torch")
    from ffcv import fields, loader, transforms
    from ffcv.fields import decoders
    from ffcv.writer import DatasetWriter

    whole, folder = Images(given, decoder_of("pil"), _FFCV_IMAGES), tempfile.mkdtemp()  # it goes with the row's scratch
    most_bytes, free_bytes = len(whole) * 3 * given.size_px**2, shutil.disk_usage(folder).free
    if free_bytes < most_bytes:
        raise CannotRunError(f"{folder}: has {free_bytes / 1e9:.1f} GB free; the file may take {most_bytes / 1e9:.1f}")
    file, crop_px = f"{folder}/set.beton", given.crop_px
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
        indices=np.tile(np.arange(len(whole)), _FFCV_REPEATS),
        pipelines={"image": image, "label": label},
    )
    words = f"{stored}, os_cache, RANDOM, num_workers={given.threads}, channels last"
    return counted(batches, given, words, 4, versions)


def on_gpu(*, library: str, **task: Any) -> Stage:
    """Libraries that decode a batch of JPEGs on a GPU: nvImageCodec, and torchvision's `decode_jpeg`.

    They leave crops, mirrors and the mean to their user, who does them in PyTorch where the pixels are. One thread
    reads ahead. Without a GPU they are no baselines: neither is made for that.
    """
    given = LoaderTask(**task)
    versions = versions_of(*((library == "nvimagecodec" and installed("nvImageCodec")) or [library]), "torch")
    import torch

    if not torch.cuda.is_available():
        raise CannotRunError("decodes batches on a GPU, and torch has none here")
    decode = _nvimagecodec(given.threads) if library == "nvimagecodec" else _torchvision()
    words = "all its backends; crop, mirror and mean in PyTorch on the GPU; one thread reads ahead"
    return watched(counted(_cropped_on_gpu(given, decode), given, words, 1, versions))


def _nvimagecodec(threads: int) -> Callable[[list[bytes]], list[Any]]:
    import torch
    from nvidia import nvimgcodec
    from torch.utils.dlpack import from_dlpack

    decoder = nvimgcodec.Decoder(device_id=torch.cuda.current_device(), max_num_cpu_threads=threads)
    return lambda jpegs: [from_dlpack(image).permute(2, 0, 1) for image in decoder.decode(jpegs)]


def _torchvision() -> Callable[[list[bytes]], list[Any]]:
    import torch

    vision: Any = import_module("torchvision.io")

    def decode(jpegs: list[bytes]) -> list[Any]:
        data = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        return list(vision.decode_jpeg(data, mode=vision.ImageReadMode.RGB, device="cuda"))

    return decode


def _cropped_on_gpu(task: LoaderTask, decode: Callable[[list[bytes]], list[Any]]) -> Iterator[Any]:
    import torch

    files, px, places = Images(task, bytes), task.crop_px, task.size_px - task.crop_px + 1
    mean = torch.from_numpy(task.mean).cuda()[:, None, None]
    with ThreadPoolExecutor(1) as ahead:
        coming = (ahead.submit(lambda ids: [files[n] for n in ids], ids) for ids in id_batches(task))
        following = next(coming)
        while True:
            (jpegs, labels), following = zip(*following.result(), strict=True), next(coming)
            batch = torch.empty((len(jpegs), 3, px, px), device="cuda")
            for out, image in zip(batch, decode(list(jpegs)), strict=True):
                y, x, mirror = draw(places)
                crop = image[:, y : y + px, x : x + px]
                torch.sub(crop.flip(-1) if mirror else crop, mean, out=out)
            yield batch, labels
