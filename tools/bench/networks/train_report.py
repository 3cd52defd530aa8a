"""Turn measured rounds into the report of `alexnet-bench train`, and say where the images went."""

import statistics
from typing import Any

import click

from alexnet.tools.bench.guards import Guard, ratio_of
from alexnet.tools.bench.measuring.console import console
from alexnet.tools.bench.measuring.report_rows import missing_rows, row_of
from alexnet.tools.bench.measuring.rounds import Measured
from alexnet.tools.bench.networks.model_report import network_row
from alexnet.tools.bench.networks.model_table import network_table, print_machine, print_missing, ratio_table
from alexnet.tools.bench.schema import SCHEMA
from alexnet.tools.console import tell

_SMALL = 0.03  # of a rate: what is less was not measured


def train_report_of(measured: list[Measured], conditions: dict[str, Any], *, complete: bool) -> dict[str, Any]:
    """Return the report of a run; `complete` is False for one that was interrupted."""
    done = [one for one in measured if one.rounds]
    rows = [_train_row(one, conditions) for one in done if one.row.kind == "network"]
    loader = [row_of(one, min(conditions["threads"], conditions["cores"])) for one in done if one.row.kind == "loader"]
    limits = [*loader, *(row for row in rows if not row["real"])]
    real = [row for row in rows if row["real"]]
    explained = [x for row in real if (x := explain(row, limits, conditions["device"])) is not None]
    return {
        "schema": SCHEMA,
        "command": "train",
        "complete": complete,
        "conditions": conditions,
        "limits": limits,
        "rows": real,
        "peers": [],
        "missing": missing_rows(measured),
        "ratios": _ratios(real, limits, conditions["device"]),
        "explained": explained,
        "verdict": " ".join(x["sentence"] for x in explained) or "No verdict: loader, network or training is missing.",
    }


def _train_row(one: Measured, conditions: dict[str, Any]) -> dict[str, Any]:
    row = network_row(one, conditions)
    waits = [r["more"]["waited_s"] / r["seconds"] for r in one.rounds]
    return row | {"real": bool(one.row.options.get("real")), "data_wait": statistics.median(waits)}


def explain(train: dict[str, Any], limits: list[dict[str, Any]], device: str) -> dict[str, Any] | None:
    """Say how far training is from the slower of loader and network, and why; None if one was not measured.

    On a CPU the two share the cores: an image takes the time of both. By CPU time where others disturbed a row.
    """
    by_name = {row["name"]: row for row in limits}
    loader, model = by_name.get("loader"), by_name.get(f"model-{train['gpus']}")
    if loader is None or model is None:
        return None
    disturbed = device == "cpu" and any(row["disturbed"] for row in (train, loader, model))
    key = "images_per_s_all_cores_busy" if disturbed else "images_per_s"
    t, l, m = (float(row[key]["median"]) for row in (train, loader, model))  # noqa: E741
    slower = min(l, m)
    expected = 1 / (1 / l + 1 / m) if device == "cpu" else slower
    figures = {
        "row": train["name"],
        "by": "cpu" if disturbed else "wall",
        "train": t,
        "loader": l,
        "model": m,
        "slower": slower,
        "expected": expected,
        "real_over_made_up": t / m,
        "data_wait": train["data_wait"],
    }
    return figures | {"sentence": _sentence(figures, train, device)}


def _sentence(x: dict[str, Any], train: dict[str, Any], device: str) -> str:
    bound = "the loader" if x["loader"] < x["model"] else "the network"
    processes = f"{train['gpus']} process{'es' * (train['gpus'] > 1)}"
    begin = (
        f"In {processes}, real data make {x['train']:,.1f} images/s by {x['by']} time, {x['real_over_made_up']:.0%} of "
        f"made-up batches; alone, the loader makes {x['loader']:,.1f} and the network {x['model']:,.1f}, so {bound} "
        f"bounds training at {x['slower']:,.1f}, and training waits for data {x['data_wait']:.0%} of the time."
    )
    short, rest = 1 - x["train"] / x["slower"], 1 - x["train"] / x["expected"]
    if device == "cpu":
        decoding = 1 - x["expected"] / x["slower"]
        begin += f" Both share the cores, and decoding leaves {x['expected']:,.1f}, {decoding:.1%} less"
    if rest <= -_SMALL:
        return (
            f"{begin}; training makes {-rest:.1%} more than that: the rounds differ by more than is to be told apart."
        )
    begin += f"; training stays {short:.1%} below the bound"
    likely = "caches and turns of the scheduler" if device == "cpu" else "copies, and crops finished on the same GPU"
    if rest < _SMALL:
        return f"{begin}, and what remains is less than was measured."
    return f"{begin}, and {rest:.1%} remain for {likely}, which were not measured apart."


def _ratios(real: list[dict[str, Any]], limits: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    by_name = {row["name"]: row for row in limits}
    found = []
    for row in real:
        if (model := by_name.get(f"model-{row['gpus']}")) is not None:
            about = f"real data over made-up batches, {row['gpus']} process{'es' * (row['gpus'] > 1)}"
            guard = Guard(row=row["name"], over=model["name"], at_least=None, about=about)
            found.append(ratio_of(guard, row, model, by_wall=device == "cuda"))
    for row in real[1:]:
        about = f"{real[0]['gpus']} to {row['gpus']} processes"
        guard = Guard(row=row["name"], over=real[0]["name"], at_least=None, about=about)
        found.append(ratio_of(guard, row, real[0], by_wall=device == "cuda"))
    return found


def print_train(report: dict[str, Any]) -> None:
    """Print conditions, rows, ratios, and where the images went."""
    c = report["conditions"]
    tell(f"data: {c['data']} ({c['why']}), {c['images']:,} images of {c['bytes_per_image']:,} bytes")
    print_machine(c)
    for row in report["limits"]:
        if row["name"] == "loader":
            rate, busy = row["images_per_s"], row["images_per_s_all_cores_busy"]
            spread = f"{rate['min']:,.0f}-{rate['max']:,.0f}"
            others = f"; others {row['foreign_load']:.0%}" if row["disturbed"] else ""
            click.echo(
                f"the stream alone: {rate['median']:,.0f} images/s ({spread}), all cores {busy['median']:,.0f}{others}"
            )
    networks = [row for row in report["limits"] if row["name"] != "loader"]
    console().print(network_table({"rows": networks, "peers": report["rows"]}))
    if c["repeated"]:
        click.echo(
            "repeated: the data are smaller than eight batches and lie in the CPU's cache; do not quote these rows"
        )
    print_missing(report)
    if report["ratios"]:
        console().print(ratio_table(report["ratios"]))
    if not report["complete"]:
        click.echo("interrupted: these are the rounds up to then")
    click.echo(report["verdict"])
