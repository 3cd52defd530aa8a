"""Make the decoder that a stream's settings name."""

import dataclasses

from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.decoders.seam import Decoder, DecoderSettings
from alexnet.shards.errors import InputError


def make_decoder(decode: Decode, settings: DecoderSettings) -> Decoder:
    """Make it; raises InputError if what it needs is not installed."""
    if decode.dali_share is None:
        raise ValueError("decode: `auto` has to be resolved before a decoder is made")
    if decode.dali_share == 0:
        return _host(settings)
    if decode.dali_share == 1:
        return _dali(settings)
    from alexnet.pipeline.decoders.split import SplitDecoder

    windows = dataclasses.replace(settings, windows_only=True)
    return SplitDecoder(_dali(windows), _host(windows), decode.dali_share)


def _dali(settings: DecoderSettings) -> Decoder:
    try:
        from alexnet.pipeline.decoders.dali import DaliDecoder
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: decode='dali' needs NVIDIA DALI, for Linux") from None
    return DaliDecoder(settings)


def _host(settings: DecoderSettings) -> Decoder:
    from alexnet.pipeline.decoders.host import HostDecoder

    return HostDecoder(settings)
