"""Say how images are decoded, and on a GPU whether its JPEG engine is there: nvJPEG does without it in silence."""

from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.host.extension import available


def describe_decoding(decode: Decode, device_id: int | None, threads: int) -> str:
    """Return one line for the start of a run."""
    host = f"host decoder, {threads} threads"
    if device_id is None:
        reason = available()
        names = {0.0: host, 1.0: f"DALI on the CPU, {threads} threads"}
        line = names.get(decode.dali_share or 0.0, f"{decode.dali_share or 0:.0%} DALI on the CPU, the others {host}")
        return f"decoding: {line}" + (f"; {reason}" if reason else "")
    gpu = f"DALI on GPU {device_id} ({_engines()})"
    if decode.dali_share is None:
        return f"decoding: {gpu} and {host}, in shares to be measured"
    names = {0.0: host, 1.0: gpu}
    return "decoding: " + names.get(decode.dali_share, f"{decode.dali_share:.0%} {gpu}, the others {host}")


def _engines() -> str:
    """Ask nvJPEG how many hardware engines it sees."""
    from alexnet.pipeline.decoders.jpeg_engine import query_jpeg_engine

    engine = query_jpeg_engine()
    if not engine.engines:
        return f"no JPEG engine in use: {engine.nvjpeg}"
    return f"{engine.engines} JPEG engines of {engine.cores_per_engine} cores"
