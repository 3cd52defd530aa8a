"""Which rows `alexnet-bench dataloader` has: what each measures, and against which limit it stands.

A row names the factory of its stage, which is called in a process of its own. Nothing heavy is loaded here.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from alexnet.shards.errors import InputError, nearest
from alexnet.tools.bench.loader_stages import LoaderTask
from alexnet.tools.bench.measure import Case
from alexnet.tools.bench.report import Group

GUARDED = {
    ("stream-uint8", "dali-plain"): (1.3, "stream to uint8 over the plain DALI graph"),
    ("stream-float32", "dali-plain"): (1.5, "stream to float32 over the plain DALI graph"),
    ("stream-dali-float32", "dali-plain"): (0.95, "stream to float32 with the DALI decoder over the plain DALI graph"),
    ("stream-uint8", "jpeg-window"): (0.85, "stream to uint8 over its limit"),
    ("stream-float32", "jpeg-window"): (0.75, "stream to float32 over its limit"),
}
"""What a row must reach of another one, round by round, and how the ratio is called."""

_QUICK = (
    "jpeg-full", "jpeg-window", "read", "stream-uint8", "stream-float32", "stream-dali-float32", "validation",
    "dali-plain", "nvjpeg", "stream-cuda", "dali-plain-cuda",
)  # fmt: skip
_BASELINE_START_SECONDS = 300.0  # FFCV writes its file first


@dataclass(frozen=True)
class _Row:
    name: str
    title: str
    make: str
    limit: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    group: Group = "row"


def _stream(name: str, title: str, limit: str = "jpeg-window", **options: Any) -> _Row:
    return _Row(f"stream-{name}", f"stream to {title}", "loader_stages:stream", limit, {"output": "float32"} | options)


def _limit(name: str, title: str, make: str, group: Group = "limit", **options: Any) -> _Row:
    return _Row(name, title, make, "", options, group)


def _baseline(name: str, title: str, make: str, **options: Any) -> _Row:
    return _Row(name, title, make, "jpeg-full", options, "baseline")


_ROWS = (
    # DALI maps shards into memory, and what is mapped cannot be forgotten: cold storage is measured before all else.
    _limit("storage-cold", "storage, front to back, cold", "loader_stages:storage", cold=True),
    _limit("storage-cached", "storage, front to back, cached", "loader_stages:storage", cold=False),
    _limit("memory-copy", "memory copy, all threads", "loader_stages:memory_copy"),
    _limit("jpeg-full", "libjpeg-turbo, whole images, uint8", "loader_stages:jpeg", part="whole", output="uint8"),
    _limit("jpeg-window", "libjpeg-turbo, crop + mirror, uint8", "loader_stages:jpeg", part="crop", output="uint8"),
    _limit("jpeg-entropy", "libjpeg-turbo, last pixel only: entropy decoding", "loader_stages:jpeg", "part",
           part="last-pixel", output="uint8"),
    _limit("jpeg-float32", "libjpeg-turbo, crop + mirror, float32", "loader_stages:jpeg", "part",
           part="crop", output="float32"),
    _Row("read", "read through the stream's reader", "loader_stages:read", "storage-cached"),
    _stream("uint8", "uint8", output="uint8"),
    _stream("float32", "float32"),
    _stream("bfloat16", "bfloat16", output="bfloat16"),
    _stream("dali-uint8", 'uint8, decode="dali"', output="uint8", decode="dali"),
    _stream("dali-float32", 'float32, decode="dali"', decode="dali"),
    _Row("validation", "validation: centre crops, float32", "loader_stages:stream", "jpeg-window",
         {"output": "float32", "augment": False}),
    _Row("dali-plain", "plain DALI graph to float32", "own_decoders:dali", "jpeg-full"),
)  # fmt: skip
_GPU_ROWS = (
    _limit("nvjpeg", "nvJPEG, whole images", "gpu_stages:nvjpeg", by="both"),
    _limit("nvjpeg-engine", "nvJPEG, its engine alone", "gpu_stages:nvjpeg", "part", by="engine"),
    _limit("nvjpeg-kernels", "nvJPEG, its kernels alone", "gpu_stages:nvjpeg", "part", by="kernels"),
    _limit("to-device", "copies to the GPU, float32 batches", "gpu_stages:to_device", output="float32"),
    _stream("cuda", "float32 on the GPU", "nvjpeg", device="cuda"),
    _stream("cuda-bfloat16", "bfloat16 on the GPU", "nvjpeg", output="bfloat16", device="cuda"),
    _stream("cuda-host", "float32 on the GPU, decoded on the host", device="cuda", decode="host"),
    _Row(
        "dali-plain-cuda", "plain DALI graph to float32 on the GPU", "own_decoders:dali", "nvjpeg", {"device": "cuda"}
    ),
)
BASELINES = {
    "webdataset": (
        _baseline("webdataset-pil", "WebDataset, PIL", "baselines:webdataset", decoder="pil"),
        _baseline("webdataset-simplejpeg", "WebDataset, simplejpeg", "baselines:webdataset", decoder="simplejpeg"),
    ),
    "torch": (
        _baseline("torch-pil", "torch DataLoader, PIL", "baselines:torch_loader", decoder="pil"),
        _baseline("torch-simplejpeg", "torch DataLoader, simplejpeg", "baselines:torch_loader", decoder="simplejpeg"),
    ),
    "dali": (_baseline("dali", "DALI, crops decoded only", "own_decoders:dali", crops_early=True),),
    "ffcv": (
        _baseline("ffcv-jpeg", "FFCV, JPEG", "own_decoders:ffcv", stored="jpg"),
        _baseline("ffcv-raw", "FFCV, raw pixels", "own_decoders:ffcv", stored="raw"),
    ),
    "spdl": (
        _baseline("spdl", "SPDL, its own decoder", "baselines:spdl", decoder="spdl"),
        _baseline("spdl-simplejpeg", "SPDL, simplejpeg", "baselines:spdl", decoder="simplejpeg"),
    ),
    "nvimagecodec": (_baseline("nvimagecodec", "nvImageCodec", "own_decoders:on_gpu", library="nvimagecodec"),),
    "torchvision": (
        _baseline("torchvision", "torchvision, decode_jpeg", "own_decoders:on_gpu", library="torchvision"),
    ),
}


def cases_of(
    task: LoaderTask,
    cores: int,
    device: str,
    *,
    quick: bool = False,
    names: tuple[str, ...] = (),
    baselines: tuple[str, ...] = (),
) -> list[Case]:
    """Return what is to be measured, limits first: the rows that are named, or those of the mode.

    Baselines were asked for, so they come along unless some of them are named. Raises InputError for a
    name there is not.
    """
    fewer = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < task.threads]
    rows = [*_ROWS, *(_stream(_threads(n, "-"), f"float32, {_threads(n)}", threads=n) for n in fewer)]
    rows += [_beside(fewer[-1], task.threads - fewer[-1])] if fewer else []
    rows += _GPU_ROWS if device == "cuda" else ()
    compared = [row for name in baselines for row in BASELINES[name]]
    known = {row.name: row for row in [*rows, *compared]}
    if "guarded" in names:
        guarded = {name for pair in GUARDED for name in pair}
        names = tuple(row.name for row in rows if row.name in guarded or "threads" in row.options)
    for name in names:
        if name not in known:
            raise InputError(f"--rows {name}: must be of {', '.join(sorted(known))}{nearest(name, known)}")
    chosen = [row for row in rows if (row.name in names if names else not quick or row.name in _QUICK)]
    chosen += [row for row in compared if row.name in names or not any(one.name in names for one in compared)]
    return [_case(row, task, cores) for row in chosen]


def _threads(n: int, between: str = " ") -> str:
    return f"{n}{between}thread{'s' * (n > 1)}"


def _beside(n: int, trainer_threads: int) -> _Row:
    title = f"float32, {_threads(n)}, beside a trainer in the same process"
    row = _stream("beside-trainer-here", title, threads=n, trainer_threads=trainer_threads)
    return replace(row, make="loader_stages:stream_beside_trainer")


def _case(row: _Row, task: LoaderTask, cores: int) -> Case:
    given = {"threads": task.threads} if row.name == "memory-copy" else asdict(task)
    options = given | row.options
    one_core = row.make in ("loader_stages:storage", "loader_stages:read")
    return Case(
        name=row.name,
        title=row.title,
        group=row.group,
        make=f"alexnet.tools.bench.{row.make}",
        options=options,
        cores=1 if one_core else min(int(options["threads"]), cores),
        unit="bytes" if row.name == "memory-copy" else "images",
        limit=row.limit,
        on_gpu=options.get("device") == "cuda" or "library" in options or row in _GPU_ROWS,
        alone=row.name == "storage-cold",
        environment={"MALLOC_ARENA_MAX": "1"} if "trainer_threads" in options else {},
        start_seconds=_BASELINE_START_SECONDS if row.group == "baseline" else 120.0,
    )
