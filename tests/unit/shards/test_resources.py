"""Cores and memory: what a container grants, not what its host has."""

from pathlib import Path

import pytest

from alexnet.shards.resources import available_memory, usable_cores


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/pods/one\n", {"pods/one/cpu.max": "max 100000", "pods/cpu.max": "400000 100000"}, 4),
        (
            "3:cpu,cpuacct:/docker/x\n2:pids:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "800000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("3:cpuset:/\n", {"cpu.max": "100000 100000"}, 64),
        ("", {}, 64),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
    ],
)
def test_a_containers_quota_is_all_the_cores_there_are(
    groups: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "own").write_text(groups)
    for name, text in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text + "\n")
    assert usable_cores(tmp_path / "mount", tmp_path / "own") == cores
    assert usable_cores(tmp_path / "mount", tmp_path / "not there") == 64


def test_memory_is_what_a_container_leaves_with_the_files_that_it_holds(tmp_path: Path) -> None:
    system = available_memory(tmp_path)
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nactive_file 200000\ninactive_file 400000\n")
    for limit, left in (("1000000", 700_000), ("max", system), (str(1 << 60), system)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert available_memory(tmp_path) == pytest.approx(left, rel=0.2), "others may take some meanwhile"
