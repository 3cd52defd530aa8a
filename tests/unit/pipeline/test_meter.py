"""The meter adds up what happened, and reads a device's events only when the device has passed them."""

from alexnet.pipeline.meter import StreamMeter


class Event:
    """A CUDA event that a test passes by hand."""

    def __init__(self, at_ms: float) -> None:
        self.at_ms, self.passed = at_ms, False

    def query(self) -> bool:
        return self.passed

    def elapsed_time(self, end_event: "Event") -> float:
        assert self.passed
        assert end_event.passed, "reading it would make the consumer wait"
        return end_event.at_ms - self.at_ms


def test_waits_of_a_device_are_summed_when_it_has_passed_them() -> None:
    meter = StreamMeter()
    events = [(Event(1000.0 * i), Event(1000.0 * i + 250.0)) for i in range(3)]
    for begin, end in events:
        meter.waited_on_device(begin, end)
    assert meter.device_wait_seconds == 0.0
    for begin, end in events[:2]:
        begin.passed = end.passed = True
    assert meter.device_wait_seconds == 0.5
    assert meter.device_wait_seconds == 0.5
    events[2][0].passed = events[2][1].passed = True
    assert meter.device_wait_seconds == 0.75


def test_skipped_samples_are_counted_and_the_newest_are_named() -> None:
    meter = StreamMeter()
    for i in range(60):
        meter.delivered(30, [f"sample {i}a", f"sample {i}b"])
    assert (meter.images, meter.batches, meter.skipped) == (1800, 60, 120)
    assert list(meter.last_skipped)[-1] == "sample 59b"
    assert len(meter.last_skipped) == 100


def test_the_largest_memory_is_kept() -> None:
    meter = StreamMeter()
    for device_bytes in (5, 9, 0, 7):
        meter.used_memory(device_bytes, pinned_bytes=3)
    assert (meter.peak_device_bytes, meter.pinned_bytes) == (9, 3)
