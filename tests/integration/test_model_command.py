"""`alexnet-model`, as a user types it."""

import pytest
from click.testing import CliRunner

from alexnet.model.networks.others import ARCHITECTURES
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


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_show_knows_every_network(arch: str) -> None:
    assert show(arch).startswith(f"{arch}: ")


def test_show_counts_for_other_images_and_classes() -> None:
    assert "57,029,322" in show("alexnet-owt", "--size", 63, "--channels", 1, "--classes", 10)


def test_mistakes() -> None:
    assert "did you mean lenet-5?" in show("lenet5", code=2)
    assert "Error: images of 62 px: alexnet-owt takes 63 px or more" in show("alexnet-owt", "--size", 62, code=2)


def layout(*arguments: object) -> tuple[list[list[str]], str]:
    """Return the table of processes, its cells apart, and the line below it."""
    *lines, last = show("alexnet-2012", *arguments).splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("process"))
    return [line.split("  ") for line in lines[first + 1 :]], last


def test_show_says_who_holds_what() -> None:
    """A pair's parameters are those of the whole network; with owt the fully connected layers are divided."""
    rows, line = layout("--gpus", 4)
    assert [row[0].strip() for row in rows] == ["rank 0", "rank 1", "rank 2", "rank 3"]
    assert [" ".join(row).split()[2:4] for row in rows] == [["tower", "1"], ["tower", "2"]] * 2
    held = [int(row[-1].replace(",", "")) for row in rows]
    assert held[0] + held[1] == held[2] + held[3] == 60_965_224
    assert "64-127" in " ".join(rows[3])
    assert line.startswith("layout: 4 processes over NCCL; ")
    assert "134.6 MB a step" in line  # 7.8 of values and 4.8 of images in a pair, 121.9 of gradients between them

    rows, _ = layout("--gpus", 3, "--parallel", "data", "--batch-images", 9)
    assert all("all 2 towers" in " ".join(row) and row[-1].strip() == "60,965,224" for row in rows)
    assert "6-8" in " ".join(rows[2])

    rows, _ = layout("--gpus", 2, "--parallel", "owt")
    convolutions, full = 2_334_080, 58_631_144
    assert [int(row[-1].replace(",", "")) for row in rows] == [convolutions + full // 2] * 2


def test_layouts_that_cannot_be() -> None:
    assert "must be 1 or a multiple of 2" in show("alexnet-2012", "--gpus", 3, code=2)
    assert "has one tower" in show("lenet-5", "--gpus", 2, code=2)
    assert "must be at least 4, one for each process" in show("alexnet-2012", "--gpus", 4, "--batch-images", 3, code=2)
    assert "give --gpus as well" in show("alexnet-2012", "--parallel", "data", code=2)
