"""The official layout: archives that any tar reads, the same bytes however they came about."""

import io
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import open_source
from alexnet.tools.synth import archives, parts
from alexnet.tools.synth.archives import write_archives
from alexnet.tools.synth.classes import traits_of, wnid_of
from alexnet.tools.synth.parts import Part, end_of_tar
from alexnet.tools.synth.photograph import encode_photograph
from alexnet.tools.synth.randomness import Draws
from alexnet.tools.synth.settings import SynthSettings
from alexnet.tools.synth.source import drawn_source
from tests.conftest import digests

SETTINGS = SynthSettings(classes=3, images=23, val_images=8, seed=4)
VERSIONS = {"alexnet": "0"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    assert write_archives(root, SETTINGS, VERSIONS, workers=1)
    return root


def test_there_is_nothing_but_the_archives_and_a_record(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "ILSVRC2012_devkit_t12.tar.gz",
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        "synth.json",
    ]


def test_the_standard_library_reads_every_picture(written: Path) -> None:
    with tarfile.open(written / "ILSVRC2012_img_train.tar") as outer:
        assert outer.getnames() == [f"{wnid_of(k)}.tar" for k in range(3)]
        for label, member in enumerate(outer):
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                assert inner.getnames() == [f"{stem}.JPEG" for stem in SETTINGS.train_stems(label)]
                for name in inner.getnames():
                    assert_drawn(inner, name, label)
    with tarfile.open(written / "ILSVRC2012_img_val.tar") as flat:
        assert flat.getnames() == [f"ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, 9)]
        for k, name in enumerate(flat.getnames()):
            assert_drawn(flat, name, k % 3)


def assert_drawn(tar: tarfile.TarFile, name: str, label: int) -> None:
    file = tar.extractfile(name)
    assert file is not None
    data = file.read()
    assert data == encode_photograph(traits_of(label), Draws(f"4 {name.removesuffix('.JPEG')}"))
    Image.open(io.BytesIO(data)).load()


def test_the_converter_finds_the_same_images_in_it_as_in_the_drawn_source(written: Path) -> None:
    """Same classes, words, labels and order, so that shards made of either agree image by image."""
    found, drawn = open_source(written), drawn_source(SETTINGS)
    assert found.kind == "ilsvrc2012-archives"
    assert found.classes == drawn.classes
    for split in ("train", "val"):
        pairs = [[(m.label, Path(m.name).stem) for m in source.members[split]] for source in (found, drawn)]
        assert pairs[0] == pairs[1]


def test_workers_and_parts_of_an_earlier_call_do_not_change_a_byte(written: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(drawn: int, _: int) -> None:
        if drawn > 16:  # two workers are on parts of eight: one of them has finished its first
            raise StopError

    with pytest.raises(StopError):
        write_archives(tmp_path, SETTINGS, VERSIONS, workers=2, on_progress=stop)
    assert not (tmp_path / "synth.json").exists()
    resumed = []
    write_archives(tmp_path, SETTINGS, VERSIONS, workers=2, on_progress=lambda *counts: resumed.append(counts))
    assert resumed[0][1] > 0, "what was whole was drawn again"
    assert resumed[-1][0] + resumed[-1][1] == 31
    assert digests(tmp_path) == digests(written)


def test_a_call_killed_at_any_step_of_the_joining_leaves_what_the_next_can_use(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is renamed into place or deleted; each of those steps is once the first that does not happen."""
    monkeypatch.setattr(archives, "Workers", InThisProcess)
    for victim, steps in (("rename", 13), ("unlink", 4)):
        for step in range(1, steps + 1):
            root = tmp_path / f"{victim}-{step}"
            root.mkdir()
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace" if victim == "rename" else "unlink", failing(victim, step))
                with pytest.raises(Killed):
                    write_archives(root, SETTINGS, VERSIONS, workers=1)
            write_archives(root, SETTINGS, VERSIONS, workers=1)
            assert digests(root) == digests(written), (victim, step)


class Killed(BaseException):
    pass


def failing(victim: str, step: int):  # type: ignore[no-untyped-def]
    """Return a Path.replace or Path.unlink of which the call number `step` never happens."""
    ordinary = Path.replace if victim == "rename" else Path.unlink
    calls = 0

    def method(self: Path, *arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed
        return ordinary(self, *arguments, **options)  # type: ignore[arg-type]

    return method


class InThisProcess:
    """Stand for `Workers`, without processes."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, waiting: list[Part], on_part) -> None:  # type: ignore[no-untyped-def]
        for part in waiting:
            if not part.path.exists():
                part.write(lambda: None)
            on_part(part)


def test_validation_pictures_come_in_parts_of_which_the_last_is_short(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "Workers", InThisProcess)
    monkeypatch.setattr(parts, "VAL_PART_IMAGES", 3)
    write_archives(tmp_path, SETTINGS, VERSIONS, workers=1)
    assert digests(tmp_path) == digests(written)


def test_without_validation_pictures_there_is_no_archive_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "Workers", InThisProcess)
    write_archives(tmp_path, SynthSettings(classes=2, images=4, val_images=0), VERSIONS, workers=1)
    assert not (tmp_path / "ILSVRC2012_img_val.tar").exists()
    assert [len(open_source(tmp_path).members[split]) for split in ("train", "val")] == [4, 0]


def test_a_tar_ends_as_the_standard_library_ends_one() -> None:
    for images in range(25):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for k in range(images):
                tar.addfile(tarfile.TarInfo(f"{k}"))
        assert len(buffer.getvalue()) == 512 * images + len(end_of_tar(512 * images))


def test_the_same_set_is_left_alone_and_another_refused(written: Path, tmp_path: Path) -> None:
    before = digests(written)
    assert not write_archives(written, SETTINGS, {"alexnet": "1"}, workers=1)
    other = SynthSettings(classes=3, images=23, val_images=8, seed=5)
    with pytest.raises(
        InputError, match=r"another set \(seed 4 there, 5 asked for\); give another DIR, or --overwrite"
    ):
        write_archives(written, other, VERSIONS, workers=1)
    assert digests(written) == before


def test_overwrite_deletes_a_drawn_set_and_nothing_else(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "Workers", InThisProcess)
    root = tmp_path / "set"
    shutil.copytree(written, root)
    (root / "thesis.tex").write_text("years of work")
    other = SynthSettings(classes=3, images=3, val_images=0, seed=5)
    with pytest.raises(InputError, match=r"holds thesis\.tex, not drawn by synth, so nothing was deleted"):
        write_archives(root, other, VERSIONS, workers=1, overwrite=True)
    assert digests(written).items() < digests(root).items()
    (root / "thesis.tex").unlink()
    write_archives(root, other, VERSIONS, workers=1, overwrite=True)
    assert not (root / "ILSVRC2012_img_val.tar").exists()
    assert len(open_source(root).members["train"]) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_archives_that_were_not_drawn_are_never_touched(official: Path, tmp_path: Path, overwrite: bool) -> None:
    root = tmp_path / "ilsvrc"
    shutil.copytree(official, root)
    with pytest.raises(InputError, match="not drawn by synth"):
        write_archives(root, SETTINGS, VERSIONS, workers=1, overwrite=overwrite)
    assert digests(root) == digests(official)


def test_a_set_that_would_pass_for_imagenet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"val_images=50000: .* taken for ILSVRC-2012"):
        write_archives(tmp_path, SynthSettings(val_images=50_000), VERSIONS, workers=1)


def test_a_set_that_does_not_fit_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    with pytest.raises(InputError, match=r"about 13\.1 GB are needed and 3\.0 GB are free; make room"):
        write_archives(tmp_path, SynthSettings(), VERSIONS, workers=1)
    assert not list(tmp_path.glob("*.tar"))


def test_overwrite_deletes_nothing_where_the_new_set_would_not_fit(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    shutil.copytree(written, root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    with pytest.raises(InputError, match=r"13\.1 GB are needed"):
        write_archives(root, SynthSettings(), VERSIONS, workers=1, overwrite=True)
    assert digests(root) == digests(written)
