"""Which rows `alexnet-bench model` and `train` have: each network, layout, precision and batch that was asked for.

A row names a stage of `net_stages` by kind and options. Nothing heavy is loaded here.
"""

import itertools
from collections.abc import Iterable
from typing import Any

from alexnet.model.networks.settings import architecture_named
from alexnet.tools.bench.measuring.row import Row

NAIVE_ARCH = "alexnet-2012"
_SMALL_PX, _SMALL_CLASSES, _CLASSES = 64, 10, 1000


def network_options(
    arch: str, precision: str, batch_images: int, gpus: int = 1, parallel: str = "towers"
) -> dict[str, Any]:
    """Return the options of a row that trains a network; made-up batches have as many classes as its data set."""
    drawing = architecture_named(arch)
    classes = _SMALL_CLASSES if drawing.input_px[0] < _SMALL_PX else _CLASSES
    return {
        "arch": arch,
        "precision": precision,
        "batch_images": batch_images,
        "gpus": gpus,
        "parallel": parallel if drawing.towers > 1 or parallel == "owt" else "data",
        "classes": classes,
        "px": drawing.input_px[0],
    }


def network_rows(
    archs: Iterable[str],
    precisions: Iterable[str],
    batches: Iterable[int],
    gpus: Iterable[int],
    parallel: Iterable[str],
) -> list[Row]:
    """Return a row for each combination; how a network is divided says nothing where there is one process."""
    rows: dict[str, Row] = {}
    for arch, batch, precision, count, how in itertools.product(archs, batches, precisions, gpus, parallel):
        options = network_options(arch, precision, batch, count, how if count > 1 else "towers")
        name = name_of(options)
        rows[name] = Row(name=name, title=title_of(options), group="row", kind="network", options=options)
    return list(rows.values())


def captured_rows(rows: Iterable[Row]) -> list[Row]:
    """Return, for rows of one process, the same with forward and backward as one CUDA graph."""
    options = [{**row.options, "capture": True} for row in rows if row.options["gpus"] == 1]
    return [Row(name=name_of(o), title=title_of(o), group="row", kind="network", options=o) for o in options]


def naive_rows(archs: Iterable[str], batches: Iterable[int]) -> list[Row]:
    """Return the naive version in each batch, if its network is measured."""
    if NAIVE_ARCH not in archs:
        return []
    return [
        Row(
            name=f"naive-b{batch}",
            title=f"naive {NAIVE_ARCH}, fp32, batch {batch}",
            group="peer",
            kind="naive",
            options=network_options(NAIVE_ARCH, "fp32", batch),
        )
        for batch in batches
    ]


def limit_rows(precisions: Iterable[str]) -> list[Row]:
    """Return the rates of the machine: of arithmetic in each precision, and of memory."""
    rows = [
        Row(
            name=f"matmul-{precision}",
            title=f"matrix product, {precision}",
            group="limit",
            kind="matmul",
            options={"precision": precision},
        )
        for precision in precisions
    ]
    return [*rows, Row(name="copy", title="memory copy", group="limit", kind="copy")]


def layer_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that measure the layers of networks one by one, for rows of one process."""
    return [
        Row(
            name=f"layers-{row.name}",
            title=f"layers of {row.title}, each in every way",
            group="part",
            kind="layers",
            options=row.options,
        )
        for row in rows
        if row.options["gpus"] == 1
    ]


def name_of(options: dict[str, Any]) -> str:
    """Name a network's row."""
    layout = "" if options["gpus"] == 1 else f"-{options['parallel']}{options['gpus']}"
    return f"{options['arch']}-{options['precision']}-b{options['batch_images']}{layout}{_graph(options, '-graph')}"


def title_of(options: dict[str, Any]) -> str:
    """Describe a network's row."""
    layout = "" if options["gpus"] == 1 else f", {options['gpus']} processes ({options['parallel']})"
    graph = _graph(options, ", one CUDA graph")
    return f"{options['arch']}, {options['precision']}, batch {options['batch_images']}{layout}{graph}"


def _graph(options: dict[str, Any], words: str) -> str:
    return words if options.get("capture") else ""
