"""Which decoder a name means, and `Decoder`, what one must do: batches go in, and come out in the same order.

`dali` decodes on the stream's device with DALI (`gpu` is another name for it where that is a GPU), `host` on the CPU in
C, `split=0.6` six images of ten with DALI and the others on the host. Which image goes where is a hash of its id, so
that every epoch, and a resumed run, decodes it the same way. `default` is `dali` on a GPU, and `host` on a CPU (`dali`
where the host decoder was not built). All do what the plan says; pixels differ only by a decoder's rounding.

A decoder knows nothing of order, epochs or ranks. It yields normalized tensors, or cut and mirrored uint8 crops, which
`normalize_torch.py` then turns into what was asked for.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.extension import available
from alexnet.pipeline.jpeg_engine import query_jpeg_engine
from alexnet.pipeline.settings import Output
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of

if TYPE_CHECKING:
    from alexnet.pipeline.batch import Batch


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Settle what a decoder yields and with what means.

    `dali_share`: of the images, 1.0 all, 0.0 none: all on the host. `device_id`: GPU number, None for the CPU.
    `threads`: of the CPU. `depth`: batches in flight. `max_images`: rows of the largest batch. `size_px`: side of the
    stored images. `crop_px`: side of a finished image. `ten_views`: to be cut from each image by who takes the batch,
    so the decoder yields whole images. `output`: what a finished tensor holds. `channels_last`: its memory is
    (n, H, W, 3) instead of (n, 3, H, W). `mean_image`: float32 (crop, crop, 3), what is subtracted besides each image's
    own mean, or None.
    """

    dali_share: float
    device_id: int | None
    threads: int
    depth: int
    max_images: int
    size_px: int
    crop_px: int
    ten_views: bool
    output: Output
    channels_last: bool
    mean_image: npt.NDArray[np.float32] | None

    @property
    def side_px(self) -> int:
        """Return the side of what is cut from a stored image while it is decoded."""
        return self.size_px if self.ten_views else self.crop_px

    @property
    def crops_only(self) -> bool:
        """Say whether a decoder has to leave uint8 crops as they are: views are cut from them, or parts joined."""
        return self.ten_views or 0 < self.dali_share < 1

    @property
    def device(self) -> str:
        """Return where batches end up, as torch names it."""
        return "cpu" if self.device_id is None else f"cuda:{self.device_id}"


class Decoder(Protocol):
    """Decode batches, each of at least one image, in the order in which they come."""

    @property
    def ahead(self) -> int:
        """How many batches it wants before the first result is taken, and keeps from then on."""

    @property
    def pinned_bytes(self) -> int:
        """How much host memory it pinned itself; DALI's own pools are not known."""

    def submit(self, batch: "Batch") -> None:
        """Take a batch and, if possible, begin with it."""

    def result(self) -> "Batch":
        """Wait for the oldest batch that was submitted; return what of it could be decoded, with `images`."""

    def close(self) -> None:
        """Give threads and memory back."""


def dali_share(text: str, device_id: int | None) -> float:
    """Read a decoder's name as DALI's share; raises InputError for what there is not, or not on this device."""
    reason = available()
    if text == "default":
        return 1.0 if device_id is not None or reason else 0.0
    if text == "gpu" and device_id is None:
        raise InputError("decode='gpu': the stream's device is cpu; use decode='host' or decode='dali'")
    if text == "auto":
        raise InputError(
            "decode='auto': went by speed, so that runs differed, and is no more; use decode='default', which goes on "
            "as the run that is resumed, or decode='split=SHARE'"
        )
    share = {"gpu": 1.0, "dali": 1.0, "host": 0.0}.get(text, _share(text))
    if share is None:
        raise InputError(f"decode={text!r}: must be default, gpu, dali, host, or split=SHARE with SHARE in 0 to 1")
    if reason and share < 1:
        raise InputError(f"decode={text!r}: {reason}; or use decode='dali'")
    return share


def decode_name(share: float) -> str:
    """Say as a user would which decoder has this share of DALI's."""
    return {0.0: "host", 1.0: "dali"}.get(share, f"split={share:g}")


def on_dali(sample_ids: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """Say of each image whether DALI decodes it: bool (n,)."""
    return hashes(key_of(Purpose.DECODE_SHARE, 0, 0), sample_ids) < np.uint64(min(share * 2.0**64, 2.0**64 - 2**11))


def describe_decoding(settings: DecodeSettings) -> str:
    """Say in one line who decodes, and on a GPU whether its JPEG engine is there: nvJPEG does without it in silence."""
    share, reason = settings.dali_share, available()
    host = f"host decoder, {settings.threads} threads"
    if settings.device_id is not None:
        dali, reason = f"DALI on GPU {settings.device_id} ({_engines()})", None
    else:
        dali = "DALI on the CPU" + f", {settings.threads} threads" * (share == 1)
    line = {0.0: host, 1.0: dali}.get(share, f"{share:.0%} {dali}, the others {host}")
    return f"decoding: {line}" + (f"; {reason}" if reason else "")


def _engines() -> str:
    """Ask nvJPEG how many hardware engines it sees."""
    engine = query_jpeg_engine()
    if not engine.engines:
        return f"no JPEG engine in use: {engine.nvjpeg}"
    return f"{engine.engines} JPEG engines of {engine.cores_per_engine} cores"


def _share(text: str) -> float | None:
    name, _, number = text.partition("=")
    try:
        share = float(number)
    except ValueError:
        return None
    return share if name == "split" and 0 <= share <= 1 else None
