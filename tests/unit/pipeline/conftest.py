"""What tests of orders and draws share: a planner of any kind."""

from collections.abc import Callable

import pytest

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.shards.colour import ColourStatistics

COLOUR = ColourStatistics(
    mean=(120.0, 110.0, 100.0),
    covariance=((2500.0, 0.0, 0.0), (0.0, 1600.0, 0.0), (0.0, 0.0, 900.0)),
    eigenvalues=(10_000.0, 900.0, 100.0),
    eigenvectors=((0.6, 0.6, 0.53), (0.7, 0.0, -0.7), (0.4, -0.8, 0.4)),
    standard_deviations=(100.0, 30.0, 10.0),
)
SHARD_IMAGES = (100, 0, 237, 41, 300, 1, 99, 225)  # 1,003: unequal, one empty, one of a single image
SIZE_PX = 256

MakePlanner = Callable[..., Planner]


@pytest.fixture(scope="session")
def colour() -> ColourStatistics:
    return COLOUR


@pytest.fixture(scope="session")
def shard_images() -> tuple[int, ...]:
    return SHARD_IMAGES


@pytest.fixture(scope="session")
def make_planner() -> MakePlanner:
    """Return `planner(**settings)`: keywords of PlanSettings and AugmentSettings, mixed."""

    def make(**options: object) -> Planner:
        def pick(settings: type) -> dict[str, object]:
            return {name: options[name] for name in settings.__dataclass_fields__ if name in options}  # type: ignore[attr-defined]

        plan = PlanSettings(**{"batch_images": 64, "seed": 5, **pick(PlanSettings)})  # type: ignore[arg-type]
        augment = AugmentSettings(**pick(AugmentSettings))  # type: ignore[arg-type]
        return Planner(plan, augment, COLOUR, SIZE_PX, SHARD_IMAGES)

    return make
