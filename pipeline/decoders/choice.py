"""Which decoder: `default`, `auto`, `gpu`, `dali`, `host`, or `split=SHARE`.

`dali` decodes on the stream's device with DALI (`gpu` is another name for it where that is a GPU), `host` on the CPU in
C, `split=0.6` six images of ten with DALI and the others on the host. Which image goes where is a hash of its id, so
that every epoch, and a resumed run, decodes it the same way.

`default` is `dali` on a GPU, and `host` on a CPU (`dali` where the host decoder was not built). `auto` is the same on a
CPU; on a GPU it measures both, and shares. It is not the default, because two runs that measure otherwise decode some
images otherwise.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Hold the share of images that DALI decodes: 1.0 all, 0.0 none (all on the host); None: still to be found out."""

    dali_share: float | None

    @classmethod
    def parse(cls, text: str, *, on_gpu: bool) -> "Decode":
        """Read the setting; raises InputError for what there is not, or not on this device."""
        if text == "gpu" and not on_gpu:
            raise InputError("decode='gpu': the stream's device is cpu; use decode='host' or decode='dali'")
        if text == "default":
            return cls(dali_share=1.0 if on_gpu else None)
        decode = cls.from_name("dali" if text == "gpu" else text)
        if decode is None:
            raise InputError(
                f"decode={text!r}: must be default, auto, gpu, dali, host, or split=SHARE with SHARE in 0 to 1"
            )
        return decode

    @classmethod
    def from_name(cls, name: str) -> "Decode | None":
        """Undo `name`; None for what is none."""
        if name == "auto":
            return cls(dali_share=None)
        share = {"dali": 1.0, "host": 0.0}.get(name, _share(name))
        return None if share is None else cls(dali_share=share)

    def on_cpu(self, *, host_is_there: bool) -> "Decode":
        """Settle what is open on a CPU: the host's own decoder, where it was built."""
        if self.dali_share is not None:
            return self
        return Decode(dali_share=0.0 if host_is_there else 1.0)

    @property
    def name(self) -> str:
        """Say it as a user would."""
        if self.dali_share is None:
            return "auto"
        return {0.0: "host", 1.0: "dali"}.get(self.dali_share, f"split={self.dali_share:g}")


def on_dali(sample_ids: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """Say of each image whether DALI decodes it: bool (n,)."""
    return hashes(key_of(Purpose.DECODE_SHARE, 0, 0), sample_ids) < np.uint64(min(share * 2.0**64, 2.0**64 - 2**11))


def _share(text: str) -> float | None:
    name, _, number = text.partition("=")
    try:
        share = float(number)
    except ValueError:
        return None
    return share if name == "split" and 0 <= share <= 1 else None
