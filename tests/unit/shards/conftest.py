"""A data set that may be changed."""

import shutil
from pathlib import Path

import pytest

from alexnet.shards.writer import write_checksums


@pytest.fixture(scope="module")
def sealed(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data set with a licence beside it; tests that change it put it back."""
    root = Path(shutil.copytree(data_set, tmp_path_factory.mktemp("sealed") / "set"))
    (root / "LICENSE").write_text("CC0\n")
    write_checksums(root)
    return root


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "set"))
