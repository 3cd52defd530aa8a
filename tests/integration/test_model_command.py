"""`alexnet-model`, as a user types it."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from alexnet import __version__
from alexnet.model.networks.catalogue import DRAWINGS
from alexnet.tools.model import main as model


def show(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(model, ["show", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_show_prints_the_papers_network_in_plain_columns() -> None:
    lines = show("alexnet-2012").splitlines()
    assert lines[2].split() == ["layer", "reads", "output", "parameters", "neurons", "multiply-adds"]
    rows = [line.split() for line in lines[3:]]
    assert rows[0] == ["conv1", "conv", "11x11/4", "image", "55x55x96", "34,944", "290,400", "105,415,200"]
    assert rows[-1] == ["total", "60,965,224", "659,272", "724,406,816"]
    assert len({len(line) for line in lines[3:]}) == 1, "numbers end in one column"


@pytest.mark.parametrize("arch", DRAWINGS)
def test_show_knows_every_network(arch: str) -> None:
    assert show(arch).startswith(f"{arch}: ")


def test_show_counts_for_other_images_and_classes() -> None:
    assert "57,029,322" in show("alexnet-owt", "--size", 63, "--channels", 1, "--classes", 10)


def test_version() -> None:
    assert CliRunner().invoke(model, ["--version"]).output == f"alexnet-model, version {__version__}\n"


def test_mistakes() -> None:
    assert "did you mean lenet-5?" in show("lenet5", code=2)
    assert "Error: images of 62 px: alexnet-owt takes 63 px or more" in show("alexnet-owt", "--size", 62, code=2)


def test_help_lists_the_networks_and_loads_neither_torch_nor_dali() -> None:
    code = """
import sys
from click.testing import CliRunner
from alexnet.tools.model import main
for arguments in (["--help"], ["show", "--help"], ["show", "alexnet-2012"]):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    print(result.output)
assert not {"torch", "nvidia.dali"} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "alexnet-model show alexnet-2012" in run.stdout
    assert "lenet-5" in run.stdout
