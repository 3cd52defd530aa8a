"""What a stream does for a GPU, on a machine without one."""

from pathlib import Path

import pytest

from alexnet.pipeline import AugmentSettings
from tests.unit.pipeline.stand_in import Event, Stream, stand_in
from tests.unit.pipeline.streams import DECODERS, epochs_of, same, stream_of

__all__ = ["stand_in"]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("output", ["uint8", "float32"])
@pytest.mark.parametrize("decode", DECODERS)
def test_a_stream_for_a_gpu_yields_what_one_for_a_cpu_does(data_set: Path, decode: str, output: str) -> None:
    """In DALI's case several batches a run; a mean image, so that the kernel has all to do."""
    augmentation = AugmentSettings(crop_px=32, mean="image", scale="unit-variance")
    options = {
        "batch_images": 6,
        "augmentation": augmentation,
        "output": output,
        "channels_last": True,
        "resident": "off",
    }
    on_gpu, on_cpu = (stream_of(data_set, decode=decode, device=device, **options) for device in ("cuda", "cpu"))
    batches = epochs_of(on_gpu, 2)
    assert len(batches) == 8
    assert same(batches, epochs_of(on_cpu, 2))
    assert Stream.waited == 8
    assert Event.recorded >= 3 * 8, "of each batch: ready, and when the consumer's stream began and ended to wait"
    assert on_gpu.meter.device_wait_seconds == 8.0
    assert on_gpu.meter.peak_device_bytes == 2**30
