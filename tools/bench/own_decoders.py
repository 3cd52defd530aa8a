"""Other loaders doing the same work, each as its own documentation recommends: those that decode by themselves.

`baselines.py` says what the work is. A package is imported by the row that measures it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from alexnet.pipeline.nvidia_packages import installed, without_dali
from alexnet.tools.bench.baselines import (
    Images,
    counted,
    draw,
    id_batches,
    shards_of,
    torchcodec_decoder,
    versions_of,
)
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.gpu_stages import watched
from alexnet.tools.bench.stage import CannotRunError, Stage

_INITIAL_FILL, _PREFETCH = 1_024, 2  # DALI's defaults
_LABEL_BYTES = 8


def dali(*, crops_early: bool = False, device: str = "cpu", **task: Any) -> Stage:
    """DALI by itself: its own reader, decoder and normalisation, handed over by its iterator for PyTorch.

    The plain graph decodes whole images and lets `crop_mirror_normalize` cut, as the examples of its documentation do;
    with `crops_early` the decoder is told the crop, which is less to decode. Labels stay text, as DALI has no parser.
    """
    if reason := without_dali(0 if device == "cuda" else None):
        raise CannotRunError(reason)
    given, versions = LoaderTask(**task), versions_of(*installed("DALI"), "torch")
    import torch
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    cuda = device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")

    how = {"num_threads": given.threads, "device_id": 0 if cuda else None, "prefetch_queue_depth": _PREFETCH}
    built = _dali_graph(given, crops_early=crops_early, cuda=cuda)(batch_size=given.batch_images, **how)
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


def _dali_graph(given: LoaderTask, *, crops_early: bool, cuda: bool) -> Callable[..., Any]:
    """Return what makes a pipeline of DALI's operators: from the shards to normalized crops and padded labels."""
    from nvidia.dali import fn, pipeline_def, types

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

    return graph  # type: ignore[no-any-return]


def on_gpu(*, library: str, **task: Any) -> Stage:
    """Libraries that decode a batch of JPEGs on a GPU: nvImageCodec, torchcodec's `decode_jpeg`, and torchvision's.

    They leave crops, mirrors and the mean to their user, who does them in PyTorch where the pixels are. One thread
    reads ahead. Without a GPU they are no baselines: none is made for that.
    """
    given = LoaderTask(**task)
    package = next(iter(installed("nvImageCodec")), "nvidia-nvimgcodec-cu13") if library == "nvimagecodec" else library
    versions = versions_of(package, "torch")
    import torch

    if not torch.cuda.is_available():
        raise CannotRunError("decodes batches on a GPU, and torch has none here")
    make = {"nvimagecodec": _nvimagecodec, "torchcodec": _torchcodec, "torchvision": _torchvision}[library]
    words = "all its backends; crop, mirror and mean in PyTorch on the GPU; one thread reads ahead"
    return watched(counted(_cropped_on_gpu(given, make(given.threads)), given, words, 1, versions))


def _nvimagecodec(threads: int) -> Callable[[list[bytes]], list[Any]]:
    import torch
    from nvidia import nvimgcodec
    from torch.utils.dlpack import from_dlpack

    decoder = nvimgcodec.Decoder(device_id=torch.cuda.current_device(), max_num_cpu_threads=threads)
    return lambda jpegs: [from_dlpack(image).permute(2, 0, 1) for image in decoder.decode(jpegs)]


def _torchcodec(_: int) -> Callable[[list[bytes]], list[Any]]:
    decode_jpeg = torchcodec_decoder()
    return lambda jpegs: decode_jpeg(jpegs, device="cuda")  # one call of nvJPEG


def _torchvision(_: int) -> Callable[[list[bytes]], list[Any]]:
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
