"""The decoders there are (`_DECODERS`): which a name means, what makes it.

`dali` decodes on the stream's device with DALI (`gpu` is another name for it where that is a GPU), `host` on the CPU in
C, `split=0.6` six images of ten with DALI and the others on the host. Which image goes where is a hash of its id, so
that every epoch, and a resumed run, decodes it the same way. `default` is `dali` on a GPU and `host` on a CPU, or the
other where that one is missing. All do what the plan says; pixels differ only by a decoder's rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.batch import Batch, Decoder, DecodeSettings
from alexnet.pipeline.host.jpeg import available
from alexnet.pipeline.jpeg_engine import query_jpeg_engine
from alexnet.pipeline.nvidia_packages import without_dali
from alexnet.pipeline.plan import Planner
from alexnet.pipeline.settings import Output, Resident, StreamSettings, choice, device_id_of, flag, threads_of, whole
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of
from alexnet.shards.manifest import Manifest
from alexnet.shards.reader import SplitReader

if TYPE_CHECKING:
    import torch


class SplitDecoder:
    """Decode with two decoders that yield crops on one device; `share`: DALI's of the images, by a hash of their ids.

    DALI works while the host decodes, for it runs asynchronously.
    """

    is_held = None

    def __init__(self, dali: Decoder, host: Decoder, share: float) -> None:
        from alexnet.pipeline.in_use import InUse  # which loads torch

        self._dali, self._host, self._share = dali, host, share
        self._joining = InUse()

    @property
    def ahead(self) -> int:
        """Keep the hungrier of the two busy."""
        return max(self._dali.ahead, self._host.ahead)

    @property
    def pinned_bytes(self) -> int:
        """What both pinned."""
        return self._dali.pinned_bytes + self._host.pinned_bytes

    def submit(self, batch: Batch) -> Callable[[], Batch]:
        """Hand each its rows."""
        chosen = on_dali(batch.plan.sample_ids, self._share)
        shares = ((self._dali, chosen), (self._host, ~chosen))
        return partial(
            self._joined, batch, [decoder.submit(batch.select(rows)) for decoder, rows in shares if rows.any()]
        )

    def close(self) -> None:
        """Close both."""
        self._joining.close()
        self._dali.close()
        self._host.close()

    def _joined(self, batch: Batch, shares: Sequence[Callable[[], Batch]]) -> Batch:
        """Wait for all shares of a batch and put their rows back in order."""
        parts = [share() for share in reversed(shares)]  # the host's first, while DALI works on its part
        place = {sample_id: row for row, sample_id in enumerate(batch.plan.sample_ids.tolist())}
        batch = batch.without(sorted((e for p in parts for e in p.failures), key=lambda error: place[error.sample_id]))
        first = parts[0].images
        images = first.new_empty((len(batch), *first.shape[1:]))
        for part in parts:
            images[np.flatnonzero(np.isin(batch.plan.sample_ids, part.plan.sample_ids))] = part.images
        if images.is_cuda:
            self._joining.keep(parts)  # DALI's part is its own memory
        return replace(batch, images=images)


def on_dali(sample_ids: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """Say of each image whether DALI decodes it: bool (n,)."""
    return hashes(key_of(Purpose.DECODE_SHARE, 0, 0), sample_ids) < np.uint64(min(share * 2.0**64, 2.0**64 - 2**11))


def _host(settings: DecodeSettings) -> Decoder:
    from alexnet.pipeline.cpu import HostDecoder  # which loads torch
    from alexnet.pipeline.planes_gpu import planes_decoder

    return (planes_decoder(settings) if settings.device_id is not None else None) or HostDecoder(settings)


def _dali(settings: DecodeSettings) -> Decoder:
    from alexnet.pipeline.dali import DaliDecoder  # which a machine without DALI goes without

    return DaliDecoder(settings)


def _split(settings: DecodeSettings) -> Decoder:
    crops = replace(settings, crops_only=True)
    return SplitDecoder(_dali(crops), _host(crops), _share_of(settings))


def _share_of(settings: DecodeSettings) -> float:
    return float(settings.decode.removeprefix("split="))


def _describe_host(settings: DecodeSettings) -> str:
    if settings.encoding != "jpeg":
        where = "the host" if settings.device_id is None else settings.device
        return f"none, of planes; crops are cut and made RGB on {where}, {settings.threads} threads"
    return f"host decoder, {settings.threads} threads"


def _describe_dali(settings: DecodeSettings) -> str:
    """Say on a GPU whether its JPEG engine is there: nvJPEG does without it in silence."""
    if settings.device_id is None:
        return f"DALI on the CPU, {settings.threads} threads"
    engine = query_jpeg_engine()
    if not engine.engines:
        return f"DALI on GPU {settings.device_id} (no JPEG engine in use: {engine.nvjpeg})"
    return f"DALI on GPU {settings.device_id} ({engine.engines} JPEG engines of {engine.cores_per_engine} cores)"


def _describe_split(settings: DecodeSettings) -> str:
    return f"{_share_of(settings):.0%} {_describe_dali(settings)}, the others {_describe_host(settings)}"


class _Kind(NamedTuple):
    """Hold what there is to know of a decoder.

    `missing`: why it cannot be used for a stream on the GPU of a number, or on the CPU; None if it can.
    """

    missing: Callable[[int | None], str | None]
    make: Callable[[DecodeSettings], Decoder]
    describe: Callable[[DecodeSettings], str]


_DECODERS = {
    "host": _Kind(lambda _: available(), _host, _describe_host),
    "dali": _Kind(without_dali, _dali, _describe_dali),
    "split=": _Kind(lambda device_id: available() or without_dali(device_id), _split, _describe_split),
}


def decoder_named(text: str, device_id: int | None) -> str:
    """Return the name of the decoder that a setting means; raises InputError for none, or one that cannot be here."""
    if text == "default":
        preferred = ("dali", "host") if device_id is not None else ("host", "dali")
        text = next((name for name in preferred if not _DECODERS[name].missing(device_id)), preferred[0])
    if text == "gpu" and device_id is None:
        raise InputError("decode='gpu': the stream's device is cpu; use decode='host' or decode='dali'")
    if text == "auto":
        raise InputError(
            "decode='auto': went by speed, so that runs differed, and is no more; use decode='default', which goes on "
            "as the run that is resumed, or decode='split=SHARE'"
        )
    name = "dali" if text == "gpu" else _split_name(text) if text.startswith("split=") else text
    if not name or _key(name) not in _DECODERS:
        raise InputError(f"decode={text!r}: must be default, gpu, dali, host, or split=SHARE with SHARE in 0 to 1")
    if reason := _DECODERS[_key(name)].missing(device_id):
        others = [f"decode={other!r}" for other in ("host", "dali") if not _DECODERS[other].missing(device_id)]
        raise InputError(f"decode={text!r}: " + "; or use ".join([reason, *others]))
    return name


def decoding_of(settings: StreamSettings, manifest: Manifest, device_id: int | None) -> tuple[str, Resident]:
    """Return which decoder yields a data set's pixels, and whether a GPU keeps its planes.

    Raises InputError for what cannot be.
    """
    text = "host" if settings.resident == "on" and settings.decode == "default" else settings.decode
    is_jpeg = manifest.stored.encoding == "jpeg"
    name = decoder_named(text, device_id) if is_jpeg else decoder_of_planes(text)
    has_planes = not is_jpeg or str(manifest.settings.get("jpeg")).endswith("4:2:0")
    if settings.resident == "on":
        _check_resident(name, device_id, has_planes)
    return name, settings.resident if has_planes else "off"


def decode_settings(
    settings: StreamSettings,
    planner: Planner,
    reader: SplitReader,
    device: "str | torch.device",
    threads: int | None,
    output: Output,
    channels_last: bool,
    views: int,
    reserve_bytes: int,
) -> DecodeSettings:
    """Settle how the batches of a stream are decoded; the arguments are `ImageStream`'s. Raises InputError."""
    plan, crop_px = planner.settings, planner.augment.crop_px
    manifest, device_id = reader.manifest, device_id_of(device)
    decode, resident = decoding_of(settings, manifest, device_id)
    if views not in (1, 10):
        raise InputError(f"views={views!r}: must be 1 or 10, the paper's number")
    if views == 10 and plan.augment:
        raise InputError("views=10: is for evaluation; give augment=False as well")
    return DecodeSettings(
        decode=decode,
        device_id=device_id,
        threads=threads_of(threads or settings.threads),
        depth=settings.depth,
        max_images=-(-plan.batch_images // plan.ranks),
        encoding=manifest.stored.encoding,
        size_px=manifest.size_px,
        crop_px=manifest.size_px if views == 10 else crop_px,
        crops_only=views == 10,
        views_px=crop_px if views == 10 else None,
        output=choice("output", output, get_args(Output)),
        channels_last=flag("channels_last", channels_last),
        mean_image=planner.normalization(0).mean_image is not None,
        resident=resident,
        images=len(reader),
        reserve_bytes=whole("reserve_bytes", reserve_bytes, 0),
    )


def _check_resident(name: str, device_id: int | None, has_planes: bool) -> None:
    """Raise InputError where nothing can be kept."""
    if device_id is None:
        raise InputError(
            "resident='on': keeps images in a GPU's memory, and the stream's device is cpu; use resident='auto', and "
            "so that nothing is decoded twice a set of planes (alexnet-prep decode), which the system's cache keeps"
        )
    if name != "host":
        raise InputError(f"resident='on': decode={name!r} yields no planes; use decode='host', or resident='auto'")
    if not has_planes:
        raise InputError(
            "resident='on': the manifest does not say that these JPEGs are 4:2:0, of which alone there are planes; use "
            "resident='auto', or make the data set anew with `alexnet-prep shard`"
        )


def decoder_of_planes(text: str) -> str:
    """Return the name of the decoder whose pixels planes give: they were decoded by it. Raises InputError for another.

    Data sets of JPEGs and of planes thus go on from each other's states.
    """
    if text not in ("default", "host"):
        raise InputError(
            f"decode={text!r}: the data set holds planes, which are decoded already; leave it at default, or take the "
            "data set of JPEGs"
        )
    return decoder_named("host", None)


def _split_name(text: str) -> str | None:
    """Return one name for each share, of six digits: a share of 0 or 1 is no split but the decoder that takes all."""
    try:
        share = float(f"{float(text.removeprefix('split=')):g}")
    except ValueError:
        return None
    return {0.0: "host", 1.0: "dali"}.get(share, f"split={share:g}") if 0 <= share <= 1 else None


def _key(name: str) -> str:
    """Return what a name has in the table: without the share."""
    return "".join(name.partition("=")[:2])


def make_decoder(settings: DecodeSettings) -> Decoder:
    """Make the decoder that settings name."""
    return _DECODERS[_key(settings.decode)].make(settings)


def describe_decoding(settings: DecodeSettings) -> str:
    """Say in one line who decodes, and what the decoder that is preferred on this device would need."""
    by_host = settings.device_id is None or settings.encoding != "jpeg"
    reason = available() if by_host else without_dali(settings.device_id)
    line = _DECODERS[_key(settings.decode)].describe(settings)
    return f"decoding: {line}" + (f"; {reason}" if reason else "")


def describe_residence(settings: DecodeSettings) -> list[str]:
    """Say in one line whether a GPU keeps the images, and why; nothing on a CPU."""
    if settings.device_id is None:
        return []
    from alexnet.pipeline.resident import residence  # which loads torch

    return [line for line in [residence(settings).line] if line]
