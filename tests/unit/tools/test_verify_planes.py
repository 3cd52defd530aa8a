"""`verify` looks into planes as it does into JPEGs, and compares them with the JPEGs that they were decoded from."""

import io
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import available
from alexnet.shards.manifest import StoredSettings
from alexnet.shards.reader import SplitReader
from alexnet.tools.stored_planes import decode_planes
from tests.conftest import encode_picture, prep
from tests.planes import planes_of, write_planes_set
from tests.unit.shards.forging import TAR, Forge, edit_field, edit_row, edit_tar, members, reseal, set_field

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.usefixtures("no_workers"),
]


@pytest.fixture(scope="module")
def sound(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planes_set(data_set, tmp_path_factory.mktemp("sound") / "planes")


@pytest.fixture
def planes(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "planes"))


def test_the_lines_in_the_docs_give_the_pixels_too(ci_100: Path) -> None:
    text = (ci_100.parents[1] / "docs" / "format.md").read_text()
    (code,) = [block for block in text.split("\n\n") if block.startswith("    def doubled")]
    names: dict[str, Any] = {"np": np}
    exec(textwrap.dedent(code), names)
    jpeg = SplitReader(ci_100, "train").stored(3)
    pixels = names["rgb"](planes_of(jpeg, 256).tobytes(), 256)
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(jpeg.tobytes()))))


@pytest.mark.parametrize("quality", [5, 50, 90, 100])
def test_steps_are_those_that_the_encoder_rounds_to(quality: int) -> None:
    image = Image.open(io.BytesIO(encode_picture(1, 40, 40, quality=quality)))
    tables = image.quantization  # type: ignore[attr-defined]
    for channels, wanted in ((3, max(table[0] for table in tables.values())), (1, tables[0][0])):
        stored = StoredSettings(size_px=2, quality=quality, shard_images=1, channels=channels, encoding="planes-420")  # type: ignore[arg-type]
        assert decode_planes(bytes([9, 9, 9, 9, 128, 128]), stored)[1] == wanted


def test_grey_planes_hold_no_colour() -> None:
    stored = StoredSettings(size_px=2, quality=90, shard_images=1, channels=1, encoding="planes-420")
    assert decode_planes(bytes([1, 2, 3, 4, 128, 128]), stored)[0].tolist() == [[[1], [2]], [[3], [4]]]
    with pytest.raises(ValueError, match="holds a colour, where settings"):
        decode_planes(bytes([1, 2, 3, 4, 128, 127]), stored)


def test_deep_looks_at_the_pixels(planes: Path) -> None:
    assert "31 images decoded: all is well" in prep("verify", "--deep", planes).output
    for tar in ("train/000000.tar", "train/000001.tar", "train/000002.tar"):
        edit_tar(lambda m: [(n, bytes(255 - b for b in d) if n.endswith("yuv") else d) for n, d in m], tar)(planes)
    reseal(planes)
    prep("verify", planes)
    assert "says colour.mean" in prep("verify", "--deep", planes, code=1).output


@pytest.mark.parametrize("options", [(), ("--split", "val"), ("--classes", "names")])
def test_what_was_decoded_is_what_the_jpegs_give(data_set: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "names").write_text("n00000003\nn00000001\n")
    given = [tmp_path / "names" if option == "names" else option for option in options]
    out = tmp_path / "out"
    prep("decode", data_set, "--out", out, *given)
    assert f"compared with {data_set}: all is well" in prep("verify", out, "--against", data_set).output
    edit_tar(first_image(lambda d: bytes([d[0] ^ 1]) + d[1:]), "val/000000.tar")(out)
    reseal(out)
    prep("verify", out)
    told = prep("verify", out, "--against", data_set, code=1).output
    key = members(out, "val/000000.tar")[0][0].removesuffix(".yuv")
    assert f"val/000000.tar, sample {key}: 1 bytes are not what its JPEG decodes to" in told
    assert f"compared with {data_set}: 1 finding" in told
    (out / "index.npy").unlink()
    assert "compared with" not in prep("verify", out, "--against", data_set, code=1).output


def first_image(change: Callable[[bytes], bytes]) -> Callable[..., object]:
    return lambda m: [(m[0][0], change(m[0][1])), *m[1:]]


def relabel(root: Path) -> None:
    label = SplitReader(root, "train").labels[0]
    edit_tar(lambda m: [m[0], (m[1][0], b"%d" % ((label + 1) % 3)), *m[2:]])(root)
    edit_row("label", 0, lambda _: (label + 1) % 3)(root)


def rename(root: Path) -> None:
    edit_tar(lambda m: [(n[:9] + "X" + n[10:], d) if n[:8] == m[0][0][:8] else (n, d) for n, d in m])(root)
    idx = (root / TAR).with_suffix(".idx")
    name = members(root)[0][0][:8]
    idx.write_text("".join(line.replace(f"{name}_n", f"{name}_X") for line in idx.read_text().splitlines(True)))


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (relabel, "its label is "),
        (rename, "by the JPEGs"),
        (edit_field("classes", 0, "words", change=lambda _: "duck"), "its classes are not what they are by the JPEGs"),
        (set_field("versions", "pillow", to="9"), "its versions are not what they are by the JPEGs"),
        (edit_field("colour", "mean", 0, change=lambda mean: mean + 1e-6), "its colour are not what they are"),
    ],
)
def test_what_the_jpegs_say_otherwise_is_found(data_set: Path, planes: Path, forge: Forge, problem: str) -> None:
    forge(planes)
    reseal(planes)
    prep("verify", planes)
    assert problem in prep("verify", planes, "--against", data_set, code=1).output


def test_only_the_jpegs_behind_planes_are_compared(data_set: Path, images_32: Path, planes: Path) -> None:
    assert "holds JPEGs; leave it out" in prep("verify", data_set, "--against", data_set, code=2).output
    assert f"is not what {planes} was decoded from" in prep("verify", planes, "--against", images_32, code=2).output
    edit_field("source", change=lambda source: {**source, "classes": "some"})(planes)
    edit_field("classes", 0, "wnid", change=lambda _: "n9")(planes)
    reseal(planes)
    assert "the JPEGs have no class 'n9'" in prep("verify", planes, "--against", data_set, code=2).output


def test_what_needs_the_host_decoder_says_so(
    data_set: Path, planes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.tools.decode.plan.available", lambda: "it was not built")
    for command in (("decode", data_set, "--out", tmp_path / "out"), ("verify", planes, "--against", data_set)):
        told = prep(*command, code=2).output
        assert "Error: decoding to planes: needs the host decoder, and it was not built" in told
    assert not (tmp_path / "out").exists()
