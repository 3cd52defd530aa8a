"""The extension's build: what cannot be built is said and does no harm; plain C gives the same bits; sanitizers."""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from alexnet.pipeline.host import available
from alexnet.pipeline.host.jpeg import extension
from alexnet.pipeline.host.pool import DTYPES
from tests.fuzz.seeds import bundled, small
from tests.unit.pipeline.photographs import photograph, stored_planes

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "pipeline" / "host"
COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
needs_build = pytest.mark.skipif(available() is not None or not COMPILER, reason=str(available() or "no C compiler"))


def compiled(folder: Path, *options: str) -> ModuleType:
    """Compile the extension apart from the installed one, and load it beside that."""
    path = folder / "_host.abi3.so"
    include = sysconfig.get_path("include")
    sources = [str(source) for source in sorted(FOLDER.glob("*.c"))]
    flags = ["-shared", "-fPIC", "-O1", "-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off", "-pthread", f"-I{include}"]
    command = [*str(COMPILER).split(), *flags, *options, *sources, "-ljpeg", "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    spec = importlib.util.spec_from_file_location("_host", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_build
def test_code_for_any_cpu_gives_the_bits_of_code_for_this_one(tmp_path: Path) -> None:
    plain: Any = compiled(tmp_path, "-DPLAIN_ROWS")
    n = 8
    jpegs = [photograph(i, 96, 96) for i in range(n)]
    rng = np.random.default_rng(0)
    places, mirror = rng.integers(0, 22, (n, 2)).astype(np.int32), np.arange(n) % 2 == 1
    mean = rng.normal(100, 90, (n, 3)).astype(np.float32)
    mean[0], mean[1] = (np.nan, np.inf, -np.inf), (1e5, 1e-7, 3e38)
    mean.view(np.uint32)[2, 1] = 0x7FFFFFFF  # no number, and it would round to one
    scale = np.array([1, 2.0**-22, 1.3], np.float32)
    with stored_planes(jpegs, (96, 96)) as planes:
        for crop in (75, 64):  # of which rows of 64 are whole lines of the caches
            image = rng.normal(0, 9, (crop, crop, 3)).astype(np.float32)
            ways = itertools.product(enumerate(DTYPES.values()), (False, True), (None, image))
            for (number, dtype), planar, mean_image in ways:
                results = []
                for module, (images, stored) in itertools.product((extension(), plain), ((jpegs, ()), ((), planes))):
                    out = np.empty((n, crop, crop, 3), dtype)
                    arrays = (places, mirror, mean, scale, mean_image, out)
                    settings = (96, 96, crop, number, planar)
                    assert module.decode(module.new_pool(2), images, *arrays, *settings, *stored) == []
                    results.append(out.tobytes())
                assert len(set(results)) == 1, (dtype, planar)


def test_a_missing_extension_is_explained_in_one_line() -> None:
    """As after an install without a compiler: the package works, and says what is missing and how to mend it."""
    code = textwrap.dedent("""
        import sys
        sys.modules["alexnet.pipeline.host._host"] = None
        from alexnet.pipeline.host import JpegPool, available, truncation
        reason = available()
        print(reason)
        for call in (lambda: JpegPool(1), lambda: truncation(b"")):
            try:
                call()
            except RuntimeError as error:
                assert str(error) == reason
            else:
                raise SystemExit("no error")
    """)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1
    assert "was not built" in run.stdout
    assert "apt-get install gcc" in run.stdout


def test_a_library_that_does_not_fit_is_explained_in_one_line(tmp_path: Path) -> None:
    """As after the libjpeg it was built against has gone."""
    broken = tmp_path / "_host.abi3.so"
    broken.write_bytes(b"no library")
    code = textwrap.dedent(f"""
        import sys
        import alexnet.pipeline.host as host
        host.__path__ = [{str(tmp_path)!r}]
        host.available.cache_clear()
        sys.modules.pop("alexnet.pipeline.host._host", None)
        print(host.available())
    """)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("the host decoder cannot be loaded (")
    assert run.stdout.count("\n") == 1


def sources_in(folder: Path) -> Path:
    """Copy what a build needs, to build without touching the tree."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "ci-100", "runs", "build", ".*", "*.egg-info", "tests")
    for name in ("alexnet", "model", "pipeline", "shards", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, symlinks=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "shards" / "ci-100").mkdir()
    shutil.copy(ROOT / "shards" / "ci-100" / "LICENSE", folder / "shards" / "ci-100")
    return folder


def build(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder / "out"), *options]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@needs_build
def test_an_ordinary_build_makes_both_extensions(tmp_path: Path) -> None:
    run = build(sources_in(tmp_path))
    assert run.returncode == 0, run.stderr
    found = {path.parent.name for path in (tmp_path / "out").rglob("*.so")}
    assert found == {"host", "shards"}


@pytest.mark.parametrize("missing", ["compiler", "working compiler", "libjpeg-turbo"])
def test_a_build_that_cannot_succeeds_without_and_says_what_is_needed(tmp_path: Path, missing: str) -> None:
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "jpeglib.h").write_text("#define JPEG_LIB_VERSION 90\n")  # another project's libjpeg
    environment = {
        "compiler": {"CC": "no-such-compiler"},
        "working compiler": {"CC": "false"},
        "libjpeg-turbo": {"CFLAGS": f"-I{tmp_path / 'another'}"},
    }[missing]
    run = build(sources_in(tmp_path), **environment)
    assert run.returncode == 0, run.stderr
    assert not list((tmp_path / "out").rglob("_host*.so"))
    (line,) = (line for line in run.stdout.splitlines() if "alexnet.pipeline.host._host" in line)
    assert "was not built" in line
    assert "apt-get install gcc libc6-dev python3-dev libjpeg-dev" in line


def test_what_an_earlier_build_left_does_not_outlive_a_build_that_fails(tmp_path: Path) -> None:
    """An old extension would be loaded by new Python code, and its functions take other arguments."""
    old = sources_in(tmp_path) / "pipeline" / "host" / "_host.abi3.so"
    old.write_bytes(b"old")
    run = build(tmp_path, "--inplace", CC="false")
    assert run.returncode == 0, run.stderr
    assert not old.exists()


def sanitized(folder: Path) -> Path:
    """Compile the fuzzer without libFuzzer, under the address and undefined-behaviour sanitizers."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    parts = [f"pipeline/host/{name}.c" for name in ("decode", "planes", "rows")]
    sources = ["tests/fuzz/decode_fuzz.c", "tests/fuzz/standalone.c", *parts]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-ffp-contract=off", "-fno-sanitize-recover=all"]
    program = folder / "decode_fuzz"
    command = [compiler, *flags, "-fsanitize=address,undefined", *sources, "-ljpeg", "-o", str(program)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "cannot find" in run.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert run.returncode == 0, run.stderr
    return program


@pytest.mark.slow
def test_seeds_finds_and_some_seconds_of_damage_pass_under_sanitizers(tmp_path: Path) -> None:
    program = sanitized(tmp_path)
    pictures = bundled()
    seeds = pictures | small(pictures["train-0.jpg"])
    for name, data in seeds.items():
        (tmp_path / name).write_bytes(data)
    files = [*sorted(tmp_path.glob("*.jpg")), *sorted((ROOT / "tests" / "fuzz" / "found").iterdir())]
    command = [str(program), "-seconds", "20", *map(str, files)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "nothing found" in run.stdout
    assert int(run.stdout.split()[0]) > len(files)
