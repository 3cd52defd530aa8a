"""`alexnet-prep show`: one page that needs nothing but itself, and shows what training really sees."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.pipeline import ImageStream
from alexnet.shards.manifest import read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.pages.data_set import survey
from alexnet.tools.stored_jpeg import estimate_quality
from tests.conftest import prep
from tests.sources import write_mnist


class Page(HTMLParser):
    """Read a page strictly: every element is closed where it must be, and nothing is fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        html = path.read_text(encoding="utf-8")
        self.feed(html)
        self.close()
        assert self.open == [], self.open
        assert all(image["src"].startswith("data:image/") and image["alt"] for image in self.images())
        assert not re.search(r"https?:|url\((?!#)|@import|<script|<link|<iframe|srcset", html), "nothing is fetched"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def images(self) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def made(root: Path, out: Path, *options: object) -> Page:
    prep("show", root, "--out", out, *options)
    Image.open(out.with_suffix(".png")).load()
    return Page(out)


def pixels_of(uri: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


@pytest.fixture(scope="module")
def bundled(ci_100: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of two images of the bundled set."""
    return made(ci_100, tmp_path_factory.mktemp("show") / "page.html", "--images", 2)


def test_the_page_of_the_bundled_set(bundled: Page, ci_100: Path) -> None:
    manifest = read_manifest(ci_100)
    for words in ("As training sees them", "Colour", "Classes", "Order on disk", "Files", "Rejected", "Facts"):
        assert words in bundled.text
    for fact in (manifest.digest(), manifest.source["digest"], manifest.versions["pillow"], "None: all 120 images"):
        assert fact in bundled.text
    for record in manifest.classes:
        assert record.words in bundled.text
    assert f"{manifest.colour.standard_deviations[0]:.2f}" in bundled.text
    assert "Images a class: training 10 in each; validation 2 in each." in bundled.text
    assert "100 consecutive training samples hold 10.0 distinct classes on average" in bundled.text
    assert len(bundled.images()) == 2 * 9 + 1
    policy = next(a["content"] for tag, a in bundled.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_the_stored_squares_and_the_crops_are_what_training_sees(bundled: Page, ci_100: Path) -> None:
    pictures = survey(ci_100, 2).images
    reader = SplitReader(ci_100, "train")
    keys = [reader.key(i) for i in range(len(reader))]
    with ImageStream(ci_100 / "train", batch_images=100, seed=0) as stream:
        plans = [stream.plan(epoch, 0) for epoch in range(8)]
        batch, _ = next(iter(stream))
    mean = np.array(reader.manifest.colour.mean, np.float32)
    for k, picture in enumerate(pictures):
        shown = bundled.images()[9 * k : 9 * k + 9]
        sample_id = keys.index(picture.key)
        assert base64.b64decode(shown[0]["src"].split(",")[1]) == reader.stored(sample_id).tobytes()
        for epoch, plan in enumerate(plans):
            row = plan.sample_ids.tolist().index(sample_id)
            (y, x), mirror = plan.crop_yx[row].tolist(), bool(plan.mirror[row])
            assert f"crop at x {x}, y {y}{', mirrored' if mirror else ''};" in shown[1 + epoch]["title"]
            expected = picture.pixels[y : y + 224, x : x + 224][:, :: -1 if mirror else 1] + plan.colour_offset[row]
            difference = pixels_of(shown[1 + epoch]["src"]) - np.clip(expected, 0, 255)
            assert np.sqrt(np.mean(difference**2)) < 8  # JPEG's doing; a crop one pixel off is at 20 or more
        row = plans[0].sample_ids.tolist().index(sample_id)
        seen = np.clip(np.rint(batch[row].permute(1, 2, 0).numpy() + mean), 0, 255)
        assert np.abs(seen - picture.crops[0].pixels).max() <= 1


def test_small_squares_rejects_and_more_images_than_there_are_and_the_same_bytes_every_time(
    data_set: Path, tmp_path: Path
) -> None:
    page = made(data_set, tmp_path / "a.html", "--images", 500)
    shapes = [pixels_of(image["src"]).shape for image in page.images()]
    assert shapes[:9] == [(40, 40, 3), *[(35, 35, 3)] * 8]  # 224 of 256, in 40
    assert len(shapes) == 24 * 9 + 1
    rejects = [json.loads(line) for line in (data_set / "rejected.jsonl").read_text().splitlines()]
    assert f"{len(rejects)} of 34 images of the source could not be decoded" in page.text
    for reject in rejects:
        assert reject["member"] in page.text
        assert reject["reason"] in page.text
    command = [sys.executable, "-c", "from alexnet.tools.show import show; show()", str(data_set), "--images", "500"]
    subprocess.run([*command, "--out", str(tmp_path / "b.html")], check=True, capture_output=True)
    for suffix in ("html", "png"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_grey_images_have_one_axis_and_no_cloud(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", 40, 10)
    build(open_source(tmp_path / "mnist"), tmp_path / "set", ConvertSettings(size_px=28, shard_images=20))
    page = made(tmp_path / "set", tmp_path / "grey.html", "--images", 2)
    assert "The images are grey" in page.text
    assert not [tag for tag, _ in page.tags if tag == "circle"]
    assert pixels_of(page.images()[1]["src"]).shape == (24, 24, 3)


def test_damaged_data_end_in_one_line(data_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    tar, data = root / "train" / "000000.tar", (root / "train" / "000000.tar").read_bytes()
    tar.write_bytes(data[:512] + bytes(20) + data[532:])
    said = prep("show", root, "--out", tmp_path / "page.html", code=2).stderr
    assert "train/000000.tar: the image of sample 0 is no JPEG; " in said
    tar.write_bytes(data)
    for name in ("rejected.jsonl", "mean_image.npy"):
        (root / name).unlink()
        assert f"{name}: cannot be read" in prep("show", root, "--out", tmp_path / "page.html", code=2).stderr
        shutil.copy(data_set / name, root / name)


@pytest.mark.parametrize("quality", [1, 30, 75, 90, 100])
def test_quality_is_read_off_the_tables(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    tables = Image.open(buffer).quantization  # type: ignore[attr-defined]
    assert estimate_quality(tables[0]) == quality


def test_many_classes_are_drawn_as_a_curve_and_may_be_called_anything_and_the_page_goes_to_the_current_folder(
    ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, name = Path(shutil.copytree(ci_100, tmp_path / "many")), """</style><script>alert("&amp;'")</script> \u732b"""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fields = json.loads((root / "manifest.json").read_text())
    few = [{**fields["classes"][0], "words": name}, *fields["classes"][1:]]
    for classes in (few, [{"wnid": f"n{i:08d}", "words": f"kind {i}"} for i in range(1000)]):
        (root / "manifest.json").write_text(json.dumps({**fields, "classes": classes}))
        prep("show", root, "--images", 1)
        assert sorted(path.name for path in Path().iterdir()) == ["many.html", "many.png"]
        page = Page(Path("many.html"))
        assert "script" not in {tag for tag, _ in page.tags}
        assert (name in page.text) == (classes is few)
    assert "fewest images" in page.text
    assert "kind 999" not in page.text  # not one of the six with the fewest
    assert "classes, in falling order of images" in page.text
