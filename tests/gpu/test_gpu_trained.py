"""Using a trained network on a GPU: the answers are those of the CPU."""

from pathlib import Path

import numpy as np
import pytest

from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.pipeline.augment import AugmentSettings
from alexnet.shards.manifest import read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.tools.stored_jpeg import rgb_and_quality
from alexnet.tools.use.evaluate import evaluate_together
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.run_files import DataRecord
from alexnet.tools.use.trained import Trained

LOSS_DIFFERENCE = 0.05
"""TF32 rounds each factor by up to 5e-4, and a GPU's JPEG decoder is off by a grey level here and there."""


def drawn(data: Path, arch: str, mean_image: bool) -> Trained:
    net = Network(NetSettings(arch=arch, classes=10))
    initialise(net, InitSettings(kind="he"), seed=3)
    return Trained(
        path=Path(arch),
        step=1,
        net=net.settings,
        augment=AugmentSettings(scale="unit-variance", mean="image" if mean_image else "channel"),
        precision="fp32",
        data=DataRecord.of(read_manifest(data)),
        mean_image=SplitReader(data, "val").mean_image() if mean_image else None,
        weights={name: p.detach() for name, p in net.named_parameters()},
    )


@pytest.mark.parametrize("views", [1, 10])
def test_evaluations_agree(ci_100: Path, views: int) -> None:
    networks = [drawn(ci_100, "alexnet-2012", mean_image=False), drawn(ci_100, "alexnet-owt", mean_image=True)]
    here, there = (
        evaluate_together(networks, ci_100, views=10 if views == 10 else 1, device=device, batch_images=40)
        for device in ("cpu", "cuda")
    )
    assert here[-1].images == there[-1].images == 20
    for a, b in zip(here, there, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=LOSS_DIFFERENCE)


def test_predictions_agree(ci_100: Path) -> None:
    trained = drawn(ci_100, "alexnet-2012", mean_image=False)
    reader = SplitReader(ci_100, "val")
    squares = [rgb_and_quality(reader.stored(k).tobytes())[0] for k in range(3)]
    here, there = (Predictor(trained, device).guesses(squares, most=10) for device in ("cpu", "cuda"))
    for a, b in zip(here, there, strict=True):
        first = {guess.label: guess.probability for guess in a}
        second = {guess.label: guess.probability for guess in b}
        assert np.allclose([first[k] for k in range(10)], [second[k] for k in range(10)], atol=LOSS_DIFFERENCE)
