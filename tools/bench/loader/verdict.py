"""Say in a few sentences what bounds the pipeline here, what the trainer needs, and what would change it."""

import math
from typing import Any

_ON_GPU = "stream-cuda"
_DECODING_IS_MOST = 0.5  # of the time: images of 28 px take longer to plan and to hand over than to decode
_STREAMS = (_ON_GPU, "stream-float32")


def verdict_of(rows: dict[str, dict[str, Any]], conditions: dict[str, Any], need: float | None) -> str:
    """Return the verdict; it uses what was measured and names what was not."""
    stream = next((rows[name] for name in _STREAMS if name in rows), None)
    if stream is None:
        return "No verdict: the full pipeline was not measured."
    sentences = [_bound(stream, rows)]
    if need is not None:
        sentences.append(_need(stream, rows, conditions, need))
    if conditions["repeated"]:
        sentences.append(
            "The data are smaller than eight batches and were repeated from the CPU's cache: do not quote."
        )
    if any(row["disturbed"] for row in rows.values()):
        sentences.append("Others used this machine meanwhile: judge by the column for all cores busy.")
    return " ".join(sentences)


def rate_of(row: dict[str, Any]) -> float:
    """Return images/s: by CPU time where others disturbed the row, but for a GPU's, which CPU time says nothing of."""
    by_cpu = row["disturbed"] and row["name"] != _ON_GPU
    return float(row["images_per_s_all_cores_busy" if by_cpu else "images_per_s"]["median"])


def _bound(stream: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    rate = rate_of(stream)
    if stream["name"] == _ON_GPU:
        share = stream["share_of_limit"]
        of_limit = f", {share['wall']:.0%} of what nvJPEG alone does with whole images" if share else ""
        return f"The pipeline to the GPU makes {rate:,.0f} images/s{of_limit}."
    cold = rows.get("storage-cold")
    if cold is not None and cold["images_per_s"]["median"] < rate:
        return (
            f"Storage bounds this pipeline when nothing is cached: it gives {cold['images_per_s']['median']:,.0f} "
            f"images/s from front to back, decoding makes {rate:,.0f}. Data that fit in memory are read once."
        )
    limit = rows.get("jpeg-window")
    if limit is None:
        return f"The full pipeline makes {rate:,.0f} images/s; its limit was not measured."
    disturbed = stream["disturbed"] or limit["disturbed"]
    share = stream["share_of_limit"]["cpu" if disturbed else "wall"] if stream["share_of_limit"] else 0.0
    reading = rows.get("read")
    read = f"; reading could feed {reading['images_per_s']['median'] / rate:,.0f} times that" if reading else ""
    made = f"{rate:,.0f} images/s, {share:.0%} of what libjpeg-turbo alone does with the same windows on the same cores"
    if share < _DECODING_IS_MOST:
        return f"What lies around decoding bounds this pipeline: {made}{read}. Larger batches have less of it."
    return f"Decoding on the CPU bounds this pipeline: {made}{read}."


def _need(stream: dict[str, Any], rows: dict[str, dict[str, Any]], conditions: dict[str, Any], need: float) -> str:
    rate = rate_of(stream)
    if rate >= need:
        return f"The trainer needs {need:,.0f}: the pipeline makes {rate / need:.1f} times that."
    if stream["name"] == _ON_GPU:
        return f"The trainer needs {need:,.0f} and waits {1 - rate / need:.0%} of the time."
    a_core = stream["images_per_s_all_cores_busy"]["median"] / stream["cores"]
    cores = math.ceil(need / a_core)
    uint8 = rows.get("stream-uint8")
    other = ""
    if uint8 is not None:
        gain = uint8["images_per_s_all_cores_busy"]["median"] / stream["images_per_s_all_cores_busy"]["median"] - 1
        other = f' `output="uint8"`, finished on the device, changes that by {gain:+.0%}.'
    return (
        f"The trainer needs {need:,.0f} and waits {1 - rate / need:.0%} of the time: it takes {cores} cores like these "
        f"{conditions['cores']}, at {a_core:,.0f} images/s each.{other}"
    )
