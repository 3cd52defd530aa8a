"""What only pixels say: `verify` with a decoder finds images of another kind, and colours of other images."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.manifest import read_manifest
from alexnet.shards.verify import verify
from alexnet.tools.stored_jpeg import decode_stored
from tests.unit.shards.forging import TAR, edit_array, edit_field, edit_tar, members, problems, reseal, set_field

MEAN = "mean_image.npy"


def encode(pixels: np.ndarray[Any, Any], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def edit_images(root: Path, change: Callable[[bytes, str], bytes]) -> None:
    """Change every JPEG; `change` is told of its split."""
    for shard in read_manifest(root).shards:

        def changed(contents: Any, split: str = shard.split) -> Any:
            return [(name, change(data, split) if name.endswith("jpg") else data) for name, data in contents]

        edit_tar(changed, shard.file)(root)


@pytest.mark.parametrize(
    ("jpeg", "problem"),
    [
        (b"no image", "is no JPEG"),
        (encode(np.zeros((40, 40, 3), np.uint8))[:-100], "cannot be decoded"),
        (encode(np.zeros((40, 41, 3), np.uint8)), "is 40x41x3 (height, width, channels): must be 40x40x3"),
        (encode(np.zeros((40, 40), np.uint8)), "is 40x40x1 (height, width, channels): must be 40x40x3"),
        (encode(np.zeros((40, 40, 3), np.uint8), progressive=True), "of the kind progressive: must be baseline"),
        (bytes(90_000), "more than any of this size can have"),
    ],
)
def test_deep_finds_images_of_another_kind_by_name(copy: Path, jpeg: bytes, problem: str) -> None:
    edit_tar(lambda m: [(m[0][0], jpeg), *m[1:]])(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    key = members(copy)[0][0].removesuffix(".jpg")
    (found,) = [f for f in report.findings if f.sample == key and f.file == TAR]
    assert problem in found.problem
    assert report.decoded == sum(report.images.values()) - 1
    assert "stored images" not in problems(report)


def exchange_channels(fields: Any) -> dict[str, Any]:
    swapped = {"mean": fields["mean"][::-1], "eigenvectors": [row[::-1] for row in fields["eigenvectors"]]}
    return {**fields, **swapped, "covariance": [row[::-1] for row in fields["covariance"][::-1]]}


def rescale(fields: Any, factor: float) -> dict[str, Any]:
    powers = {"covariance": 2, "eigenvalues": 2, "standard_deviations": 1}
    return {**fields, **{name: (np.array(fields[name]) * factor**power).tolist() for name, power in powers.items()}}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            exchange_channels,
            ["manifest.json: says colour.mean", "mean_image.npy: differs from the stored images' mean"],
        ),
        (lambda fields: rescale(fields, 0.5), ["manifest.json: says colour.standard_deviations"]),
        (lambda fields: rescale(fields, 2.0), ["manifest.json: says colour.standard_deviations"]),
    ],
)
def test_deep_finds_colours_of_other_images(
    ci_100: Path, tmp_path: Path, change: Callable[[Any], Any], found: list[str]
) -> None:
    root = Path(shutil.copytree(ci_100, tmp_path / "set"))
    edit_field("colour", change=change)(root)
    if change is exchange_channels:
        edit_array(MEAN, lambda image: image[:, :, ::-1])(root)
    reseal(root)
    assert verify(root).passed
    told = problems(verify(root, decode=decode_stored))
    assert [part for part in found if part in told] == found


@pytest.mark.parametrize("quality", [100, 50, 5])
def test_deep_allows_for_what_encoding_takes_from_noise(copy: Path, quality: int) -> None:
    """Noise of single pixels is the worst case: halved colour resolution takes half of its colours' spread."""
    rng, sums = np.random.default_rng(0), ColourSums(40)

    def noise(_: bytes, split: str) -> bytes:
        image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        if split == "train":
            sums.add(image)
        return encode(image, quality=quality, subsampling="4:2:0")

    edit_images(copy, noise)
    np.save(copy / MEAN, sums.mean_image())
    set_field("colour", to=dataclasses.asdict(statistics_of(sums)))(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    assert report.decoded == sum(report.images.values())
    assert not [f for f in report.findings if f.file in ("manifest.json", MEAN)], problems(report)


def test_deep_takes_grey_images_where_the_settings_say_so(copy: Path) -> None:
    edit_images(copy, lambda jpeg, _: encode(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))))
    set_field("settings", "channels", to=1)(copy)
    reseal(copy)
    report = verify(copy, decode=decode_stored)
    assert report.decoded == sum(report.images.values())
