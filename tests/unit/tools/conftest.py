"""A folder of pictures that is converted while things happen to it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.pool import raise_unless_done
from alexnet.tools.convert.work import ShardJob, attempt_shard
from alexnet.tools.samples.layouts import write_files
from tests.conftest import encode_picture

SETTINGS = ConvertSettings(size_px=32, shard_images=8, seed=7)
NAMES = [f"cats/{i}.jpg" for i in range(8)] + [f"dogs/{i}.jpg" for i in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_files(tmp_path / "pictures" / Path(name).parent, {Path(name).name: encode_picture(NAMES.index(name))})
    return tmp_path / "pictures"


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Convert without processes; what is put into the list happens before the first shard."""
    happenings: list[Callable[[], object]] = []

    class InThisProcess:
        def run(self, jobs: Iterator[ShardJob]) -> None:
            for job in jobs:
                while happenings:
                    happenings.pop()()
                raise_unless_done(attempt_shard(job))

    monkeypatch.setattr("alexnet.tools.convert.build.engine_of", lambda *_: InThisProcess())
    return happenings
