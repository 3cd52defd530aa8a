"""Other loaders doing the same work, each as its own documentation recommends: those that leave decoding to their user.

The work: JPEGs of a data set in shuffled order; of each a random crop, mirrored half of the time; the channels' mean
subtracted; float32 batches as torch tensors, (n, 3, crop, crop). Labels come along. A loader that needs its data in
another form gets it made, in a temporary folder, before the clock starts. The end of an epoch is not felt by any.

`own_decoders.py` has those that decode by themselves. A package is imported by the row that measures it: it may not be
installed, and its memory is the row's.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.gpu_watch import watched
from alexnet.tools.bench.loader_stages import LoaderTask
from alexnet.tools.bench.stage import CannotRunError, Stage, Work

Crop = npt.NDArray[np.uint8]

_SHUFFLE = 1_000  # as WebDataset's documentation has it
_PREFETCH = 2  # torch's default


def torch_loader(*, decoder: str, **task: Any) -> Stage:
    """PyTorch's DataLoader over a map-style data set, which reads the shards by offset as there are no loose files.

    As its documentation has it: `num_workers`, `persistent_workers`, a `collate_fn` in the worker, tensors through
    shared memory.
    """
    given, versions = LoaderTask(**task), versions_of("torch", decoder)
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
    return counted(loader, given, words, given.threads * _PREFETCH, versions)


def webdataset(*, decoder: str, **task: Any) -> Stage:
    """WebDataset: shards read from front to back in worker processes, shuffled in a buffer, batched in the worker.

    As its documentation has it: `resampled` shards, so that any number of workers has some; batches made in the
    workers; `WebLoader` with `batch_size=None`.
    """
    given, versions = LoaderTask(**task), versions_of("webdataset", "torch", decoder)
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
    return counted(loader, given, words, given.threads * _PREFETCH, versions)


def spdl(*, decoder: str, **task: Any) -> Stage:
    """SPDL: a pipeline of threads, a batch a task: read and decode its images, cut them, subtract the mean.

    As its documentation has it: `PipelineBuilder`, a source that never ends, `pipe` with a concurrency, a sink that
    holds a few. Tasks of one image, gathered with `aggregate`, took 1.7 times the CPU time: each passes through the
    event loop. Its own decoder is FFmpeg's, told the crop as a filter, with one thread an image.
    """
    given, versions = LoaderTask(**task), versions_of("spdl", "torch", decoder)
    from spdl.pipeline import PipelineBuilder

    reader, collate = given.reader, _Collate(given.mean)
    crop = _spdl_cropper(given) if decoder == "spdl" else _Cropper(decoder, given.crop_px)

    def load(ids: list[int]) -> Any:
        return collate([(crop(reader.jpeg(n).tobytes()), int(reader.labels[n])) for n in ids])

    builder = PipelineBuilder().add_source(id_batches(given)).pipe(load, concurrency=given.threads)
    pipeline = builder.add_sink(_PREFETCH).build(num_threads=given.threads, max_failures=0)

    def batches() -> Iterator[Any]:
        with pipeline.auto_stop():
            yield from pipeline

    words = f"a batch a task, concurrency=num_threads={given.threads}, sink of {_PREFETCH}, {decoder}"
    return counted(batches(), given, words, _PREFETCH + given.threads, versions)


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


def _spdl_cropper(task: LoaderTask) -> Callable[[bytes], Crop]:
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

    def __init__(self, task: LoaderTask, decoder: str) -> None:
        self._root, self._split, self._crop = task.reader.root, task.split, _Cropper(decoder, task.crop_px)
        self._reader: SplitReader | None = None

    def __getitem__(self, sample_id: int) -> tuple[Crop, int]:
        self._reader = self._reader or SplitReader(self._root, self._split)
        return self._crop(self._reader.jpeg(sample_id).tobytes()), int(self._reader.labels[sample_id])


class _Endless:
    """Sample ids, each once an epoch, without the end of an epoch being felt."""

    def __init__(self, images: int) -> None:
        self._images = images

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            yield from rng.permutation(self._images).tolist()


def id_batches(task: LoaderTask) -> Iterator[list[int]]:
    """Yield the ids of a batch, for ever."""
    ids = iter(_Endless(len(task.reader)))
    while True:
        yield list(islice(ids, task.batch_images))


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of packages, and of a decoder's. Raises CannotRunError for one that is not installed."""
    found = {}
    for name in ("pillow-simd" if package == "pil" else package for package in dict.fromkeys(packages)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise CannotRunError(f"{name} is not installed") from None
    return found


def counted(
    batches: Iterable[Any], task: LoaderTask, words: str, ready: int, versions: dict[str, str], *, on_gpu: bool = False
) -> Stage:
    """Count what a loader delivers, (images, labels) a batch, after its first batch has been looked at."""

    def work() -> Work:
        for number, (images, labels) in enumerate(batches):
            if not number:
                _check(images, len(labels), task)
            yield len(images)

    stage = Stage(work=work, settings=words, ready_batches=ready, versions=versions)
    return watched(stage) if on_gpu else stage


def _check(images: Any, labels: int, task: LoaderTask) -> None:
    """Raise CannotRunError unless the work was done: a rate of other work compares with nothing."""
    px, kind = task.crop_px, str(images.dtype)
    if kind != "torch.float32" or tuple(images.shape[1:]) != (3, px, px) or len(images) != labels:
        raise CannotRunError(f"yields {kind} {tuple(images.shape)}, not float32 (n, 3, {px}, {px})")
    for channel, value in enumerate(task.mean.tolist()):
        low, high = float(images[:, channel].min()), float(images[:, channel].max())
        if low < -value - 0.01 or high > 255 - value + 0.01 or high - low < 1:  # 0.01: roundings
            raise CannotRunError(f"channel {channel} has values from {low:.1f} to {high:.1f}: its mean is {value:.1f}")
