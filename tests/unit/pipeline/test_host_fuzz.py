"""What fuzzing starts from and what it found, replayed: `make fuzz` goes on from there."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import DecodeError, available, decode_rows
from tests.fuzz.seeds import bundled, small
from tests.unit.pipeline.photographs import pixels_of

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

ROOT = Path(__file__).parents[3]
FOUND = sorted((ROOT / "tests" / "fuzz" / "found").iterdir())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_fuzzing_found_stays_mended(path: Path) -> None:
    """Every window of it has the pixels of the whole, or it is refused."""
    jpeg = path.read_bytes()
    try:
        width, height = Image.open(io.BytesIO(jpeg)).size
        whole = decode_rows(jpeg, y=0, x=0, height=height, width=width)
    except (DecodeError, OSError):
        return
    assert np.array_equal(whole, pixels_of(jpeg))
    for x in range(width):
        for y in range(0, height, 5):
            for columns in {1, 2, width - x}:
                if x + columns <= width:
                    window = decode_rows(jpeg, y=y, x=x, height=height - y, width=columns)
                    assert np.array_equal(window, whole[y:, x : x + columns])


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
    files = [*sorted(tmp_path.glob("*.jpg")), *FOUND]
    command = [str(program), "-seconds", "20", *map(str, files)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "nothing found" in run.stdout
    assert int(run.stdout.split()[0]) > len(files)
