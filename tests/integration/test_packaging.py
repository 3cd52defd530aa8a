"""The mapping from top-level folders to one import package has traps; each is shut here."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mypy.main import process_options

from alexnet.tools.licences import licence_of

ROOT = Path(__file__).parents[2]
FOLDERS = ("shards", "pipeline", "model", "tools")
# Prints where the package is, why there is no host decoder, and the files of libjpeg that it and Pillow loaded.
LOADED = """
import alexnet, PIL._imaging
from pathlib import Path
from alexnet.pipeline.host import available
reason = available()
maps = Path("/proc/self/maps").read_text().splitlines()
print([alexnet.__file__, reason, sorted({line.split()[-1] for line in maps if "/libjpeg" in line})])
"""


def pyproject() -> dict[str, dict[str, dict[str, object]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> set[str]:
    """Every module of the tree as a path inside the wheel."""
    found = {"alexnet/__init__.py"}
    for folder in FOLDERS:
        found |= {f"alexnet/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    return found


def stubs() -> list[Path]:
    """Return the files that tell type checkers of the C extensions."""
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.pyi")]


def test_links_for_the_type_checkers_resolve() -> None:
    for folder in FOLDERS:
        link = ROOT / "alexnet" / folder
        assert link.is_symlink()
        assert link.readlink() == Path("..") / folder
        assert (link / "__init__.py").exists()


def test_the_list_of_packages_is_the_tree() -> None:
    tool = pyproject()["tool"]["setuptools"]
    packages, mapping = tool["packages"], tool["package-dir"]
    assert isinstance(packages, list)
    assert isinstance(mapping, dict)
    expected = {"alexnet": "alexnet"}
    for top in FOLDERS:
        for init in (ROOT / top).rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT)
            expected["alexnet." + ".".join(folder.parts)] = str(folder)
    assert set(packages) == set(expected)
    assert mapping == expected
    in_packages = {(ROOT / folder) for folder in expected.values()}
    assert {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")} <= in_packages


def test_every_module_of_the_tree_is_installed() -> None:
    """Seen from elsewhere: an editable install made before a folder was added would miss it."""
    names = [m.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for m in modules()]
    code = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"
    run = subprocess.run([sys.executable, "-c", code, *names], cwd="/", capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_mypy_looks_at_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that does not follow the links reports a hollow success."""
    monkeypatch.chdir(ROOT)
    found, _ = process_options([])
    tests = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")]
    expected = {*modules(), *map(str, tests), *(f"alexnet/{path.relative_to(ROOT)}" for path in stubs())}
    assert {source.path for source in found} == expected


@pytest.mark.slow
def test_pyright_looks_at_every_file() -> None:
    packages = [f"alexnet/{folder}" for folder in FOLDERS]
    command = [sys.executable, "-m", "pyright", "--outputjson", "alexnet/__init__.py", *packages]
    report = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)
    assert report["summary"]["filesAnalyzed"] == len(modules()) + len(stubs())
    unresolved = [
        d for d in report["generalDiagnostics"] if "alexnet" in d["message"] and "import" in d["message"].lower()
    ]
    assert not unresolved


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a checkout: an sdist is put together inside the tree, where two at once would disturb each other."""
    left_out = shutil.ignore_patterns(
        ".git", ".*cache", ".venv*", "__pycache__", "*.egg-info", "*.so", "build", "dist", "runs"
    )
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("tree") / "alexnet", symlinks=True, ignore=left_out))


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is built from it, as an index would."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


def test_the_wheel_holds_every_module_and_the_bundled_data(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bundled = {name: archive.read(name) for name in names if name.startswith("alexnet/shards/ci-100/")}
    assert modules() <= names
    files = [path for path in (ROOT / "shards/ci-100").rglob("*") if path.is_file()]
    data = {f"alexnet/{path.relative_to(ROOT)}": path.read_bytes() for path in files}
    assert bundled == data
    assert {"alexnet/py.typed", "alexnet/pipeline/normals.npy", "alexnet/model/recipes/paper.toml"} <= names
    assert not [name for name in names if name.split("/")[0] not in ("alexnet", f"alexnet-{_version()}.dist-info")]


def test_the_sdist_holds_the_tests_and_no_links(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {member.name.split("/", 1)[-1] for member in members}
    assert {"tests/conftest.py", "shards/ci-100/manifest.json", "constraints/ci.txt", "Makefile", "README.md"} <= names
    assert not [member.name for member in members if member.issym() or "/alexnet/shards" in member.name]


@pytest.mark.slow
def test_the_sdist_installs_with_the_host_decoder_and_no_links(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]
    subprocess.run([*pip, str(sdist)], capture_output=True, check=True)
    at, reason, _ = loaded(sys.executable, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (at, reason) == (str(tmp_path / "alexnet/__init__.py"), None)
    assert not [path for path in (tmp_path / "alexnet").rglob("*") if path.is_symlink()]


@pytest.mark.slow
def test_the_wheels_install_and_train_where_no_compiler_is_found(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["make", "wheel", f"DIST={tmp_path}/dist", f"PYTHON={sys.executable}"], cwd=tree, check=True)
    venv.create(tmp_path / "venv", with_pip=True)
    found = tmp_path / "venv/bin"
    bare = {**os.environ, "PATH": str(found), "CC": "/nonexistent", "OMP_NUM_THREADS": "1"}
    pip = [str(found / "pip"), "install", "-q", "--only-binary", ":all:", *os.environ.get("PIP_ARGS", "").split()]
    wheels = ["-c", str(ROOT / "constraints/ci.txt"), "--find-links", str(tmp_path / "dist"), "alexnet"]
    subprocess.run([*pip, *wheels], env=bare, cwd=tmp_path, check=True)
    at, reason, libraries = loaded(str(found / "python"), bare)
    site = Path(at).parents[1]
    assert (site.parents[2], reason) == (tmp_path / "venv", None)
    assert {Path(library).parent.parent for library in libraries} == {site}, "not the system's or another package's"
    (licence,) = site.glob("alexnet-*.dist-info/licenses/libjpeg*/copyright")
    assert "Independent JPEG Group" in licence.read_text()
    train = [str(found / "alexnet-train"), "--recipe", "small", "--steps", "2", "--out", str(tmp_path / "run")]
    subprocess.run(train, env=bare, cwd=tmp_path, check=True)
    assert (tmp_path / "run/report.html").exists()


def test_a_wheel_holds_no_library_whose_licence_is_not_known() -> None:
    with pytest.raises(SystemExit, match=r"no licence of libmine\.so\.1\.2"):
        licence_of("libmine-0123abcd.so.1.2")


def test_shards_are_kept_as_bytes_by_git() -> None:
    attributes = (ROOT / ".gitattributes").read_text().split("\n")
    assert "shards/ci-100/** -text" in attributes


def loaded(python: str, env: dict[str, str]) -> list[Any]:
    """Return what LOADED prints, run away from the tree."""
    run = subprocess.run([python, "-c", LOADED], env=env, cwd="/", capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: list[Any] = ast.literal_eval(run.stdout)
    return found


def _version() -> str:
    return str(pyproject()["project"]["version"])
