"""Run the graph on a thread of its own and hand its batches over as torch tensors.

Feeding DALI costs a core at about 80,000 images/s and holds the GIL in parts; the thread that trains only takes
finished batches from a queue.
"""

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from alexnet.pipeline.graph import GraphSettings, build_graph
from alexnet.pipeline.host_batch import HostBatch

Batch = tuple[torch.Tensor, torch.Tensor]

_STOP_POLL_SECONDS = 0.2


class Feed:
    """Hand over the batches of `batch_at(0), batch_at(1), ...` in order, for as long as it is asked.

    At most `settings.depth` finished batches wait in the queue. An error on the thread is raised by `next_batch`. The
    thread ends with `close()`, when the feed is garbage collected and when the interpreter exits.
    """

    def __init__(self, settings: GraphSettings, batch_at: Callable[[int], HostBatch]) -> None:
        self._outbox = _Outbox(settings.depth)
        thread = threading.Thread(
            target=_run, args=(settings, batch_at, self._outbox), name="alexnet-feed", daemon=True
        )
        thread.start()
        self.close = weakref.finalize(self, _stop, self._outbox, thread)

    def next_batch(self) -> Batch:
        """Wait for the next batch."""
        item = self._outbox.queue.get()
        if isinstance(item, BaseException):
            raise item
        images, labels = item
        if images.is_cuda:
            # The copy was made on the feed's stream: its memory must not be reused before this stream is done.
            images.record_stream(torch.cuda.current_stream(images.device))
            labels.record_stream(torch.cuda.current_stream(labels.device))
        return images, labels


class _Outbox:
    """Pass items to the consumer; give up waiting for room when stopped."""

    def __init__(self, depth: int) -> None:
        self.queue: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self.stop = threading.Event()

    def put(self, item: Batch | BaseException) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Full):
                self.queue.put(item, timeout=_STOP_POLL_SECONDS)
                return


def _stop(outbox: _Outbox, thread: threading.Thread) -> None:
    outbox.stop.set()
    thread.join()


def _run(settings: GraphSettings, batch_at: Callable[[int], HostBatch], outbox: _Outbox) -> None:
    try:
        graph = build_graph(settings, batch_at)
        stream = None
        if settings.device_id is not None:
            torch.cuda.set_device(settings.device_id)
            stream = torch.cuda.Stream(settings.device_id)
        while not outbox.stop.is_set():
            images, labels = graph.run()
            outbox.put(_to_torch(images, labels, stream, settings.channels_last))
    except BaseException as error:  # whatever it is, the consumer must see it
        outbox.put(error)


def _to_torch(images: Any, labels: Any, stream: "torch.cuda.Stream | None", channels_last: bool) -> Batch:
    """Take DALI's outputs as tensors: without a copy on the CPU, with one on a GPU.

    On a GPU DALI may reuse an output's memory while the training stream still reads it, hence the copy there.
    """
    label_tensor = from_dlpack(labels.as_tensor())
    if stream is None:
        image_tensor = from_dlpack(images.as_tensor())
    else:
        with torch.cuda.stream(stream):
            image_tensor = from_dlpack(images.as_tensor()).clone()
            label_tensor = label_tensor.to(image_tensor.device)
        stream.synchronize()
    if channels_last:
        image_tensor = image_tensor.permute(0, 3, 1, 2)
    return image_tensor, label_tensor
