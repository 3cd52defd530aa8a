"""Run a decoder on a thread of its own and hand its batches over as torch tensors.

Feeding a decoder costs a core at about 80,000 images/s and holds the GIL in parts; the thread that trains only takes
finished batches from a queue.
"""

import contextlib
import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

import numpy as np
import torch
from torch.utils.data import get_worker_info

from alexnet.pipeline.batch import Batch, Decoder, DecodeSettings
from alexnet.pipeline.decode import make_decoder
from alexnet.pipeline.in_use import InUse
from alexnet.pipeline.meter import StreamMeter
from alexnet.pipeline.normalize_torch import Normalizer, device_of, moved
from alexnet.pipeline.plan import Planner
from alexnet.pipeline.read_ahead import ReadAhead
from alexnet.pipeline.settings import StreamSettings
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader
from alexnet.shards.shard_files import ShardFiles

_THREADS = "alexnet-"
_BATCHES_PER_MEMORY_SAMPLE = 64


class Prefetcher:
    """Hand over the batches of a stream in order from number `coming` on, for as long as it is asked.

    At most `depth` finished batches wait in the queue. An error on the thread is raised by `next_batch`. The threads
    end with `close()`, when the prefetcher is garbage collected and when the interpreter exits. `process`: whose it is.
    Raises InputError for a GPU that is not there, and in a DataLoader's worker.
    """

    def __init__(
        self, reader: SplitReader, planner: Planner, decoding: DecodeSettings, settings: StreamSettings, coming: int
    ) -> None:
        _refuse_in_a_worker()
        self.process, self.coming = os.getpid(), coming
        self._device = device_of(decoding.device_id)
        ahead = settings.read_ahead_batches
        read_ahead = ReadAhead(reader, planner, coming, ahead) if ahead else None
        batches = _batches(reader, planner, coming, whole=decoding.views_px is not None)
        self._work = _Work(batches, decoding, read_ahead, skips=settings.on_error == "skip")
        self._files = reader.files
        self._files.start()
        self._ends = [_own_thread(self, "prefetch", self._work.run, partial(_stop, self._work.queue, reader.files))]
        if read_ahead is not None:
            self._ends.append(_own_thread(self, "read-ahead", read_ahead.run, read_ahead.stop))

    def close(self) -> None:
        """Stop the threads and wait until they have gone; who waits for a batch elsewhere gets an error."""
        for end in self._ends:
            end()
        self._files.start()  # not before the threads have gone, which would go on fetching

    def next_batch(self, meter: StreamMeter) -> Batch:
        """Wait for the next batch; on a GPU, have the current stream wait for it. The meter learns of it."""
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        # Marked before the wait: a GPU that has nothing left to do stands still from here on.
        begin = None if stream is None else _mark(stream)
        with meter.waiting():
            item = self._work.queue.get()
        if isinstance(item, BaseException):
            raise item
        self.coming += 1
        meter.delivered(len(item), [str(error) for error in item.failures])
        meter.used_memory(self._work.device_bytes, self._work.pinned_bytes)
        if stream is not None and begin is not None and item.ready is not None:
            stream.wait_event(item.ready)
            meter.waited_on_device(begin, _mark(stream))
            # The tensors were made on the prefetcher's stream: their memory must not be reused before this one is done.
            item.images.record_stream(stream)
            item.labels.record_stream(stream)
        return item


class _BoundedQueue:
    """Pass items to the consumer, at most `depth` at a time waiting; once stopped, keep neither side waiting.

    Of queues alone, which are in C: Ctrl-C in the consumer between two lines of Python finds no lock held.
    """

    def __init__(self, depth: int) -> None:
        self._items: SimpleQueue[Batch | BaseException] = SimpleQueue()
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._free.put(None)
        self.stopped = False

    def put(self, item: Batch | BaseException) -> None:
        if not self.stopped:
            self._free.get()
        if not self.stopped:
            self._items.put(item)

    def get(self) -> Batch | BaseException:
        item = self._items.get()
        if self.stopped:
            return RuntimeError("the stream was closed on another thread while this one waited for a batch")
        self._free.put(None)
        return item

    def stop(self) -> None:
        self.stopped = True
        self._free.put(None)
        self._items.put(RuntimeError("stopped"))  # which wakes a consumer and is not read


class _Work:
    """Decode, normalize and queue batches, on the prefetcher's thread; it must not hold on to the prefetcher.

    `device_bytes`: in use on the GPU, as last sampled. `pinned_bytes`: of host memory, by the decoder.
    """

    def __init__(
        self, coming: Iterator[Batch], decoding: DecodeSettings, read_ahead: ReadAhead | None, *, skips: bool
    ) -> None:
        self._coming, self._decoding, self._read_ahead, self._skips = coming, decoding, read_ahead, skips
        self._device = torch.device(decoding.device)
        self._normalize: Normalizer | None = None
        self._decoded_in_use = InUse()
        self.queue = _BoundedQueue(decoding.depth)
        self.device_bytes = self.pinned_bytes = 0

    def run(self) -> None:
        """Decode, normalize and hand over one batch after another until stopped."""
        try:
            with (
                _own_stream(self._device),
                contextlib.closing(make_decoder(self._decoding)) as decoder,
                contextlib.closing(self._decoded_in_use),
            ):
                if self._read_ahead is not None:
                    self._read_ahead.is_held = decoder.is_held
                for count, batch in enumerate(self._decoded(decoder)):
                    if self.queue.stopped:
                        return
                    if batch.failures and not self._skips:
                        raise batch.failures[0]
                    finished = self._finished(batch)
                    if self._device.type == "cuda":
                        finished = self._with_event(finished, batch.images)
                        self._sample_memory(count, decoder)
                    self.queue.put(finished)
        except BaseException as error:  # whatever it is, the consumer must see it
            self.queue.put(error)

    def _decoded(self, decoder: Decoder) -> Iterator[Batch]:
        """Keep the decoder busy and yield what comes out; empty batches pass it by."""
        waiting: deque[Callable[[], Batch]] = deque()
        side = self._decoding.crop_px
        nothing = torch.empty((0, side, side, 3), dtype=torch.uint8, device=self._device)
        for batch in self._coming:
            if self._read_ahead is not None:
                self._read_ahead.begun(batch.step_index)
            waiting.append(decoder.submit(batch) if len(batch) else partial(replace, batch, images=nothing))
            if len(waiting) == decoder.ahead:
                yield waiting.popleft()()

    def _finished(self, batch: Batch) -> Batch:
        """Normalize what a decoder left as it was, and bring the labels to the device."""
        labels = moved(batch.reader.labels[batch.plan.sample_ids].astype(np.int64), self._device)
        if batch.normalized:
            return replace(batch, labels=labels)
        if self._normalize is None or self._normalize.normalization is not batch.normalization:
            d, device = self._decoding, self._device
            self._normalize = Normalizer(
                batch.normalization, d.output, channels_last=d.channels_last, device=device, views_px=d.views_px
            )
        images = self._normalize(batch.images, moved(batch.means, self._device))
        return replace(batch, images=images, labels=labels, normalized=True)

    def _with_event(self, batch: Batch, decoded: torch.Tensor) -> Batch:
        """Say when a batch's tensors may be read; what was decoded, which may be DALI's memory, is kept until then."""
        images, own = batch.images, decoded.untyped_storage().resizable()
        if images.data_ptr() == decoded.data_ptr() and not own:
            images = images.clone()  # of another's memory nobody knows when the training stream has read it
        return replace(batch, images=images, ready=self._decoded_in_use.keep(decoded))

    def _sample_memory(self, count: int, decoder: Decoder) -> None:
        """Ask now and then what is in use; PyTorch's own count knows nothing of DALI's memory."""
        self.pinned_bytes = decoder.pinned_bytes
        if count % _BATCHES_PER_MEMORY_SAMPLE == 0:
            free, total = torch.cuda.mem_get_info(self._device)
            self.device_bytes = int(total - free)


def _batches(reader: SplitReader, planner: Planner, first: int, *, whole: bool) -> Iterator[Batch]:
    """Make batches in order from a first one on, counted over all epochs; there is always a next one.

    `whole`: crops begin at the corner, for a decoder that is to yield whole images. It reads no image, and holds reader
    and planner but not the stream, so that a stream nobody uses any more can go.
    """
    normalization = planner.normalization(first // planner.steps)
    for step_index in itertools.count(first):
        epoch, step = divmod(step_index, planner.steps)
        if step == 0:
            normalization = planner.normalization(epoch)
        plan = planner.plan(epoch, step)
        plan = replace(plan, crop_yx=np.zeros_like(plan.crop_yx)) if whole else plan
        yield Batch(step_index=step_index, plan=plan, normalization=normalization, reader=reader)


def _stop(queue: _BoundedQueue, files: ShardFiles) -> None:
    """Wake who waits for the queue, and who waits for object storage."""
    queue.stop()
    files.stop()


def _mark(stream: "torch.cuda.Stream") -> "torch.cuda.Event":
    """Have a GPU's stream note when it gets here."""
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event


@contextlib.contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Have this thread's copies and kernels queue on a stream of their own: the default one is the training's."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_device(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield


def _refuse_in_a_worker() -> None:
    """Raise InputError in a DataLoader's worker, which cannot know the epoch nor which images are its own."""
    worker = get_worker_info()
    if worker is not None:
        raise InputError(
            f"a stream cannot run in a DataLoader's worker (this is {worker.id} of {worker.num_workers}): each would "
            "yield every image, and the same epoch every time; iterate the stream itself, which decodes on threads of "
            "its own, or give the DataLoader num_workers=0"
        )


def _own_thread(owner: object, name: str, work: Callable[[], None], stop: Callable[[], None]) -> Callable[[], object]:
    """Run `work` on a thread until it returns, which `stop` makes it do; neither may hold on to `owner`.

    Returns what ends it: tells it to stop, and waits until it has gone. That is also called when `owner` goes and when
    the interpreter exits; twice does no harm.
    """
    thread = threading.Thread(target=work, name=_THREADS + name, daemon=True)
    thread.start()
    return weakref.finalize(owner, _end, thread, stop, os.getpid())


def _end(thread: threading.Thread, stop: Callable[[], None], process: int) -> None:
    """End a thread from wherever the collector found its owner.

    That may be on the very thread that is to end, or on one that it waits for: such a thread tells it to end and goes
    on, as waiting would never end. A forked child has a copy of the owner but not the thread, and perhaps a lock that
    the thread held: there, nothing is done.
    """
    if os.getpid() != process:
        return
    stop()
    if not threading.current_thread().name.startswith(_THREADS):
        thread.join()
