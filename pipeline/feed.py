"""Run a decoder on a thread of its own and hand its batches over as torch tensors.

Feeding a decoder costs a core at about 80,000 images/s and holds the GIL in parts; the thread that trains only takes
finished batches from a queue.
"""

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

import torch

from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.decoders.finish_pass import FinishPass
from alexnet.pipeline.decoders.make import make_decoder
from alexnet.pipeline.decoders.seam import Decoded, Decoder, DecoderSettings
from alexnet.pipeline.encoded import EncodedBatch, EncodedBatches, Failure
from alexnet.pipeline.meter import StreamMeter
from alexnet.pipeline.own_thread import own_thread
from alexnet.pipeline.read_ahead import ReadAhead
from alexnet.pipeline.settings import OnError
from alexnet.pipeline.views import Views
from alexnet.shards.errors import SampleError

_BATCHES_PER_MEMORY_SAMPLE = 64


@dataclass(frozen=True, kw_only=True)
class FeedSettings:
    """Settle how batches are made.

    `decode`: which decoder. `on_error`: `stop` raises at a sample that cannot be used, `skip`
    leaves it out of its batch. `views`: cut these of `crop_px` from each image instead of one window.
    """

    decoder: DecoderSettings
    decode: Decode
    crop_px: int
    on_error: OnError = "stop"
    views: Views | None = None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Hold a finished batch: tensors, samples left out of it, and on a GPU the event after which it may be read.

    `device_bytes`: in use on the GPU when the batch was made, where it was asked. `pinned_bytes`: by the decoder.
    """

    images: torch.Tensor
    labels: torch.Tensor
    failures: tuple[Failure, ...]
    ready: "torch.cuda.Event | None" = None
    device_bytes: int = 0
    pinned_bytes: int = 0


class Feed:
    """Hand over the batches of an iterator in order, for as long as it is asked.

    At most `depth` finished batches wait in the queue. An error on the thread is raised by `next_batch`. The thread
    ends with `close()`, when the feed is garbage collected and when the interpreter exits. `process`: whose it is.
    """

    def __init__(self, settings: FeedSettings, batches: EncodedBatches, read_ahead: ReadAhead | None) -> None:
        self.process = os.getpid()
        self._device = settings.decoder.device
        self._outbox = _Outbox(settings.decoder.depth)
        self._read_ahead = read_ahead
        begun = read_ahead.begun if read_ahead else _nothing
        work = functools.partial(_run, settings, batches, self._outbox, begun)
        self._end = own_thread(self, "feed", work, self._outbox.stop)

    def close(self) -> None:
        """Stop the threads and wait until they have gone; who waits for a batch elsewhere gets an error."""
        self._end()
        if self._read_ahead is not None:
            self._read_ahead.close()

    def next_batch(self, meter: StreamMeter) -> Delivery:
        """Wait for the next batch; on a GPU, have the current stream wait for it. The meter learns of it."""
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        # Marked before the wait: a GPU that has nothing left to do stands still from here on.
        begin = None if stream is None else _mark(stream)
        with meter.waiting():
            item = self._outbox.get()
        if isinstance(item, BaseException):
            raise item
        meter.delivered(len(item.labels), [failure.message for failure in item.failures])
        meter.used_memory(item.device_bytes, item.pinned_bytes)
        if stream is not None and begin is not None and item.ready is not None:
            stream.wait_event(item.ready)
            meter.waited_on_device(begin, _mark(stream))
            # The tensors were made on the feed's stream: their memory must not be reused before this one is done.
            item.images.record_stream(stream)
            item.labels.record_stream(stream)
        return item


class _Outbox:
    """Pass items to the consumer, at most `depth` at a time waiting; once stopped, keep neither side waiting.

    Of queues alone, which are in C: Ctrl-C in the consumer between two lines of Python finds no lock held.
    """

    def __init__(self, depth: int) -> None:
        self._items: SimpleQueue[Delivery | BaseException] = SimpleQueue()
        self._rooms: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._rooms.put(None)
        self.stopped = False

    def put(self, item: Delivery | BaseException) -> None:
        if not self.stopped:
            self._rooms.get()
        if not self.stopped:
            self._items.put(item)

    def get(self) -> Delivery | BaseException:
        item = self._items.get()
        if self.stopped:
            return RuntimeError("the stream was closed on another thread while this one waited for a batch")
        self._rooms.put(None)
        return item

    def stop(self) -> None:
        self.stopped = True
        self._rooms.put(None)
        self._items.put(RuntimeError("stopped"))  # which wakes a consumer and is not read


def _mark(stream: "torch.cuda.Stream") -> "torch.cuda.Event":
    """Have a GPU's stream note when it gets here."""
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event


def _nothing(_: int) -> None:
    """Read nothing ahead."""


def _run(settings: FeedSettings, batches: EncodedBatches, outbox: _Outbox, begun: Callable[[int], None]) -> None:
    try:
        with (
            _own_stream(settings.decoder.device) as stream,
            contextlib.closing(make_decoder(settings.decode, settings.decoder)) as decoder,
        ):
            deliver = _Deliver(settings, decoder, stream)
            for decoded in _decoded(decoder, batches, settings.decoder, begun):
                if outbox.stopped:
                    return
                outbox.put(deliver(decoded))
    except BaseException as error:  # whatever it is, the consumer must see it
        outbox.put(error)


@contextlib.contextmanager
def _own_stream(device: torch.device) -> "Iterator[torch.cuda.Stream | None]":
    """Have this thread's copies and kernels queue on a stream of their own: the default one is the training's."""
    if device.type != "cuda":
        yield None
        return
    torch.cuda.set_device(device)
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        yield stream


def _decoded(
    decoder: Decoder, batches: EncodedBatches, settings: DecoderSettings, begun: Callable[[int], None]
) -> Iterator[Decoded]:
    """Keep the decoder busy and yield what comes out; empty batches pass it by."""
    waiting: deque[EncodedBatch] = deque()
    while True:
        while len(waiting) < decoder.ahead:
            batch = next(batches)
            begun(batch.step_index)
            waiting.append(batch)
            if len(batch):
                decoder.submit(batch)
        batch = waiting.popleft()
        if len(batch):
            yield decoder.result()
        else:
            windows = torch.empty((0, settings.window_px, settings.window_px, 3), dtype=torch.uint8)
            yield Decoded(images=windows.to(settings.device), finished=False, batch=batch)


class _Deliver:
    """Finish what a decoder left unfinished, and settle what a sample means that could not be used."""

    def __init__(self, settings: FeedSettings, decoder: Decoder, stream: "torch.cuda.Stream | None") -> None:
        self._on_error, self._decoder, self._stream = settings.on_error, decoder, stream
        self._batches = 0
        self._device = settings.decoder.device
        self._finish = FinishPass(
            settings.decoder.finish,
            settings.decoder.output,
            channels_last=settings.decoder.channels_last,
            device=self._device,
            views=settings.views,
            crop_px=settings.crop_px,
        )

    def __call__(self, decoded: Decoded) -> Delivery:
        if decoded.failures and self._on_error == "stop":
            first = decoded.failures[0]
            raise SampleError(first.sample_id, first.message)
        images, labels = self._tensors(decoded)
        if self._stream is None:
            return Delivery(images=images, labels=labels, failures=decoded.failures)
        if images.data_ptr() == decoded.images.data_ptr():
            images = images.clone()  # DALI may use its memory again while the training stream still reads it
        ready = torch.cuda.Event()
        ready.record(self._stream)
        self._stream.synchronize()  # the decoder's memory has been read
        return Delivery(
            images=images,
            labels=labels,
            failures=decoded.failures,
            ready=ready,
            device_bytes=self._device_bytes(),
            pinned_bytes=self._decoder.pinned_bytes,
        )

    def _device_bytes(self) -> int:
        """Ask now and then what is in use; PyTorch's own count knows nothing of DALI's memory."""
        self._batches += 1
        if self._batches % _BATCHES_PER_MEMORY_SAMPLE != 1:
            return 0
        free, total = torch.cuda.mem_get_info(self._device)
        return int(total - free)

    def _tensors(self, decoded: Decoded) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(decoded.batch.labels).to(self._device)
        if decoded.finished:
            return decoded.images, labels
        return self._finish(decoded.images, torch.from_numpy(decoded.batch.means).to(self._device)), labels
