"""DALI by itself: its own reader, decoder and normalisation, handed over by its iterator for PyTorch.

The plain graph decodes whole images and lets `crop_mirror_normalize` cut, as the examples of its documentation do;
`window="crop"` is the variant whose decoder is told the window, which is less to decode. `device="cuda"` is the plain
graph on a GPU, from `mixed` decoding on; that is written and has not yet run on one.
"""

from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.peers.work import counted, crop_px_of, mean_of
from alexnet.tools.bench.loader.stages_gpu import watched
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings

_INITIAL_FILL = 1_024  # DALI's default
_PREFETCH = 2
_LABEL_BYTES = 8


def make(options: dict[str, Any], settings: StageSettings, versions: dict[str, str]) -> Stage:
    """Make the stage, with a thread a core. Raises CannotRunError for a GPU that is not there."""
    reader = SplitReader(settings.data, settings.split)
    crops_early, cuda = options.get("window") == "crop", options.get("device") == "cuda"
    if cuda and not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")
    graph = _graph_of(reader, crops_early=crops_early, device="mixed" if cuda else "cpu")
    built = graph(
        batch_size=settings.batch_images,
        num_threads=settings.threads,
        device_id=0 if cuda else None,
        prefetch_queue_depth=_PREFETCH,
    )
    iterator = DALIGenericIterator(
        [built], ["images", "labels"], reader_name="reader", auto_reset=True, last_batch_policy=LastBatchPolicy.DROP
    )
    words = (
        f"readers.webdataset, decoders.image{'_crop' * crops_early}{', mixed' * cuda}, crop_mirror_normalize, "
        f"DALIGenericIterator; num_threads={settings.threads}, prefetch_queue_depth={_PREFETCH}"
    )
    work = counted(_Endless(iterator), settings)
    stage = Stage(work=work, settings=words, ready_batches=_PREFETCH + 1, versions=versions)
    return watched(stage) if cuda else stage


def _graph_of(reader: SplitReader, *, crops_early: bool, device: str) -> Any:
    """Define the graph. Labels stay text, as DALI has no parser: padded, to the same length."""
    paths = [str(reader.root / shard.file) for shard in reader.shards]
    side, mean = crop_px_of(reader.manifest), mean_of(reader.manifest).tolist()

    @pipeline_def  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        components: Any = fn.readers.webdataset(
            paths=paths,
            ext=["jpg", "cls"],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=_INITIAL_FILL,
            name="reader",
        )
        jpegs, labels = components
        window = {"crop": (side, side), "crop_pos_x": _anywhere(), "crop_pos_y": _anywhere()}
        if crops_early:
            images = fn.decoders.image_crop(jpegs, device=device, output_type=types.RGB, **window)
            window = {}
        else:
            images = fn.decoders.image(jpegs, device=device, output_type=types.RGB)
        mirror = fn.random.coin_flip()
        normalised = fn.crop_mirror_normalize(
            images, mirror=mirror, mean=mean, dtype=types.FLOAT, output_layout="CHW", **window
        )
        return normalised, fn.pad(labels, axes=0, shape=[_LABEL_BYTES])

    return graph


def _anywhere() -> Any:
    return fn.random.uniform(range=(0.0, 1.0))


class _Endless:
    """Go on with the next epoch; an epoch of less than a batch would yield nothing and is refused by its check."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def __iter__(self) -> Any:
        while True:
            for (batch,) in self._iterator:
                yield batch["images"], batch["labels"]
