"""Which rows `alexnet-bench dataloader` has: what each measures, and against which limit it stands.

A row is a `Case` whose stage is told the data, too. Nothing heavy is loaded here.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from alexnet.shards.errors import InputError, nearest
from alexnet.tools.bench import (
    baselines,
    gpu_stages,
    loader_stages,
    own_decoders,
    own_formats,
    planes_stages,
    remote_stages,
)
from alexnet.tools.bench.bench_data import LoaderTask, Planes
from alexnet.tools.bench.measure import Case, limited_by
from alexnet.tools.bench.report import Asked, Group, Unit
from alexnet.tools.bench.stage import Stage

GUARDED = [
    Asked("stream-uint8", "dali-plain", "stream to uint8 over the plain DALI graph", 1.3),
    Asked("stream-float32", "dali-plain", "stream to float32 over the plain DALI graph", 1.5),
    Asked(
        "stream-dali-float32", "dali-plain", "stream to float32 with the DALI decoder over the plain DALI graph", 0.95
    ),
    Asked("stream-uint8", "jpeg-window", "stream to uint8 over its limit", 0.85),
    Asked("stream-float32", "jpeg-window", "stream to float32 over its limit", 0.75),
    Asked("stream-planes-uint8", "stream-uint8", "stream to uint8, planes over JPEGs", 4.0),
    Asked("stream-planes-bfloat16", "stream-bfloat16", "stream to bfloat16, planes over JPEGs", 3.0),
    Asked("stream-planes-float32", "stream-float32", "stream to float32, planes over JPEGs", 3.0),
    Asked("stream-planes-float32", "ffcv-raw", "stream of planes to float32 over FFCV's raw pixels", 2.5),
    Asked("stream-planes-uint8", "planes-traffic-uint8", "stream of planes to uint8 over its limit", 0.45),
    Asked("stream-planes-float32", "planes-traffic-float32", "stream of planes to float32 over its limit", 0.6),
    Asked("stream-remote-warm", "stream-disk-blocks", "stream from a warm cache over the same set on disk", 0.95),
]
"""What a row must reach of another one."""

_QUICK = (
    "jpeg-full", "jpeg-window", "read", "stream-uint8", "stream-float32", "stream-dali-float32", "validation",
    "dali-plain", "planes-traffic-float32", "stream-planes-uint8", "stream-planes-float32", "nvjpeg", "stream-cuda",
    "dali-plain-cuda",
)  # fmt: skip
_BASELINE_START_SECONDS = 300.0  # FFCV, Grain and LitData write their files first

_NONE = Planes()
_ALL = 0  # cores: as many as there are threads


def _row(
    name: str, title: str, make: Callable[..., Stage], limit: str = "", *, group: Group = "row", cores: int = _ALL,
    unit: Unit = "images", alone: bool = False, **options: Any,
) -> Case:  # fmt: skip
    return Case(
        name=name, title=title, make=make, group=group, options=options, cores=cores, unit=unit, alone=alone,
        bounds=limited_by(limit),
    )  # fmt: skip


def _stream(name: str, title: str, limit: str = "jpeg-window", **options: Any) -> Case:
    return _row(f"stream-{name}", f"stream to {title}", loader_stages.stream, limit, **{"output": "float32", **options})


def _planes(output: str) -> tuple[Case, ...]:
    limit = f"planes-traffic-{output}"
    return (
        _limit(limit, f"memory traffic of planes to {output}", planes_stages.traffic, output=output),
        _row(f"stream-planes-{output}", f"stream of planes to {output}", planes_stages.stream, limit, output=output),
    )


def _remote(name: str, title: str, make: Callable[..., Stage], **options: Any) -> Case:
    case = _row(f"stream-remote-{name}", f"stream from a URL to float32, {title}", make, **options)
    return replace(case, bounds=limited_by("storage-remote", "jpeg-window"))


def _baseline(name: str, title: str, make: Callable[..., Stage], **options: Any) -> Case:
    case = _row(name, title, make, "jpeg-full", group="baseline", **options)
    return replace(case, start_seconds=_BASELINE_START_SECONDS)


_limit, _part = partial(_row, group="limit"), partial(_row, group="part")
_COLD_PLANES = "storage-cold-planes"
_PLANES_ROWS = (
    _limit(_COLD_PLANES, "storage, planes front to back, cold", loader_stages.storage, cores=1, cold=True, alone=True),
    *(
        _row(f"stream-planes-cold{name}", f"stream of cold planes to float32, order {order}", planes_stages.cold_stream,
             _COLD_PLANES, output="float32", order=order, alone=True)
        for name, order in (("", "global"), ("-blocks", "blocks"))
    ),
    *(row for output in ("uint8", "float32", "bfloat16") for row in _planes(output)),
)  # fmt: skip
_JPEG, _NVJPEG = loader_stages.jpeg, gpu_stages.nvjpeg
_ROWS = (
    # DALI maps shards into memory, and what is mapped cannot be forgotten: cold storage is measured before all else.
    _limit("storage-cold", "storage, front to back, cold", loader_stages.storage, cores=1, cold=True, alone=True),
    _limit("storage-cached", "storage, front to back, cached", loader_stages.storage, cores=1, cold=False),
    _limit("memory-copy", "memory copy, all threads", loader_stages.memory_copy, unit="bytes"),
    _limit("jpeg-full", "libjpeg-turbo, whole images, uint8", _JPEG, part="whole", output="uint8"),
    _limit("jpeg-window", "libjpeg-turbo, crop + mirror, uint8", _JPEG, part="crop", output="uint8"),
    _part("jpeg-entropy", "libjpeg-turbo, last pixel only: entropy decoding", _JPEG,
           part="last-pixel", output="uint8"),
    _part("jpeg-float32", "libjpeg-turbo, crop + mirror, float32", _JPEG, part="crop", output="float32"),
    _row("read", "read through the stream's reader", loader_stages.read, "storage-cached", cores=1, by=1),
    _stream("uint8", "uint8", output="uint8"),
    _stream("float32", "float32"),
    _stream("bfloat16", "bfloat16", output="bfloat16"),
    _stream("dali-uint8", 'uint8, decode="dali"', output="uint8", decode="dali"),
    _stream("dali-float32", 'float32, decode="dali"', decode="dali"),
    _row("validation", "validation: centre crops, float32", loader_stages.stream, "jpeg-window",
         output="float32", augment=False),
    _row("dali-plain", "plain DALI graph to float32", own_decoders.dali, "jpeg-full"),
)  # fmt: skip
_GPU_ROWS = (
    _limit("nvjpeg", "nvJPEG, whole images", _NVJPEG, by="both"),
    _part("nvjpeg-engine", "nvJPEG, its engine alone", _NVJPEG, by="engine"),
    _part("nvjpeg-kernels", "nvJPEG, its kernels alone", _NVJPEG, by="kernels"),
    _part("read-for-dali", "read by two threads, as for DALI", loader_stages.read, cores=2, by=2),
    _limit("to-device", "copies to the GPU, float32 batches", gpu_stages.to_device, output="float32"),
    _stream("cuda", "float32 on the GPU", "nvjpeg", device="cuda"),
    _stream("cuda-bfloat16", "bfloat16 on the GPU", "nvjpeg", output="bfloat16", device="cuda"),
    _stream("cuda-host", "float32 on the GPU, decoded on the host", device="cuda", decode="host", resident="off"),
    _stream("cuda-split", "float32 on the GPU, half of it decoded on the host", device="cuda", decode="split=0.5"),
    _row("dali-plain-cuda", "plain DALI graph to float32 on the GPU", own_decoders.dali, "nvjpeg", device="cuda"),
)
_GPU_PLANES_ROWS = (
    _limit("planes-to-device", "copies to the GPU, batches of planes", gpu_stages.to_device, output="planes"),
    *(
        _row(f"stream-cuda-{name}", f"stream of planes to bfloat16 on the GPU, {how}", planes_stages.stream, limit,
             output="bfloat16", device="cuda", resident=resident)
        for name, how, limit, resident in (
            ("planes", "copied for each batch", "planes-to-device", "off"), ("resident", "resident", "", "on")
        )
    ),
)  # fmt: skip
_OF_PLANES = (*_PLANES_ROWS, *_GPU_PLANES_ROWS)
_BY_URL = (
    _limit("storage-remote", "object storage, obstore alone, whole shards", remote_stages.storage),
    _remote("cold", "empty cache, order blocks", remote_stages.cold_stream),
    _remote("ranges", "order global, by ranges", remote_stages.stream, source="ranges"),
)
_OF_URL = (
    *_BY_URL,
    _row("stream-disk-blocks", "stream of the set on disk to float32, order blocks", remote_stages.stream,
         "jpeg-window", source="disk"),
    _row("stream-remote-warm", "stream from a URL to float32, warm cache, order blocks", remote_stages.stream,
         "stream-disk-blocks", source="cache"),
)  # fmt: skip
_USUAL_OF_URL = ("jpeg-window", *(row.name for row in _OF_URL))
_READ_URLS = ("webdataset", "litdata", "streaming")
BASELINES = {
    "webdataset": (
        _baseline("webdataset-pil", "WebDataset, PIL", baselines.webdataset, decoder="pil"),
        _baseline("webdataset-simplejpeg", "WebDataset, simplejpeg", baselines.webdataset, decoder="simplejpeg"),
    ),
    "torch": (
        _baseline("torch-pil", "torch DataLoader, PIL", baselines.torch_loader, decoder="pil"),
        _baseline("torch-simplejpeg", "torch DataLoader, simplejpeg", baselines.torch_loader, decoder="simplejpeg"),
    ),
    "dali": (_baseline("dali", "DALI, crops decoded only", own_decoders.dali, crops_early=True),),
    "ffcv": (
        _baseline("ffcv-jpeg", "FFCV, JPEG", own_formats.ffcv, stored="jpg"),
        _baseline("ffcv-raw", "FFCV, raw pixels", own_formats.ffcv, stored="raw"),
    ),
    "spdl": (
        _baseline("spdl", "SPDL, its own decoder", baselines.spdl, decoder="spdl"),
        _baseline("spdl-simplejpeg", "SPDL, simplejpeg", baselines.spdl, decoder="simplejpeg"),
    ),
    "torchcodec": (
        _baseline("torchcodec", "torch DataLoader, torchcodec", baselines.torch_loader, decoder="torchcodec"),
        _baseline("torchcodec-cuda", "torchcodec, decode_jpeg on the GPU", own_decoders.on_gpu, library="torchcodec"),
    ),
    "grain": (
        _baseline("grain-pil", "Grain, PIL", own_formats.grain, decoder="pil"),
        _baseline("grain-simplejpeg", "Grain, simplejpeg", own_formats.grain, decoder="simplejpeg"),
    ),
    "litdata": (
        _baseline("litdata", "LitData, its own decoder", own_formats.litdata, decoder="torchvision"),
        _baseline("litdata-simplejpeg", "LitData, simplejpeg", own_formats.litdata, decoder="simplejpeg"),
    ),
    "streaming": (
        _baseline("streaming", "MosaicML Streaming, simplejpeg", own_formats.streaming, decoder="simplejpeg"),
    ),
    "nvimagecodec": (_baseline("nvimagecodec", "nvImageCodec", own_decoders.on_gpu, library="nvimagecodec"),),
    "torchvision": (_baseline("torchvision", "torchvision, decode_jpeg", own_decoders.on_gpu, library="torchvision"),),
}


def cases_of(
    task: LoaderTask,
    cores: int,
    device: str,
    *,
    quick: bool = False,
    names: tuple[str, ...] = (),
    compare: tuple[str, ...] = (),
    planes: Planes = _NONE,
    no_copy: str = "",
) -> list[Case]:
    """Return what is to be measured, limits first: the rows that are named, or those of the mode or of a URL.

    Baselines were asked for, so they come along unless some of them are named. `no_copy`: why the data set of a URL
    lies on no disk here. Raises InputError for a name there is not, and for a loader that reads no URL.
    """
    _refuse_unable(task.url, compare)
    fewer = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < task.threads]
    rows = [*_ROWS, *_PLANES_ROWS, *(_stream(_threads(n, "-"), f"float32, {_threads(n)}", threads=n) for n in fewer)]
    rows += [_beside(fewer[-1], task.threads - fewer[-1])] if fewer else []
    rows += (*_GPU_ROWS, *_GPU_PLANES_ROWS) if device == "cuda" else ()
    rows += _OF_URL if task.url else ()
    compared = [row for name in compare for row in BASELINES[name]]
    known = {row.name: row for row in [*rows, *compared]}
    if "guarded" in names:
        guarded = {name for one in GUARDED for name in (one.row, one.over)}
        names = tuple(row.name for row in rows if row.name in guarded or "threads" in row.options)
    for name in names:
        if name not in known:
            raise InputError(f"--rows {name}: must be of {', '.join(sorted(known))}{nearest(name, known)}")
    usual = _USUAL_OF_URL if task.url else _QUICK if quick else known
    chosen = [row for row in rows if row.name in (names or usual)]
    chosen += [row for row in compared if row.name in names or not any(one.name in names for one in compared)]
    own = replace(task, data=planes.data)
    return [
        replace(_of_task(row, own, cores), why=planes.why)
        if row in _OF_PLANES
        else replace(_of_task(row, task, cores), why="" if row in _BY_URL else no_copy)
        for row in chosen
    ]


def _refuse_unable(url: str, compare: tuple[str, ...]) -> None:
    if url and (unable := [name for name in compare if name not in _READ_URLS]):
        raise InputError(f"--compare {unable[0]}: is not measured from a URL; must be of {', '.join(_READ_URLS)}")


def _of_task(row: Case, task: LoaderTask, cores: int) -> Case:
    options = asdict(task) | row.options
    busy = row.cores or min(int(options["threads"]), cores)
    on_gpu = row in (*_GPU_ROWS, *_GPU_PLANES_ROWS) or row.make is own_decoders.on_gpu
    return replace(row, options=options, cores=busy, on_gpu=on_gpu, alone=row.alone or on_gpu)


def _threads(n: int, between: str = " ") -> str:
    return f"{n}{between}thread{'s' * (n > 1)}"


def _beside(n: int, trainer_threads: int) -> Case:
    title = f"float32, {_threads(n)}, beside a trainer in the same process"
    row = _stream("beside-trainer-here", title, threads=n, trainer_threads=trainer_threads)
    return replace(row, make=loader_stages.stream_beside_trainer, environment={"MALLOC_ARENA_MAX": "1"})
