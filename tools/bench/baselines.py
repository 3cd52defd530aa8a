"""Other loaders doing the same work: each as its own documentation recommends, and nobody made of straw.

The work: JPEGs of a data set in shuffled order; of each a random crop, mirrored half of the time; the channels' mean
subtracted; float32 batches as torch tensors, (n, 3, crop, crop). Labels come along. A loader that needs its data in
another form gets it made, in a temporary folder, before the clock starts. The end of an epoch is not felt by any.

A package is imported by the row that measures it: it may not be installed, and its memory is the row's.
"""

import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.gpu_watch import watched
from alexnet.tools.bench.loader_stages import Task
from alexnet.tools.bench.stage import CannotRunError, Stage, Work

Crop = npt.NDArray[np.uint8]

_SHUFFLE, _INITIAL_FILL = 1_000, 1_024  # WebDataset's documentation; DALI's default
_PREFETCH = 2  # the default of torch and DALI
_LABEL_BYTES = 8
_FFCV_IMAGES, _FFCV_REPEATS, _QUALITY = 10_000, 1_000, 90  # written: raw, 2 GB; of the ids


def torch_loader(*, decoder: str, **task: Any) -> Stage:
    """PyTorch's DataLoader over a map-style data set, which reads the shards by offset as there are no loose files.

    As its documentation has it: `num_workers`, `persistent_workers`, a `collate_fn` in the worker, tensors through
    shared memory.
    """
    given, versions = Task(**task), _versions("torch", decoder)
    from torch.utils.data import DataLoader

    loader: Iterable[Any] = DataLoader(
        _Samples(given, decoder),  # type: ignore[arg-type]
        batch_size=given.batch_images,
        sampler=_Endless(len(given.reader)),
        num_workers=given.threads,
        collate_fn=_Collate(given.mean),
        persistent_workers=True,
        prefetch_factor=_PREFETCH,
    )
    words = f"num_workers={given.threads}, prefetch_factor={_PREFETCH}, persistent_workers, {decoder}"
    return _stage(loader, given, words, given.threads * _PREFETCH, versions)


def webdataset(*, decoder: str, **task: Any) -> Stage:
    """WebDataset: shards read from front to back in worker processes, shuffled in a buffer, batched in the worker.

    As its documentation has it: `resampled` shards, so that any number of workers has some; batches made in the
    workers; `WebLoader` with `batch_size=None`.
    """
    given, versions = Task(**task), _versions("webdataset", "torch", decoder)
    import webdataset as wds

    loader = wds.WebLoader(
        wds.WebDataset(
            [str(given.reader.root / s.file) for s in given.reader.shards], resampled=True, shardshuffle=False
        )
        .shuffle(_SHUFFLE)
        .to_tuple("jpg", "cls")
        .map_tuple(_Cropper(decoder, given.crop_px), int)
        .batched(given.batch_images, partial=False, collation_fn=_Collate(given.mean)),
        batch_size=None,
        num_workers=given.threads,
        prefetch_factor=_PREFETCH,
    )
    words = f"resampled shards, shuffle({_SHUFFLE}), num_workers={given.threads}, {decoder}"
    return _stage(loader, given, words, given.threads * _PREFETCH, versions)


def dali(*, crops_early: bool = False, device: str = "cpu", **task: Any) -> Stage:
    """DALI by itself: its own reader, decoder and normalisation, handed over by its iterator for PyTorch.

    The plain graph decodes whole images and lets `crop_mirror_normalize` cut, as the examples of its documentation do;
    with `crops_early` the decoder is told the crop, which is less to decode. Labels stay text, as DALI has no parser.
    """
    given, versions = Task(**task), _versions("nvidia-dali-cuda130", "torch")
    import torch
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    cuda = device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")

    @pipeline_def  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        jpegs, labels = fn.readers.webdataset(  # type: ignore[misc]
            paths=[str(given.reader.root / shard.file) for shard in given.reader.shards],
            ext=["jpg", "cls"],
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
    return _stage(batches(), given, words, _PREFETCH + 1, versions, on_gpu=cuda)


def ffcv(*, stored: str, **task: Any) -> Stage:
    """FFCV: its own file, written once before the clock starts, and its compiled pipeline.

    As its documentation has it: `os_cache=True` for data that fit in memory, `drop_last`. It has no decoder for a
    random crop of fixed size, so `RandomResizedCrop` is told the one scale and ratio that are it.
    """
    given, versions = Task(**task), _versions("ffcv", "torch")
    from ffcv import fields, loader, transforms
    from ffcv.fields import decoders
    from ffcv.writer import DatasetWriter

    images, folder = min(len(given.reader), _FFCV_IMAGES), tempfile.mkdtemp()  # it goes with the process's scratch
    most_bytes, free_bytes = images * 3 * given.size_px**2, shutil.disk_usage(folder).free
    if free_bytes < most_bytes:
        raise CannotRunError(f"{folder}: has {free_bytes / 1e9:.1f} GB free; the file may take {most_bytes / 1e9:.1f}")
    file, crop_px = f"{folder}/set.beton", given.crop_px
    columns = {
        "image": fields.RGBImageField(write_mode=stored, jpeg_quality=_QUALITY),
        "label": fields.IntField(),
    }
    DatasetWriter(file, columns, num_workers=given.threads).from_indexed_dataset(_WholeImages(given, images))
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
        indices=np.tile(np.arange(images), _FFCV_REPEATS),
        pipelines={"image": image, "label": label},
    )
    words = f"{stored}, os_cache, RANDOM, num_workers={given.threads}, channels last"
    return _stage(batches, given, words, 4, versions)


def spdl(*, decoder: str, **task: Any) -> Stage:
    """SPDL: a pipeline of threads, a batch a task: read and decode its images, cut them, subtract the mean.

    As its documentation has it: `PipelineBuilder`, a source that never ends, `pipe` with a concurrency, a sink that
    holds a few. Tasks of one image, gathered with `aggregate`, took 1.7 times the CPU time: each passes through the
    event loop. Its own decoder is FFmpeg's, told the crop as a filter, with one thread an image.
    """
    given, versions = Task(**task), _versions("spdl", "torch", decoder)
    from spdl.pipeline import PipelineBuilder

    reader, collate = given.reader, _Collate(given.mean)
    crop = _spdl_cropper(given) if decoder == "spdl" else _Cropper(decoder, given.crop_px)

    def load(ids: list[int]) -> Any:
        return collate([(crop(reader.jpeg(n).tobytes()), int(reader.labels[n])) for n in ids])

    builder = PipelineBuilder().add_source(_id_batches(given)).pipe(load, concurrency=given.threads)
    pipeline = builder.add_sink(_PREFETCH).build(num_threads=given.threads, max_failures=0)

    def batches() -> Iterator[Any]:
        with pipeline.auto_stop():
            yield from pipeline

    words = f"a batch a task, concurrency=num_threads={given.threads}, sink of {_PREFETCH}, {decoder}"
    return _stage(batches(), given, words, _PREFETCH + given.threads, versions)


def batch_decoder(*, library: str, **task: Any) -> Stage:
    """Libraries that decode a batch of JPEGs on a GPU: nvImageCodec, and torchvision's `decode_jpeg`.

    They leave crops, mirrors and the mean to their user, who does them in PyTorch where the pixels are. One thread
    reads ahead. Without a GPU they are no baselines: neither is made for that.
    """
    given = Task(**task)
    versions = _versions("nvidia-nvimgcodec-cu13" if library == "nvimagecodec" else library, "torch")
    import torch

    if not torch.cuda.is_available():
        raise CannotRunError("decodes batches on a GPU, and torch has none here")
    decode = _nvimagecodec(given.threads) if library == "nvimagecodec" else _torchvision()
    words = "all its backends; crop, mirror and mean in PyTorch on the GPU; one thread reads ahead"
    return _stage(_cropped_on_gpu(given, decode), given, words, 1, versions, on_gpu=True)


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


def _cropped_on_gpu(task: Task, decode: Callable[[list[bytes]], list[Any]]) -> Iterator[Any]:
    import torch

    reader, crop_px, rng = task.reader, task.crop_px, np.random.default_rng(0)
    mean, most = torch.from_numpy(task.mean).cuda()[:, None, None], task.size_px - crop_px + 1

    def read(ids: list[int]) -> tuple[list[bytes], list[int]]:
        return [reader.jpeg(i).tobytes() for i in ids], [int(reader.labels[i]) for i in ids]

    with ThreadPoolExecutor(1) as ahead:
        batches = _id_batches(task)
        coming = ahead.submit(read, next(batches))
        while True:
            jpegs, labels = coming.result()
            coming = ahead.submit(read, next(batches))
            batch = torch.empty((len(jpegs), 3, crop_px, crop_px), device="cuda")
            places = rng.integers(0, (most, most, 2), (len(jpegs), 3)).tolist()
            for out, image, (y, x, mirror) in zip(batch, decode(jpegs), places, strict=True):
                crop = image[:, y : y + crop_px, x : x + crop_px]
                torch.sub(crop.flip(-1) if mirror else crop, mean, out=out)
            yield batch, labels


class _Cropper:
    """Decode a JPEG, cut a random crop and mirror it half of the time; each worker process draws for itself."""

    def __init__(self, decoder: str, crop_px: int) -> None:
        self._decoder, self._crop_px = decoder, crop_px
        self._rng: np.random.Generator | None = None

    def __call__(self, jpeg: bytes) -> Crop:
        if self._rng is None:
            import torch

            self._rng = np.random.default_rng(torch.initial_seed())
        image = _decoded(self._decoder, jpeg)
        y, x = self._rng.integers(0, (image.shape[0] - self._crop_px + 1, image.shape[1] - self._crop_px + 1))
        crop = image[y : y + self._crop_px, x : x + self._crop_px]
        return crop[:, ::-1] if self._rng.random() < 0.5 else crop


def _decoded(decoder: str, jpeg: bytes) -> Crop:
    """Decode to RGB, uint8 (H, W, 3)."""
    if decoder == "simplejpeg":
        return import_module("simplejpeg").decode_jpeg(jpeg)  # type: ignore[no-any-return]
    from PIL import Image

    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def _spdl_cropper(task: Task) -> Callable[[bytes], Crop]:
    import spdl.io

    crop_px, rng, most = task.crop_px, np.random.default_rng(0), task.size_px - task.crop_px + 1
    one_thread = spdl.io.decode_config(decoder_options={"threads": "1"})

    def crop(jpeg: bytes) -> Crop:
        y, x, mirror = rng.integers(0, (most, most, 2)).tolist()
        description = f"crop={crop_px}:{crop_px}:{x}:{y}:exact=1,format=pix_fmts=rgb24{',hflip' * mirror}"
        pixels: Crop = spdl.io.to_numpy(spdl.io.load_image(jpeg, decode_config=one_thread, filter_desc=description))
        return pixels

    return crop


class _Collate:
    """Subtract the mean and put planes one after another, in one pass: float32 (n, 3, crop, crop) and labels."""

    def __init__(self, mean: npt.NDArray[np.float32]) -> None:
        self._mean = mean[:, None, None]

    def __call__(self, samples: list[tuple[Crop, int]]) -> Any:
        import torch

        crops, labels = zip(*samples, strict=True)
        batch = np.empty((len(crops), 3, *crops[0].shape[:2]), np.float32)
        for out, crop in zip(batch, crops, strict=True):
            np.subtract(crop.transpose(2, 0, 1), self._mean, out=out)
        return torch.from_numpy(batch), torch.tensor(labels)


class _Samples:
    """A map-style data set of crops and labels; each worker process opens the shards itself."""

    def __init__(self, task: Task, decoder: str) -> None:
        self._root, self._split, self._crop = task.reader.root, task.split, _Cropper(decoder, task.crop_px)
        self._reader: SplitReader | None = None

    def __getitem__(self, sample_id: int) -> tuple[Crop, int]:
        self._reader = self._reader or SplitReader(self._root, self._split)
        return self._crop(self._reader.jpeg(sample_id).tobytes()), int(self._reader.labels[sample_id])


class _WholeImages:
    """What FFCV writes its file from."""

    def __init__(self, task: Task, images: int) -> None:
        self._reader, self._images = task.reader, images

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.open(io.BytesIO(self._reader.jpeg(index).tobytes()), formats=("JPEG",))
        return image.convert("RGB"), int(self._reader.labels[index])


class _Endless:
    """Sample ids, each once an epoch, without the end of an epoch being felt."""

    def __init__(self, images: int) -> None:
        self._images = images

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            yield from rng.permutation(self._images).tolist()


def _id_batches(task: Task) -> Iterator[list[int]]:
    ids = iter(_Endless(len(task.reader)))
    while True:
        yield list(islice(ids, task.batch_images))


def _versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages, and of a decoder's. Raises CannotRunError for one that is not installed."""
    found = {}
    for name in ("pillow-simd" if package == "pil" else package for package in dict.fromkeys(packages)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise CannotRunError(f"{name} is not installed") from None
    return found


def _stage(
    batches: Iterable[Any], task: Task, words: str, ready: int, versions: dict[str, str], *, on_gpu: bool = False
) -> Stage:
    """Count what a loader delivers, (images, labels) a batch, after its first batch has been looked at."""

    def work() -> Work:
        for number, (images, labels) in enumerate(batches):
            if not number:
                _check(images, len(labels), task)
            yield len(images)

    stage = Stage(work=work, settings=words, ready_batches=ready, versions=versions)
    return watched(stage) if on_gpu else stage


def _check(images: Any, labels: int, task: Task) -> None:
    """Raise CannotRunError unless the work was done: a rate of other work compares with nothing."""
    px, kind = task.crop_px, str(images.dtype)
    if kind != "torch.float32" or tuple(images.shape[1:]) != (3, px, px) or len(images) != labels:
        raise CannotRunError(f"yields {kind} {tuple(images.shape)}, not float32 (n, 3, {px}, {px})")
    for channel, value in enumerate(task.mean.tolist()):
        low, high = float(images[:, channel].min()), float(images[:, channel].max())
        if low < -value - 0.01 or high > 255 - value + 0.01 or high - low < 1:  # 0.01: roundings
            raise CannotRunError(f"channel {channel} has values from {low:.1f} to {high:.1f}: its mean is {value:.1f}")
