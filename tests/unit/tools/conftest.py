"""A folder of images that is converted while things happen to it."""

from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alexnet.tools.convert import engines
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.shard import Notes, ShardJob, convert_shard
from tests.conftest import encode_picture
from tests.unit.tools.source_layouts import write

SETTINGS = ConvertSettings(size_px=32, shard_images=8, seed=7)
NAMES = [f"{c}/{i}.jpg" for c in ("cats", "dogs") for i in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "pictures", {name: encode_picture(k) for k, name in enumerate(NAMES)})


@dataclass
class Here:
    """Know the names of the shards that were converted in this process, and what is to happen before the first."""

    converted: list[str] = field(default_factory=list)
    before: list[Callable[[], object]] = field(default_factory=list)


@pytest.fixture
def here(no_workers: None, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Convert without processes."""
    here = Here()

    def noting(job: ShardJob, counts: MutableSequence[int]) -> Notes:
        while here.before:
            here.before.pop()()
        here.converted.append(job.plan.name)
        return convert_shard(job, counts)

    monkeypatch.setattr(engines, "convert_shard", noting)
    return here
