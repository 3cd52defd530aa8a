"""What a batch is made of: pure functions of (seed, epoch, sample), the same bits on every CPU and for ever."""

import gc
import hashlib
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from alexnet.pipeline import BatchPlan
from alexnet.pipeline.plan import Planner
from alexnet.shards.errors import InputError

MakePlanner = Callable[..., Planner]

IMAGES = 1003
KINDS: list[dict[str, object]] = [
    {"window_shards": None},
    {"window_shards": 3},
    {"window_shards": None, "crop_per": "32-images", "lighting": "krizhevsky"},
    {"window_shards": 3, "crop_per": "32-images", "lighting": "torch"},
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: "-".join(map(str, k.values())))


def rows(*parts: BatchPlan) -> list[list[float]]:
    """Return everything a plan says, one list an image."""
    columns = [
        (p.sample_ids[:, None], p.positions[:, None], p.crop_yx, p.mirror[:, None], p.colour_offset) for p in parts
    ]
    table: list[list[float]] = np.concatenate([np.concatenate(c, axis=1) for c in columns]).tolist()
    return table


def ids_of_epoch(planner: Planner, epoch: int = 0) -> list[int]:
    return [int(i) for step in range(planner.steps) for i in planner.plan(epoch, step).sample_ids]


@every_kind
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("batch_images", [64, 7, 1003])
def test_any_number_of_ranks_shares_the_same_global_batches(
    make_planner: MakePlanner, kind: dict[str, object], drop_last: bool, batch_images: int
) -> None:
    def planner(rank: int, ranks: int) -> Planner:
        return make_planner(**kind, batch_images=batch_images, drop_last=drop_last, rank=rank, ranks=ranks)

    whole = planner(0, 1)
    for ranks in (2, 3, 8):
        shares = [planner(rank, ranks) for rank in range(ranks)]
        assert {share.steps for share in shares} == {whole.steps}
        for epoch, step in [(0, 0), (0, whole.steps - 1), (3, whole.steps // 2)]:
            expected = rows(whole.plan(epoch, step))
            parts = [share.plan(epoch, step) for share in shares]
            assert rows(*parts) == expected
            assert rows(shares[-1].global_plan(epoch, step)) == expected
            assert {len(part.sample_ids) for part in parts} <= {len(expected) // ranks, -(-len(expected) // ranks)}


@every_kind
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_sample_comes_exactly_once_an_epoch(
    make_planner: MakePlanner, kind: dict[str, object], ranks: int
) -> None:
    for drop_last, count in [(False, IMAGES), (True, IMAGES // 64 * 64)]:
        planners = [make_planner(**kind, drop_last=drop_last, rank=rank, ranks=ranks) for rank in range(ranks)]
        for epoch in (0, 1):
            ids = [i for planner in planners for i in ids_of_epoch(planner, epoch)]
            assert len(ids) == len(set(ids)) == count
            assert set(ids) <= set(range(IMAGES))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_validation_counts_every_image_once_in_the_order_of_the_ids(make_planner: MakePlanner, ranks: int) -> None:
    evaluation = {"shuffle": False, "augment": False, "drop_last": False}
    planners = [make_planner(**evaluation, rank=rank, ranks=ranks) for rank in range(ranks)]
    ids = [i for step in range(planners[0].steps) for p in planners for i in p.plan(7, step).sample_ids.tolist()]
    assert ids == list(range(IMAGES))
    plan = planners[0].global_plan(0, planners[0].steps - 1)
    assert len(plan.sample_ids) == IMAGES % 64, "the last batch is partial"
    assert plan.crop_yx.tolist() == [[16, 16]] * len(plan.sample_ids)
    assert not plan.mirror.any()
    assert not plan.colour_offset.any()


@every_kind
def test_any_step_is_planned_alone_as_in_its_turn(make_planner: MakePlanner, kind: dict[str, object]) -> None:
    in_turn = make_planner(**kind)
    expected = [(e, s, rows(in_turn.plan(e, s))) for e in range(4) for s in range(in_turn.steps)]
    jumping = make_planner(**kind)
    for epoch, step, batch in [*expected[::-7], *expected[::5]]:
        assert rows(jumping.plan(epoch, step)) == batch
        resumed = [make_planner(**kind, rank=rank, ranks=3).plan(epoch, step) for rank in range(3)]
        assert rows(*resumed) == batch, "resumed on another number of ranks"


def test_threads_that_share_a_planner_get_the_same_plans(make_planner: MakePlanner) -> None:
    alone, shared = (make_planner(**KINDS[-1]) for _ in range(2))
    jobs = [(epoch, step) for step in range(alone.steps) for epoch in range(4)]
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda job: rows(shared.plan(*job)), jobs))
    assert plans == [rows(alone.plan(*job)) for job in jobs]


def test_an_empty_part_has_rows_of_the_right_shape(make_planner: MakePlanner) -> None:
    for augment in (True, False):
        plan = make_planner(batch_images=2, rank=0, ranks=3, augment=augment).plan(0, 0)
        arrays = (plan.sample_ids, plan.positions, plan.crop_yx, plan.mirror, plan.colour_offset)
        assert [a.shape for a in arrays] == [(0,), (0,), (0, 2), (0,), (0, 3)]
        assert [a.dtype for a in arrays] == [np.int64, np.int64, np.int32, np.bool_, np.float32]


def test_positions_count_through_the_epoch(make_planner: MakePlanner) -> None:
    planners = [make_planner(rank=rank, ranks=3, drop_last=False) for rank in range(3)]
    places = [p.plan(2, step).positions for step in range(planners[0].steps) for p in planners]
    assert np.concatenate(places).tolist() == list(range(IMAGES))
    part = planners[1].plan(2, 4)
    assert planners[1].order(2)[part.positions].tolist() == part.sample_ids.tolist()


def test_thirty_two_images_share_a_crop_whatever_the_batches_and_ranks(make_planner: MakePlanner) -> None:
    crops: dict[tuple[int, int], tuple[int, ...]] = {}
    offsets = set()
    for batch_images, ranks in [(48, 1), (64, 3), (100, 8), (IMAGES, 2)]:  # 48 and 100 cut through the groups of 32
        for rank in range(ranks):
            planner = make_planner(
                crop_per="32-images", batch_images=batch_images, rank=rank, ranks=ranks, drop_last=False
            )
            for epoch in (0, 1):
                for step in range(planner.steps):
                    plan = planner.plan(epoch, step)
                    offsets |= {(epoch, *row) for row in plan.colour_offset.tolist()}
                    for position, (y, x), mirror in zip(plan.positions, plan.crop_yx, plan.mirror, strict=True):
                        drawn = (int(y), int(x), int(mirror))
                        assert crops.setdefault((epoch, int(position) // 32), drawn) == drawn
    assert len(crops) == 2 * 32
    assert len(set(crops.values())) > 60, "groups and epochs are drawn anew"
    assert len(offsets) == 2 * IMAGES, "lighting stays each image's own"


def test_what_a_user_does_to_a_plan_changes_no_other(make_planner: MakePlanner) -> None:
    planner = make_planner()
    plan = planner.plan(0, 0)
    before = rows(plan)
    plan.sample_ids[:] = 0
    plan.positions[:] = 0
    assert rows(planner.plan(0, 0)) == before
    assert not planner.order(0).flags.writeable
    assert planner.plan(0, 0).sample_ids.base is None, "a plan that is kept keeps no 10 MB order"


def test_a_planner_goes_with_its_last_reference(make_planner: MakePlanner) -> None:
    gc.disable()
    try:
        planner = make_planner()
        planner.plan(0, 0)
        order = weakref.ref(planner.order(0))
        del planner
        assert order() is None, "its orders, 10 MB each for ImageNet, must not wait for the collector"
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_images": 0}, "batch_images=0: must be at least 1"),
        ({"batch_images": 1004}, "batch_images=1004: the data set has only 1003 images"),
        ({"rank": 2, "ranks": 2}, "rank=2: must be between 0 and world_size-1=1"),
        ({"rank": -1}, "rank=-1"),
    ],
)
def test_plans_that_cannot_be_are_refused(make_planner: MakePlanner, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_planner(**options)


@pytest.mark.parametrize(
    ("epoch", "step", "message"),
    [(0, 15, "step=15: an epoch has steps 0 to 14"), (0, -1, "step=-1"), (-1, 0, "epoch=-1")],
)
def test_a_batch_that_is_none_is_refused(make_planner: MakePlanner, epoch: int, step: int, message: str) -> None:
    planner = make_planner()
    for plan in (planner.plan, planner.global_plan):
        with pytest.raises(InputError, match=message):
            plan(epoch, step)


PINNED_DIGEST = "8afa8855a3c722cc025cbf4c065e96be96cfd622e3f0f44aeadc5dbed155f22a"
PINNED = """
import hashlib
import numpy as np
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.normalize import normalization_of
from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.shards.colour import ColourStatistics
colour = ColourStatistics(
    mean=(120.1, 110.2, 100.3),
    covariance=((2501.0, 0.0, 0.0), (0.0, 1601.0, 0.0), (0.0, 0.0, 901.0)),
    eigenvalues=(10_000.0, 900.0, 100.0),
    eigenvectors=((0.6, 0.6, 0.53), (0.7, 0.0, -0.7), (0.4, -0.8, 0.4)),
    standard_deviations=(100.0, 30.0, 10.0),
)
def digest(*arrays):
    return hashlib.sha256(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)).hexdigest()[:16]
for order in ("global", "blocks"):
    for crop_per in ("image", "32-images"):
        for lighting in ("measured", "krizhevsky", "torch", "off"):
            settings = PlanSettings(batch_images=4000, seed=2012, window_shards=3 if order == "blocks" else None)
            augment = AugmentSettings(crop_per=crop_per, lighting=lighting)
            p = Planner(settings, augment, colour, 256, (1500,) * 6 + (1,)).plan(7, 1)
            print(order, crop_per, lighting, digest(p.sample_ids, p.positions, p.crop_yx, p.mirror, p.colour_offset))
image = np.arange(256 * 256 * 3).reshape(256, 256, 3).astype(np.float32) / 771
for augment in (
    AugmentSettings(scale="unit-variance"), AugmentSettings(mean="image", lighting_division=True, lighting_std=0.3)
):
    finish = normalization_of(augment, colour, image, training=True)
    print(augment.scale, augment.mean, digest(finish.mean, finish.scale))
"""


def test_plans_are_the_same_bits_on_any_cpu(on_two_kinds_of_cpu: Callable[[str], tuple[str, str]]) -> None:
    here, plain = on_two_kinds_of_cpu(PINNED)
    assert here == plain
    # For ever, too: a run that is resumed with a later version sees the same images.
    assert hashlib.sha256(here.encode()).hexdigest() == PINNED_DIGEST, here
