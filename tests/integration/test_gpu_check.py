"""The rehearsed command on a machine without a GPU: everything that can be measured, and the rest by name."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GPU_PARTS = {
    "JPEG engine",
    "host to device copy",
    "device memory copy",
    "tests marked gpu",
    "network, batch 128",
    "network, batch 512",
    "network, batch 1024",
}


def gpu_check(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "ALEXNET_DATA"}
    return subprocess.run(
        [sys.executable, "-m", "alexnet.tools.gpu_check", *arguments],
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run the command once; return its output and its JSON."""
    out = tmp_path_factory.mktemp("gpu") / "check"
    done = gpu_check("--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in out.iterdir()] == ["gpu-check.json"]
    return done.stdout, json.loads((out / "gpu-check.json").read_text())


def test_the_json_has_the_promised_shape(checked: tuple[str, dict[str, Any]]) -> None:
    _, result = checked
    assert result.keys() == {"schema", "machine", "rows", "left_out", "tests", "seconds"}
    assert result["schema"] == 1
    assert all(row.keys() == {"name", "value", "unit", "note"} for row in result["rows"])
    assert all(entry.keys() == {"name", "why"} for entry in result["left_out"])
    assert result["tests"] == {"ran": False}
    assert result["machine"]["gpu"] is None
    assert result["machine"]["jpeg_engine"]["engines"] is None


def test_what_a_cpu_can_do_is_measured(checked: tuple[str, dict[str, Any]]) -> None:
    _, result = checked
    rows = {row["name"]: row for row in result["rows"]}
    assert rows.keys() == {
        "host memory copy",
        "bf16 matrix product",
        "decoding alone",
        "network, batch 32",
        "network, batch 32, step",
        "stream",
        "end to end, batch 32",
        "end to end, data wait",
        "end to end / network alone",
    }
    assert all(row["value"] > 0 for row in rows.values() if row["name"] != "end to end, data wait")
    assert 0 <= rows["end to end, data wait"]["value"] <= 100
    assert "batch 100" in rows["stream"]["note"], "100 images hold no batch of 128"
    assert "repeated" in rows["stream"]["note"]


def test_the_parts_that_need_a_gpu_are_left_out_by_name_with_the_reason(checked: tuple[str, dict[str, Any]]) -> None:
    _, result = checked
    assert {entry["name"] for entry in result["left_out"]} == GPU_PARTS
    assert all(entry["why"].startswith("no GPU") for entry in result["left_out"])


def test_the_table_shows_every_row_and_what_was_left_out(checked: tuple[str, dict[str, Any]]) -> None:
    stdout, result = checked
    for row in result["rows"]:
        assert row["name"] in stdout
    for name in GPU_PARTS:
        assert f"left out: {name}: no GPU" in stdout


def test_data_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = gpu_check(str(tmp_path / "nothing"), "--quick", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_section_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path, data_set: Path) -> None:
    done = gpu_check(str(data_set), "--quick", "--out", str(tmp_path))  # 40 px: no window of 224 fits
    assert done.returncode == 1
    result = json.loads((tmp_path / "gpu-check.json").read_text())
    failed = {e["name"]: e["why"] for e in result["left_out"] if not e["why"].startswith("no GPU")}
    assert failed.keys() == {"stream", "end to end"}
    assert all("crop_px=224" in why for why in failed.values())
    assert "decoding alone" in {row["name"] for row in result["rows"]}
