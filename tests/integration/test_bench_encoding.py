"""`alexnet-bench encoding`: each way to encode beside the default, on the same squares."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.pipeline.host import available
from alexnet.tools.bench.command import main
from alexnet.tools.bench.converter.encoding import CUT, ENCODINGS
from alexnet.tools.bench.converter.generated import write_pictures
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.samples.small_sets import write_mnist

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no host decoder: {available()}")


def test_each_way_beside_the_default(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 6)
    arguments = ["encoding", str(tmp_path / "pictures"), "--rounds", "2", "--json", str(tmp_path / "encoding.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "encoding.json").read_text())
    assert report["conditions"]["images"] == 6
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [*(way.name for way in ENCODINGS), *CUT]
    default = rows["default"]
    assert default["options"] == {"quality": ConvertSettings().quality, "subsampling": "4:2:0"}
    assert default["ratio"] == default["whole_ratio"] == default["encode_seconds_ratio"] == 1
    for name, row in rows.items():
        assert (row["whole_images_per_s"] is None) == (name in CUT)
        assert 0 < row["images_per_s"]["min"] <= row["images_per_s"]["median"] <= row["images_per_s"]["max"]
    # Lossless choices change bytes and no pixel; quality and chroma change both, in a known direction.
    for lossless in ("optimised Huffman tables", "a restart marker each MCU row", "progressive"):
        assert rows[lossless]["psnr_db"] == default["psnr_db"]
    assert rows["optimised Huffman tables"]["bytes_per_image"] < default["bytes_per_image"]
    assert rows["quality 85"]["psnr_db"] < default["psnr_db"] < rows["quality 95"]["psnr_db"]
    assert default["psnr_db"] < rows["4:4:4"]["psnr_db"]


def test_raw_pixels_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, 5, 2)
    result = CliRunner().invoke(main, ["encoding", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds raw pixels" in result.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to offer")
def test_a_full_disk_costs_the_file_and_no_figure(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 4)
    result = CliRunner().invoke(main, ["encoding", str(tmp_path / "pictures"), "--rounds", "1", "--json", "/dev/full"])
    assert result.exit_code == 1
    assert "4:4:4" in result.output
    assert "Error: /dev/full: cannot be written (No space left on device)" in result.output
