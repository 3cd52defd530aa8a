"""The training stream by itself, as the trainer would get it: what `alexnet-bench train` compares a run with."""

from contextlib import closing
from typing import Any

from alexnet.tools.bench.measuring.stages_seam import NetStageSettings, Stage, Work
from alexnet.tools.bench.networks.net_run import placement_of, run_settings
from alexnet.tools.bench.networks.trainer_steps import synchronise
from alexnet.tools.run.assembly import Streams


def loader(options: dict[str, Any], settings: NetStageSettings) -> Stage:
    """Iterate the stream of one process, epoch after epoch, letting go of each batch."""
    run = run_settings(options, settings)
    placement = placement_of(options, settings, run)
    assert settings.data is not None
    streams = Streams(settings.data, run, placement)

    def work() -> Work:
        with closing(streams):
            while True:
                for _, labels in streams.train:
                    if placement.device.type == "cuda":
                        synchronise(placement.device)
                    yield len(labels), 1

    return Stage(work=work, settings=streams.lines()[-1], ready_batches=run.stream.depth + 1)
