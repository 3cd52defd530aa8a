"""The host decoder: crops of JPEGs straight into a batch's memory, on the CPU, near the speed of libjpeg-turbo.

- `JpegPool` fills a batch: partial decode, mirror, mean, scale and cast in one pass over each row while it is in L1
- `read_header`, `decode_rows`: one JPEG of any size at a time; `truncation`: whether it ends too early
- `Ring`: batch memory that is used again when nobody holds it any more
- `available` says why there is no decoder, where there is none

It knows NumPy and libjpeg-turbo; neither torch nor DALI, nor anything of shards and plans.
"""

from alexnet.pipeline.host.jpeg import (
    DecodeError,
    HopelessError,
    JpegHeader,
    available,
    decode_rows,
    read_header,
    truncation,
)
from alexnet.pipeline.host.pool import JpegPool, Ring

__all__ = [
    "DecodeError",
    "HopelessError",
    "JpegHeader",
    "JpegPool",
    "Ring",
    "available",
    "decode_rows",
    "read_header",
    "truncation",
]
