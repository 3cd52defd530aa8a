"""Which rows there are: what each measures, against which limit it stands, and where the quick mode takes it along.

A row names a stage by `kind` and `options`; `stages.py` and `peers` make it, in a process of its own. Nothing heavy is
loaded here.
"""

from alexnet.shards.errors import InputError
from alexnet.tools.bench.measuring.row import Row

PEERS = ("webdataset", "torch", "dali", "ffcv", "spdl", "nvimagecodec", "torchvision")


def rows_of(threads: int, device: str) -> list[Row]:
    """Return the rows of a machine, limits first."""
    rows = [*_LIMITS, *_PARTS, *_ROWS]
    fewer = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < threads]
    rows += [_fewer_threads(n) for n in fewer]
    rows += [_beside(fewer[-1], trainer) for trainer in ("here", "elsewhere") if fewer]
    if device == "cuda":
        rows += _GPU_ROWS
    return rows


def peer_rows(peers: tuple[str, ...]) -> list[Row]:
    """Return the rows of peers: each as its documentation recommends, some with a faster decoder as well."""
    return [row for peer in peers for row in _PEER_ROWS[peer]]


def known_peers(text: str) -> tuple[str, ...]:
    """Read names with commas between. Raises InputError for a loader that nobody compares with."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in PEERS:
            raise InputError(f"--compare {name}: must be of {', '.join(PEERS)}")
    return names


def choose_rows(rows: list[Row], *, quick: bool, names: tuple[str, ...]) -> list[Row]:
    """Return the rows that are named, or those of the mode. Raises InputError for a name there is not.

    Peers were asked for by `--compare`, so they come along unless some of them are named.
    """
    if not names:
        return [row for row in rows if row.quick or not quick]
    known = {row.name for row in rows}
    for name in names:
        if name not in known:
            raise InputError(f"--rows {name}: must be of {', '.join(sorted(known))}")
    every_peer = not any(row.group == "peer" and row.name in names for row in rows)
    return [row for row in rows if row.name in names or (every_peer and row.group == "peer")]


_LIMITS = (
    Row(
        name="storage-cold",
        title="storage, front to back, cold",
        group="limit",
        kind="storage",
        options={"cold": True},
        alone=True,  # DALI maps shards into memory, and what is mapped cannot be forgotten
    ),
    Row(
        name="storage-cached",
        title="storage, front to back, cached",
        group="limit",
        kind="storage",
        options={"cold": False},
    ),
    Row(name="memory-copy", title="memory copy, all threads", group="limit", kind="memory-copy"),
    Row(
        name="jpeg-full",
        title="libjpeg-turbo, whole images, uint8",
        group="limit",
        kind="jpeg",
        options={"window": "whole", "output": "uint8"},
        quick=True,
    ),
    Row(
        name="jpeg-window",
        title="libjpeg-turbo, window + mirror, uint8",
        group="limit",
        kind="jpeg",
        options={"window": "crop", "output": "uint8"},
        quick=True,
    ),
)
_PARTS = (
    Row(
        name="jpeg-entropy",
        title="libjpeg-turbo, last pixel only: entropy decoding",
        group="part",
        kind="jpeg",
        options={"window": "last-pixel", "output": "uint8"},
    ),
    Row(
        name="jpeg-float32",
        title="libjpeg-turbo, window + mirror, float32",
        group="part",
        kind="jpeg",
        options={"window": "crop", "output": "float32"},
    ),
)


def _stream(name: str, title: str, limit: str = "jpeg-window", quick: bool = False, **options: object) -> Row:
    return Row(name=name, title=title, group="row", kind="stream", options=options, limit=limit, quick=quick)


def _fewer_threads(n: int) -> Row:
    plural = "s" * (n > 1)
    return _stream(f"stream-{n}-thread{plural}", f"stream to float32, {n} thread{plural}", output="float32", threads=n)


def _beside(n: int, trainer: str) -> Row:
    where = "in the same process" if trainer == "here" else "in another process"
    options = {"output": "float32", "threads": n, "trainer": trainer}
    return Row(
        name=f"stream-beside-trainer-{trainer}",
        title=f"stream to float32, {n} thread{'s' * (n > 1)}, beside a trainer {where}",
        group="row",
        kind="beside",
        options=options,
        limit="jpeg-window",
    )


_ROWS = (
    Row(
        name="read",
        title="read through the stream's reader",
        group="row",
        kind="read",
        limit="storage-cached",
        by="mb_per_s",
        quick=True,
    ),
    _stream("stream-uint8", "stream to uint8", quick=True, output="uint8"),
    _stream("stream-float32", "stream to float32", quick=True, output="float32"),
    _stream("stream-bfloat16", "stream to bfloat16", output="bfloat16"),
    _stream("stream-dali-uint8", 'stream to uint8, decode="dali"', output="uint8", decode="dali"),
    _stream("stream-dali-float32", 'stream to float32, decode="dali"', quick=True, output="float32", decode="dali"),
    _stream("validation", "validation: centre windows, float32", quick=True, output="float32", augment=False),
    Row(
        name="dali-plain",
        title="plain DALI graph to float32",
        group="row",
        kind="dali",
        limit="jpeg-full",
        quick=True,
    ),
)


_GPU_ROWS = (
    Row(name="nvjpeg", title="nvJPEG, whole images", group="limit", kind="nvjpeg", options={"by": "both"}, quick=True),
    Row(name="nvjpeg-engine", title="nvJPEG, its engine alone", group="part", kind="nvjpeg", options={"by": "engine"}),
    Row(
        name="nvjpeg-kernels", title="nvJPEG, its kernels alone", group="part", kind="nvjpeg", options={"by": "kernels"}
    ),
    Row(
        name="to-device",
        title="copies to the GPU, float32 batches",
        group="limit",
        kind="to-device",
        options={"output": "float32"},
    ),
    _stream("stream-cuda", "stream to float32 on the GPU", "nvjpeg", quick=True, output="float32", device="cuda"),
    _stream("stream-cuda-bfloat16", "stream to bfloat16 on the GPU", "nvjpeg", output="bfloat16", device="cuda"),
    _stream(
        "stream-cuda-host",
        "stream to float32 on the GPU, decoded on the host",
        output="float32",
        device="cuda",
        decode="host",
    ),
    Row(
        name="dali-plain-cuda",
        title="plain DALI graph to float32 on the GPU",
        group="row",
        kind="dali",
        options={"device": "cuda"},
        limit="nvjpeg",
        quick=True,
    ),
    _stream("stream-cuda-auto", 'the same, decode="auto"', "", output="float32", device="cuda", decode="auto"),
)


def _peer(name: str, title: str, kind: str, **options: object) -> Row:
    return Row(name=name, title=title, group="peer", kind=kind, options=options, limit="jpeg-full", quick=True)


_PEER_ROWS = {
    "webdataset": (
        _peer("webdataset-pil", "WebDataset, PIL", "webdataset", decoder="pil"),
        _peer("webdataset-simplejpeg", "WebDataset, simplejpeg", "webdataset", decoder="simplejpeg"),
    ),
    "torch": (
        _peer("torch-pil", "torch DataLoader, PIL", "torch", decoder="pil"),
        _peer("torch-simplejpeg", "torch DataLoader, simplejpeg", "torch", decoder="simplejpeg"),
    ),
    "dali": (_peer("dali", "DALI, windows decoded only", "dali", window="crop"),),
    "ffcv": (
        _peer("ffcv-jpeg", "FFCV, JPEG", "ffcv", stored="jpg"),
        _peer("ffcv-raw", "FFCV, raw pixels", "ffcv", stored="raw"),
    ),
    "spdl": (
        _peer("spdl", "SPDL, its own decoder", "spdl", decoder="spdl"),
        _peer("spdl-simplejpeg", "SPDL, simplejpeg", "spdl", decoder="simplejpeg"),
    ),
    "nvimagecodec": (_peer("nvimagecodec", "nvImageCodec", "nvimagecodec", library="nvimagecodec"),),
    "torchvision": (_peer("torchvision", "torchvision, decode_jpeg", "torchvision", library="torchvision"),),
}
