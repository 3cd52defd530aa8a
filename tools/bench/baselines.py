"""Other loaders doing the same work, each as its own documentation recommends: those that leave decoding to their user.

The work: JPEGs of a data set in shuffled order; of each a random crop, mirrored half of the time; the channels' mean
subtracted; float32 batches as torch tensors, (n, 3, crop, crop). Labels come along. A loader that needs its data in
another form gets it made, in a temporary folder, before the clock starts. The end of an epoch is not felt by any.

`own_decoders.py` has those that decode by themselves, `own_formats.py` those that read a format of their own. A package
is imported by the row that measures it: it may not be installed, and its memory is the row's.
"""

import io
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.stage import CannotRunError, Stage, Work
from alexnet.tools.convert.pillow import distribution

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), RGB

_SHUFFLE = 1_000  # as WebDataset's documentation has it
PREFETCH = 2  # torch's default
_BRING_PILLOW = ("ffcv", "litdata", "torchvision")  # it overwrites pillow-simd


def torch_loader(*, decoder: str, **task: Any) -> Stage:
    """PyTorch's DataLoader over a map-style data set, which reads the shards by offset as there are no loose files.

    As its documentation has it: `num_workers`, `persistent_workers`, a `collate_fn` in the worker, tensors through
    shared memory. This is how torchcodec, which has no loader, is used, too: an image at a time in worker processes.
    """
    given, versions = LoaderTask(**task), versions_of("torch", decoder)
    from torch.utils.data import DataLoader

    loader: Iterable[Any] = DataLoader(
        Images(given, cropper(decoder, given)),  # type: ignore[arg-type]
        batch_size=given.batch_images,
        sampler=_ids(given),
        num_workers=given.threads,
        collate_fn=collate(given),
        persistent_workers=True,
        prefetch_factor=PREFETCH,
    )
    words = f"num_workers={given.threads}, prefetch_factor={PREFETCH}, persistent_workers, {decoder}"
    return counted(loader, given, words, given.threads * PREFETCH, versions)


def webdataset(*, decoder: str, **task: Any) -> Stage:
    """WebDataset: shards read from front to back in worker processes, shuffled in a buffer, batched in the worker.

    As its documentation has it: `resampled` shards, so that any number of workers has some; batches made in the
    workers; `WebLoader` with `batch_size=None`. From s3:// it reads the pipe of a command.
    """
    given, versions = LoaderTask(**task), versions_of("webdataset", "torch", decoder)
    import webdataset as wds

    images = (
        wds.WebDataset(_opened(given), resampled=True, shardshuffle=False).shuffle(_SHUFFLE).to_tuple("jpg;jpeg", "cls")
    )
    batches = images.map_tuple(cropper(decoder, given), int).batched(
        given.batch_images, partial=False, collation_fn=collate(given)
    )
    loader = wds.WebLoader(batches, batch_size=None, num_workers=given.threads, prefetch_factor=PREFETCH)
    words = f"resampled shards, shuffle({_SHUFFLE}), num_workers={given.threads}, {decoder}"
    return counted(loader, given, words, given.threads * PREFETCH, versions)


def spdl(*, decoder: str, **task: Any) -> Stage:
    """SPDL: a pipeline of threads, a batch a task: read and decode its images, cut them, subtract the mean.

    As its documentation has it: `PipelineBuilder`, a source that never ends, `pipe` with a concurrency, a sink that
    holds a few. Tasks of one image, gathered with `aggregate`, took 1.7 times the CPU time: each passes through the
    event loop. Its own decoder is FFmpeg's, told the crop as a filter, with one thread an image.
    """
    given, versions = LoaderTask(**task), versions_of("spdl", "torch", decoder)
    from spdl.pipeline import PipelineBuilder

    crop = _spdl_cropper(given) if decoder == "spdl" else cropper(decoder, given)
    images, finish = Images(given, crop), collate(given)
    builder = PipelineBuilder().add_source(id_batches(given))
    builder = builder.pipe(lambda ids: finish([images[n] for n in ids]), concurrency=given.threads)
    pipeline = builder.add_sink(PREFETCH).build(num_threads=given.threads, max_failures=0)

    def batches() -> Iterator[Any]:
        with pipeline.auto_stop():
            yield from pipeline

    words = f"a batch a task, concurrency=num_threads={given.threads}, sink of {PREFETCH}, {decoder}"
    return counted(batches(), given, words, PREFETCH + given.threads, versions)


class Images:
    """What is made of a JPEG, and its label, by sample id; worker processes are forked and share the reader."""

    def __init__(self, task: LoaderTask, make: Callable[[bytes], Any], most: int | None = None) -> None:
        self._reader, self._make = task.reader, make
        self._images = min(len(task.reader), most or len(task.reader))

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, sample_id: int) -> tuple[Any, int]:
        return self._make(self._reader.stored(sample_id).tobytes()), int(self._reader.labels[sample_id])


def shards_of(task: LoaderTask) -> list[str]:
    """Return the paths of the tars."""
    return [str(task.reader.root / shard.file) for shard in task.reader.shards]


def _opened(task: LoaderTask) -> list[str]:
    """Return what WebDataset opens: the tars, or where they come from. It knows http and gs by itself."""
    how = "pipe:aws s3 cp {} -" if task.url.startswith("s3:") else "{}"
    return [how.format(f"{task.url}/{shard.file}") for shard in task.reader.shards] if task.url else shards_of(task)


def _ids(task: LoaderTask) -> Iterator[int]:
    """Yield sample ids, each once an epoch, without the end of an epoch being felt."""
    rng = np.random.default_rng(0)
    while True:
        yield from rng.permutation(len(task.reader)).tolist()


def id_batches(task: LoaderTask) -> Iterator[list[int]]:
    """Yield the ids of a batch, for ever."""
    ids = _ids(task)
    while True:
        yield list(islice(ids, task.batch_images))


def decoder_of(name: str) -> Callable[[bytes], Pixels]:
    """Return what decodes whole JPEGs: simplejpeg, torchcodec or PIL."""
    if name == "simplejpeg":
        return import_module("simplejpeg").decode_jpeg  # type: ignore[no-any-return]
    if name == "torchcodec":
        decode_jpeg = torchcodec_decoder()
        return lambda jpeg: pixels_of(decode_jpeg(jpeg))
    from PIL import Image

    def decode(jpeg: bytes) -> Pixels:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))

    return decode


def torchcodec_decoder() -> Callable[..., Any]:
    """Return torchcodec's `decode_jpeg`. Raises CannotRunError where its libraries are not there."""
    try:
        return import_module("torchcodec.decoders").decode_jpeg  # type: ignore[no-any-return]
    except OSError:
        raise CannotRunError(
            "torchcodec was built for another torch, with CUDA or without (docs/benchmarks.md)"
        ) from None


def pixels_of(image: Any) -> Pixels:
    """Return a torch tensor (3, H, W) as pixels, without a copy."""
    return image.permute(1, 2, 0).numpy()  # type: ignore[no-any-return]


def draw(places: int, uniform: Callable[[], float] = random.random) -> tuple[int, int, bool]:
    """Draw where a crop begins, y and x, and whether it is mirrored; PyTorch seeds `random` of each of its workers."""
    return int(places * uniform()), int(places * uniform()), uniform() < 0.5


def cutter(task: LoaderTask) -> Callable[..., Pixels]:
    """Return what cuts a random crop and mirrors it half of the time; `uniform` may be given, as to `draw`."""
    px, places = task.crop_px, task.size_px - task.crop_px + 1

    def cut(pixels: Pixels, *uniform: Callable[[], float]) -> Pixels:
        y, x, mirror = draw(places, *uniform)
        crop = pixels[y : y + px, x : x + px]
        return crop[:, ::-1] if mirror else crop

    return cut


def cropper(decoder: str, task: LoaderTask) -> Callable[..., Pixels]:
    """Return what decodes a JPEG, then does as `cutter`."""
    decode, cut = decoder_of(decoder), cutter(task)
    return lambda jpeg, *uniform: cut(decode(jpeg), *uniform)


def _spdl_cropper(task: LoaderTask) -> Callable[[bytes], Pixels]:
    import spdl.io

    px, places = task.crop_px, task.size_px - task.crop_px + 1
    try:
        one_thread = spdl.io.decode_config(decoder_options={"threads": "1"})
    except RuntimeError:  # it loads FFmpeg's libraries now
        raise CannotRunError("FFmpeg's libraries are not there: apt-get install ffmpeg") from None

    def crop(jpeg: bytes) -> Pixels:
        y, x, mirror = draw(places)
        description = f"crop={px}:{px}:{x}:{y}:exact=1,format=pix_fmts=rgb24{',hflip' * mirror}"
        pixels: Pixels = spdl.io.to_numpy(spdl.io.load_image(jpeg, decode_config=one_thread, filter_desc=description))
        return pixels

    return crop


def planar(task: LoaderTask) -> Callable[[Sequence[Pixels]], npt.NDArray[np.float32]]:
    """Return what subtracts the mean and puts planes behind each other, in one pass: float32 (n, 3, H, W)."""
    mean = task.mean[:, None, None]

    def batch_of(crops: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        batch = np.empty((len(crops), 3, *crops[0].shape[:2]), np.float32)
        for out, crop in zip(batch, crops, strict=True):
            np.subtract(crop.transpose(2, 0, 1), mean, out=out)
        return batch

    return batch_of


def collate(task: LoaderTask) -> Callable[[list[tuple[Pixels, int]]], Any]:
    """Return what makes (crop, label) pairs a batch of torch tensors, as `planar` does, and labels."""
    import torch

    batch_of = planar(task)

    def collated(samples: list[tuple[Pixels, int]]) -> Any:
        crops, labels = zip(*samples, strict=True)
        return torch.from_numpy(batch_of(crops)), torch.tensor(labels)

    return collated


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of packages, and of a decoder's. Raises CannotRunError for one that is not installed."""
    found = {}
    for name in (distribution() if package == "pil" else package for package in dict.fromkeys(packages)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            how = f"--no-deps {name}, and what docs/benchmarks.md names" if name in _BRING_PILLOW else name
            raise CannotRunError(f"{name} is not installed: pip install {how}") from None
    return found


def counted(batches: Iterable[Any], task: LoaderTask, words: str, ready: int, versions: dict[str, str]) -> Stage:
    """Count what a loader delivers, (images, labels) a batch, after its first batch has been looked at."""

    def work() -> Work:
        for number, (images, labels) in enumerate(batches):
            if not number:
                _check(images, len(labels), task)
            yield len(images)

    return Stage(work=work, settings=words, ready_batches=ready, versions=versions)


def _check(images: Any, labels: int, task: LoaderTask) -> None:
    """Raise CannotRunError unless the work was done: a rate of other work compares with nothing."""
    px, kind = task.crop_px, str(images.dtype)
    if kind != "torch.float32" or tuple(images.shape[1:]) != (3, px, px) or len(images) != labels:
        raise CannotRunError(f"yields {kind} {tuple(images.shape)}, not float32 (n, 3, {px}, {px})")
    for channel, value in enumerate(task.mean.tolist()):
        low, high = float(images[:, channel].min()), float(images[:, channel].max())
        if low < -value - 0.01 or high > 255 - value + 0.01 or high - low < 1:  # 0.01: roundings
            raise CannotRunError(f"channel {channel} has values from {low:.1f} to {high:.1f}: its mean is {value:.1f}")
