"""Print what `alexnet-bench dataloader` measured, for people."""

from typing import Any

import click
from rich import box
from rich.table import Table

from alexnet.tools.bench.measuring.console import console
from alexnet.tools.console import tell

_CAPTION = (
    "all cores busy: images/s by CPU time. of its limit: by wall time / by CPU time. others: what they kept busy of "
    "the cores meanwhile, where it was over 5%"
)
_GROUPS = (("limits", "limits"), ("rows", "this pipeline"), ("parts", "parts"), ("peers", "others"))


def print_dataloader(report: dict[str, Any]) -> None:
    """Print conditions, rows, stages, ratios and the verdict."""
    c = report["conditions"]
    _print_conditions(c)
    console().print(_rows(report))
    if c["repeated"]:
        click.echo(
            "repeated: the data is smaller than eight batches and lies in the CPU's cache; do not quote these rows"
        )
    for one in report["missing"]:
        click.echo(f"not measured: {one['title']}: {one['why']}")
    for row in report["peers"]:
        versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        click.echo(f"{row['title']}: {versions}; {row['settings']}")
    if report["stages"]:
        console().print(_stages(report["stages"]))
    if report["ratios"]:
        console().print(_ratios(report["ratios"]))
    if not report["complete"]:
        click.echo("interrupted: these are the rounds up to then")
    click.echo(report["verdict"])


def _print_conditions(c: dict[str, Any]) -> None:
    machine = c["machine"]
    cached = "not known" if c["cached"] is None else f"{c['cached']:.0%}"
    tell(f"data: {c['data']} ({c['why']}), {c['split']}, {c['images']:,} images of {c['bytes_per_image']:,} bytes")
    click.echo(f"      manifest {c['manifest'][:16]}, in the system's cache: {cached}")
    click.echo(f"CPU: {machine['cpu']}, {c['cores']} cores, governor {c['governor']}; {machine['system']}")
    if c["device"] == "cuda" and machine["gpu"]:
        click.echo(f"GPU: {machine['gpu']['name']}, driver {machine['gpu']['driver']}")
    load = c["load"]
    click.echo(
        f"load: {load['before']:.2f} before, {load['after']:.2f} after; others before: {load['foreign_before']:.0%}"
    )
    click.echo("versions: " + ", ".join(f"{name} {number}" for name, number in machine["versions"].items()))
    click.echo(
        f"{c['device']}, {c['threads']} threads on {c['cores']} cores, batches of {c['batch_images']}; "
        f"{c['rounds']} interleaved rounds of {c['seconds']:g} s, each row in a process of its own"
    )


def _rows(report: dict[str, Any]) -> Table:
    heads = ("images/s", "min-max", "all cores busy", "MB/s", "CPU s/1,000", "cores", "of its limit", "peak MB")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_CAPTION, caption_justify="left")
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for group, title in _GROUPS:
        if report[group]:
            table.add_section()
            table.add_row(f"[bold]{title}")
        for row in report[group]:
            table.add_row(*_cells(row, repeated=report["conditions"]["repeated"]))
    return table


def _cells(row: dict[str, Any], *, repeated: bool) -> list[str]:
    rate, busy, cost = row["images_per_s"], row["images_per_s_all_cores_busy"], row["cpu_s_per_1000_images"]
    by_cpu = "" if row["gpu"] else f"{busy['median']:,.0f}"
    of_images = [f"{rate['median']:,.0f}", f"{rate['min']:,.0f}-{rate['max']:,.0f}", by_cpu]
    marks = (["repeated"] if repeated else []) + ([f"others {row['foreign_load']:.0%}"] if row["disturbed"] else [])
    marks += [f"{_words(what)} {busy:.0f}%" for what, busy in row["gpu"].items()]
    return [
        row["title"],
        *(of_images if cost is not None else ["", "", ""]),
        f"{row['mb_per_s']:,.1f}",
        "" if cost is None else f"{cost:.3f}",
        f"{row['cores_busy']:.2f}",
        _share(row["share_of_limit"]),
        f"{row['memory_mb']['peak']:,.0f}",
        ", ".join(marks),
    ]


def _words(busy: str) -> str:
    return busy.removesuffix("_busy_percent").replace("_", " ")


def _share(share: dict[str, float | None] | None) -> str:
    if share is None:
        return ""
    return " / ".join(f"{value:.0%}" for value in (share["wall"], share["cpu"]) if value is not None)


def _stages(stages: list[dict[str, Any]]) -> Table:
    whole = sum(stage["cpu_us"] for stage in stages)
    table = Table(f"stream to float32: {whole:,.0f} us of CPU an image", "us", "+-", "share", "measured as")
    for s in stages:
        table.add_row(s["name"], f"{s['cpu_us']:,.0f}", f"{s['plus_minus_us']:,.0f}", f"{s['share']:.0%}", s["how"])
    return table


def _ratios(ratios: list[dict[str, Any]]) -> Table:
    table = Table("ratio, round by round", "by wall time", "by CPU time", "at least", "")
    for r in ratios:
        figures = [f"{r[k]['median']:.2f} ({r[k]['min']:.2f}-{r[k]['max']:.2f})" for k in ("wall", "cpu")]
        wanted = "" if r["at_least"] is None else f"{r['at_least']:.2f}"
        table.add_row(r["about"], *figures, wanted, f"{'holds' if r['holds'] else 'FAILS'} by {r['by']}" * bool(wanted))
    return table
