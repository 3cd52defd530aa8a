"""Print what `alexnet-bench model` and `train` measured, for people."""

from typing import Any

import click
from rich import box
from rich.table import Table

from alexnet.tools.bench.measuring.console import console

_CAPTION = (
    "all cores: images/s by CPU time, as if all cores were busy. comm.: communication, part of forward and backward, "
    "measured by itself, ms. arith., layers: shares of the two rooflines; best: of the sum of each layer's fastest way"
)
_TERA, _GIGA = 1e12, 1e9


def print_model(report: dict[str, Any]) -> None:
    """Print conditions, limits, rows, ratios and the verdict."""
    print_machine(report["conditions"])
    for limit in report["limits"]:
        click.echo(f"{limit['title']}: {machine_rate(limit)}; {limit['settings']}")
    console().print(network_table(report))
    print_missing(report)
    for one in report["layers"]:
        console().print(_layers(one))
    if report["ratios"]:
        console().print(ratio_table(report["ratios"]))
    if not report["complete"]:
        click.echo("interrupted: these are the rounds up to then")
    click.echo(report["verdict"])


def print_machine(c: dict[str, Any]) -> None:
    """Print the conditions that every run has."""
    machine, load = c["machine"], c["load"]
    click.echo(f"CPU: {machine['cpu']}, {c['cores']} cores, governor {c['governor']}; {machine['system']}")
    gpu = machine["gpu"]
    click.echo(f"GPU: {gpu['name']}, driver {gpu['driver']}" if gpu else machine["gpu_why"])
    loads = f"{load['before']:.2f} before, {load['after']:.2f} after; others before: {load['foreign_before']:.0%}"
    click.echo(f"load: {loads}")
    click.echo("versions: " + ", ".join(f"{name} {number}" for name, number in machine["versions"].items()))
    click.echo(
        f"{c['device']}, {c['threads']} threads on {c['cores']} cores; {c['rounds']} interleaved rounds of "
        f"{c['seconds']:g} s, each row in a process of its own"
    )


def machine_rate(limit: dict[str, Any]) -> str:
    """Say a machine's rate in words."""
    scale, unit = (_TERA, "TFLOP/s") if limit["unit"] == "flop" else (_GIGA, "GB/s")
    wall, cpu = (limit[key] for key in ("per_s", "per_s_all_cores_busy"))
    return (
        f"{wall['median'] / scale:,.2f} {unit} ({wall['min'] / scale:,.2f}-{wall['max'] / scale:,.2f}), all cores busy "
        f"{cpu['median'] / scale:,.2f}"
    )


def network_table(report: dict[str, Any]) -> Table:
    """Return the table of networks, parts of a step in milliseconds."""
    heads = ("images/s", "min-max", "all cores", "step = forward+backward+update+rest, ms", "comm.", "arith.")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_CAPTION, caption_justify="left")
    table.add_column("", no_wrap=True)
    for head in (*heads, "layers", "best", "peak MB"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in (*report["rows"], *report["peers"]):
        table.add_row(*_cells(row))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    rate, busy, parts = row["images_per_s"], row["images_per_s_all_cores_busy"], row["parts_ms"]
    share = row["share_of_limit"]
    spans = "+".join(f"{parts[name]:,.1f}" for name in ("forward", "backward", "update", "rest")) if parts else ""
    return [
        row["title"],
        f"{rate['median']:,.1f}",
        f"{rate['min']:,.1f}-{rate['max']:,.1f}",
        f"{busy['median']:,.1f}",
        f"{row['step_ms']['median']:,.1f}{' = ' * bool(spans)}{spans}",
        f"{parts['communication']:,.1f}" if parts and parts["communication"] is not None else "",
        *("" if share[name] is None else f"{share[name]:.0%}" for name in ("arithmetic", "layers", "best_kernels")),
        f"{row['memory_mb']['peak']:,.0f}",
        f"others {row['foreign_load']:.0%}" if row["disturbed"] else "",
    ]


def print_missing(report: dict[str, Any]) -> None:
    """Say what was not measured and why."""
    for one in report["missing"]:
        click.echo(f"not measured: {one['title']}: {one['why']}")


def ratio_table(ratios: list[dict[str, Any]]) -> Table:
    """Return the table of ratios, with what is asked of them."""
    table = Table("ratio, round by round", "by wall time", "by CPU time", "at least", "")
    for r in ratios:
        figures = [f"{r[k]['median']:.2f} ({r[k]['min']:.2f}-{r[k]['max']:.2f})" for k in ("wall", "cpu")]
        asked = "" if r["at_least"] is None else f"{r['at_least']:.2f}"
        verdict = "" if r["at_least"] is None else f"{'holds' if r['holds'] else 'FAILS'} by {r['by']}"
        table.add_row(r["about"], *figures, asked, verdict)
    return table


def _layers(one: dict[str, Any]) -> Table:
    table = Table(f"layers of {one['row']}, forward and backward: {one['sum_ms']:,.1f} ms", "ms", "others, ms")
    for layer in one["layers"]:
        (best, took), *others = layer["ways_ms"].items()
        rest = "; ".join(f"{way} {ms:,.2f}" for way, ms in others)
        table.add_row(f"{layer['layer']}: {best}", f"{took:,.2f}", rest)
    return table
