"""Other loaders: what their rows say where something is missing, and the work that all are held to."""

import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet.tools.bench import baselines, own_decoders, own_formats
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.loader_rows import BASELINES
from alexnet.tools.bench.stage import CannotRunError

LINES = {
    "torchcodec": "torchcodec is not installed: pip install torchcodec",
    "grain": "grain is not installed: pip install grain",
    "litdata": "litdata is not installed: pip install --no-deps litdata, and what docs/benchmarks.md names",
    "nvimagecodec": "nvidia-nvimgcodec-cu13 is not installed: pip install nvidia-nvimgcodec-cu13",
}


@pytest.mark.parametrize("peer", LINES)
def test_a_package_that_is_missing_is_named_with_its_line(
    peer: str, data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "torch":
            return "2.13.0"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(baselines, "version", version)
    monkeypatch.setattr(own_decoders, "installed", lambda _: {})
    for row in BASELINES[peer]:
        with pytest.raises(CannotRunError, match=f"^{LINES[peer]}$"):
            row.make(data=str(data_set), split="train", batch_images=8, threads=1, **row.options)


def test_libraries_that_are_missing_are_named(data_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ffmpeg(**_: Any) -> None:
        raise RuntimeError("Failed to import libspdl.")

    spdl, io, pipeline = ModuleType("spdl"), ModuleType("spdl.io"), ModuleType("spdl.pipeline")
    vars(spdl)["io"], vars(io)["decode_config"], vars(pipeline)["PipelineBuilder"] = io, no_ffmpeg, object
    for module in (spdl, io, pipeline):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(baselines, "version", lambda _: "1")
    task = {"data": str(data_set), "split": "train", "batch_images": 8, "threads": 1}
    with pytest.raises(CannotRunError, match="apt-get install ffmpeg"):
        baselines.spdl(decoder="spdl", **task)

    def other_torch(_: str) -> None:
        raise OSError("Could not load this library: libtorchcodec_image.so")

    monkeypatch.setattr(baselines, "import_module", other_torch)
    with pytest.raises(CannotRunError, match="torchcodec was built for another torch"):
        baselines.torch_loader(decoder="torchcodec", **task)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CannotRunError, match="on a GPU, and torch has none here"):
        own_decoders.on_gpu(library="torchcodec", **task)


def test_a_disk_that_is_full_is_said_before_anything_is_written(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = LoaderTask(data=str(data_set), split="train", batch_images=8, threads=1)
    images = baselines.Images(task, bytes, most=3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Path(own_formats._folder(task, images)).parent == tmp_path
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(images) * 3 * task.size_px**2 - 1))
    with pytest.raises(CannotRunError, match=r"has 0\.0 GB free"):
        own_formats._folder(task, images)


def test_the_work_is_a_random_crop_mirrored_less_the_mean(ci_100: Path) -> None:
    task = LoaderTask(data=str(ci_100), split="train", batch_images=8, threads=1)
    cut, batch_of, px = baselines.cutter(task), baselines.planar(task), task.crop_px
    pixels = baselines.decoder_of("pil")(task.reader.stored(0).tobytes())
    for y, x, mirror in ((0, 0, True), (task.size_px - px, 7, False)):
        places = task.size_px - px + 1
        draws = iter(((y + 0.5) / places, (x + 0.5) / places, 0.0 if mirror else 0.5))
        crop = pixels[y : y + px, x : x + px].astype(np.float64)
        expected = ((crop[:, ::-1] if mirror else crop) - task.mean).transpose(2, 0, 1)
        batch = batch_of([cut(pixels, draws.__next__)])
        assert batch.dtype == np.float32
        np.testing.assert_allclose(batch[0], expected, atol=2e-5)  # a rounding of values up to 255
    drawn = np.array([baselines.draw(33) for _ in range(2_000)])
    assert (drawn.min(0).tolist(), drawn.max(0).tolist()) == ([0, 0, 0], [32, 32, 1]), "every place is drawn"
