"""All that a running stream is made from, fixed when the stream is constructed; torch is not needed to hold it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet.pipeline.encoded import EncodedBatches
from alexnet.pipeline.finish import Finish
from alexnet.pipeline.plan import Planner
from alexnet.pipeline.settings import Output, StreamSettings
from alexnet.pipeline.views import Views
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader

if TYPE_CHECKING:
    from alexnet.pipeline.decoders.seam import DecoderSettings


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Hold what a feed is made from.

    `device_id`: GPU number, None for the CPU. `views`: cut from whole images instead of one window.
    """

    reader: SplitReader
    planner: Planner
    finish: Finish
    settings: StreamSettings
    crop_px: int
    views: Views | None
    device_id: int | None
    threads: int
    output: Output
    channels_last: bool

    def decoder_settings(self) -> "DecoderSettings":
        """Return what the decoder is to yield: the whole image where views are cut from it.

        Raises InputError if the GPU is not there.
        """
        from alexnet.pipeline.decoders.seam import DecoderSettings

        if self.device_id is not None:
            _refuse_absent(self.device_id)
        s, size_px = self.planner.settings, self.reader.manifest.size_px
        return DecoderSettings(
            max_images=-(-s.batch_images // s.ranks),
            size_px=size_px,
            window_px=size_px if self.views else self.crop_px,
            device_id=self.device_id,
            threads=self.threads,
            depth=self.settings.depth,
            output=self.output,
            channels_last=self.channels_last,
            finish=self.finish,
            windows_only=self.views is not None,
        )

    def batches(self, first: int) -> EncodedBatches:
        """Return the batches from one on, counted over all epochs."""
        return EncodedBatches(self.reader, self.planner, self.finish, first, whole=self.views is not None)


def _refuse_absent(device_id: int) -> None:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device_id >= gpus:
        raise InputError(
            f"device='cuda:{device_id}': this machine has {gpus or 'no'} GPU{'s' * (gpus > 1)} that PyTorch can use"
            f"{f', cuda:0 to cuda:{gpus - 1}' if gpus else ''}; device='cpu' works here"
        )
