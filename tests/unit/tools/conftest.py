"""A folder of pictures that is converted while things happen to it."""

from collections.abc import Callable, MutableSequence
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.processes import Pool
from alexnet.tools.convert import engines
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.shard import Notes, ShardJob, convert_shard
from alexnet.tools.samples.layouts import write_files
from tests.conftest import encode_picture

SETTINGS = ConvertSettings(size_px=32, shard_images=8, seed=7)
NAMES = [f"cats/{i}.jpg" for i in range(8)] + [f"dogs/{i}.jpg" for i in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_files(tmp_path / "pictures" / Path(name).parent, {Path(name).name: encode_picture(NAMES.index(name))})
    return tmp_path / "pictures"


def pool_of_none(function: Any, _: int, **options: Any) -> Pool[Any, Any]:
    """Stand for a pool: without processes."""
    return Pool(function, 0, **options)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Convert without processes; the names of the shards that are begun."""
    names: list[str] = []

    def noting(job: ShardJob, counts: MutableSequence[int]) -> Notes:
        names.append(job.plan.name)
        return convert_shard(job, counts)

    monkeypatch.setattr(engines, "Pool", pool_of_none)
    monkeypatch.setattr(engines, "convert_shard", noting)
    return names


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Convert without processes; what is put into the list happens before the first shard."""
    happenings: list[Callable[[], object]] = []

    def after_them(job: ShardJob, counts: MutableSequence[int]) -> Notes:
        while happenings:
            happenings.pop()()
        return convert_shard(job, counts)

    monkeypatch.setattr(engines, "Pool", pool_of_none)
    monkeypatch.setattr(engines, "convert_shard", after_them)
    return happenings
