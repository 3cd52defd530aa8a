"""The parts of pages: drawings, the arithmetic of 2012, curves of many points, which images are shown."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.shards.errors import InputError
from alexnet.tools.pages import curves
from alexnet.tools.pages.charts import ticks
from alexnet.tools.pages.curves import thinned
from alexnet.tools.pages.data_set import chosen
from alexnet.tools.pages.network_images import kernel_sheets, kernels
from alexnet.tools.pages.render import tag
from alexnet.tools.pages.run import RATES_2012, pairs, papers_multiply_adds
from alexnet.tools.use.run_files import Records


def test_a_pair_of_2012_is_90_epochs_in_five_to_six_days() -> None:
    assert list(RATES_2012) == pytest.approx([108e6 / (6 * 24 * 3600), 250.0])
    assert papers_multiply_adds() == 724_406_816
    assert list(pairs(25_000.0, 1.0)) == pytest.approx([100.0, 120.0])


def test_curves_of_many_points_keep_their_range() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 9_000)
    y[77_777] = 40.0
    places, low, mean, high = thinned(x, y)
    assert len(places) == len(low) == len(mean) == len(high) == 240
    assert high.max() == 40.0
    assert low.min() == y.min()
    assert mean.mean() == pytest.approx(y.mean(), abs=1e-3)
    short = np.array([3.0, 4.0])
    assert all(part is short for part in thinned(np.arange(2.0), short)[1:])


def test_images_are_of_as_many_classes_as_there_is_room_for() -> None:
    labels = np.array([2, 0, 1, 0, 2, 2, 1, 0], np.int32)
    assert chosen(labels, 3) == [1, 2, 0]
    assert chosen(labels, 2) == [1, 2]
    assert [int(labels[k]) for k in chosen(labels, 5)] == [0, 0, 1, 1, 2]
    assert chosen(labels, 20) == [1, 3, 7, 2, 6, 0, 4, 5]
    many = np.repeat(np.arange(1000, dtype=np.int32), 50)
    assert [int(many[k]) for k in chosen(many, 20)] == list(range(0, 1000, 50))
    assert chosen(np.zeros(0, np.int32), 20) == []


def test_the_two_towers_kernels_are_apart() -> None:
    net = Network(NetSettings(arch="alexnet-2012", classes=2))
    for tower in range(2):
        torch.nn.init.normal_(net.get_parameter(f"towers.{tower}.conv1.weight"), mean=float(tower))
    first, second = kernels(net)
    assert first.shape == second.shape == (48, 11, 11, 3)
    assert (first.reshape(48, -1).min(axis=1) == 0).all()
    assert (second.reshape(48, -1).max(axis=1) == 255).all()
    captions = [caption for caption, _ in kernel_sheets(net)]
    assert captions == ["tower 1: 48 kernels of 11x11", "tower 2: 48 kernels of 11x11"]


def test_kernels_of_grey_images_are_grey_and_flat_ones_black() -> None:
    (shown,) = kernels(Network(NetSettings(arch="lenet-5", classes=10)))
    assert shown.shape == (6, 5, 5, 3)
    assert (shown[..., 0] == shown[..., 2]).all()
    net = Network(NetSettings(arch="lenet-5", classes=10))
    with torch.no_grad():
        net.get_parameter("towers.0.c1.weight").fill_(3.0)
    assert not kernels(net)[0].any()


def test_a_run_without_validation_images_has_no_error_curve(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"net": {"classes": 3}, "augment": {}, "train": {}}')
    lines = [{"step": k, "loss": 1.0, "images_per_s": 100.0, "data_wait": 0.5, "seconds": 2.0} for k in (1, 2)]
    ends = {"step": 2, "epoch": 0, "val_loss": 0.0, "val_top1": 0.0, "val_top5": 0.0, "val_images": 0}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, ends)))
    records = Records(tmp_path)
    assert (records.steps_an_epoch, records.rate, records.waited, records.judged) == (2.0, 100.0, 0.5, ())
    assert "<path" not in curves.error(records)
    assert curves.loss(records).count("<path") == curves.loss(records).count('class="line one"') == 1


@pytest.mark.parametrize(
    ("train", "validated", "result", "last_step", "steps_an_epoch"),
    [
        ({"steps": 0, "epochs": 5}, [30, 60], 150, 150, 30.0),
        ({"steps": 150, "epochs": 90}, [60, 120, 150], None, 150, 60.0),
        ({"steps": 150, "epochs": 90}, [150], 150, 150, None),  # it may have ended in the middle of an epoch
        ({"steps": 0, "epochs": 5}, [], 150, 150, 30.0),
        ({"steps": 0, "epochs": 5}, [], None, 140, None),
    ],
)
def test_steps_and_epochs_do_not_depend_on_what_was_logged(
    tmp_path: Path,
    train: dict[str, int],
    validated: list[int],
    result: int | None,
    last_step: int,
    steps_an_epoch: float | None,
) -> None:
    """150 steps, of which the last that was logged is 140."""
    (tmp_path / "settings.json").write_text(json.dumps({"net": {}, "augment": {}, "train": train}))
    val = {"val_loss": 1.0, "val_top1": 0.5, "val_top5": 0.5, "val_images": 7}
    lines = [{"step": 140, "loss": 1.0}, *({"step": s, "epoch": e, **val} for e, s in enumerate(validated))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result:
        (tmp_path / "result.json").write_text(json.dumps({"steps": result}))
    records = Records(tmp_path)
    assert (records.last_step, records.steps_an_epoch) == (last_step, steps_an_epoch)


def test_records_of_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder that can be read"):
        Records(tmp_path)
    (tmp_path / "settings.json").write_text('{"net": {}, "augment": {}, "train": {}}')
    records = Records(tmp_path)
    assert (len(records.steps), records.rate, records.waited, records.steps_an_epoch) == (0, 0.0, 0.0, None)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(10) == [0, 5, 10]
    assert ticks(1300) == [0, 500, 1000]
    assert ticks(30, 5, 10) == [10, 15, 20, 25, 30]
    assert ticks(1.05) == pytest.approx([0, 0.5, 1.0])


def test_drawings_escape_texts_and_attributes() -> None:
    assert tag("p", "x < ", [tag("b", "y"), " z"], title='"q"', rx=0.5) == (
        '<p title="&#34;q&#34;" rx="0.5">x &lt; <b>y</b> z</p>'
    )
