"""A data set that may be changed."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from alexnet.shards.writer import write_checksums

PROPERTY = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def sealed(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data set with a licence beside it; tests that change it put it back."""
    root = Path(shutil.copytree(data_set, tmp_path_factory.mktemp("sealed") / "set"))
    (root / "LICENSE").write_text("CC0\n")
    write_checksums(root)
    for path in root.rglob("*"):
        path.chmod(0o755)
    return root


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "set"))
