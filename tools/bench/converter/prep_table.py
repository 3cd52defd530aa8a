"""Print what `alexnet-bench prep` measured."""

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from alexnet.tools.console import tell


def print_prep(report: dict[str, Any]) -> None:
    """Print a table of speeds, one of what a second call costs, and the largest worker."""
    c, bound = report["conditions"], report["bound_images_per_s_a_core"]
    tell(f"{c['source']}: {c['images']:,} images, {c['rounds']} rounds, {c['cores']} cores, Pillow {c['pillow']}")
    table = Table("", "images/s", "min", "max", "share of the bound, a core")
    table.add_row("bound: one core, decode + resize + encode", *_figures(bound), "")
    for row in report["rows"]:
        name = f"alexnet-prep shard, {row['workers']} worker{'s' if row['workers'] > 1 else ''}"
        table.add_row(name, *_figures(row["images_per_s"]), f"{row['share_of_bound_a_core']:.0%}")
    Console().print(table)
    first, last = report["rows"][0], report["rows"][-1]
    if last["workers"] > first["workers"]:
        gain = last["images_per_s"]["median"] / first["images_per_s"]["median"]
        click.echo(f"{first['workers']} to {last['workers']} workers: {gain:.2f}x")
    _print_resume(report["resume"], c["entries"])
    click.echo(f"largest worker: {report['largest_worker_mb']:,.0f} MB")


def _print_resume(resume: dict[str, Any], entries: int) -> None:
    half = f"{resume['done_shards']} of {resume['shards']} shards done"
    table = Table("the same command again, on one worker", "s", "min", "max")
    for name, key in (
        (f"{half}: beyond converting the rest", "resumed_s"),
        (f"  of which listing {entries:,} entries, from the index kept", "index_s"),
        ("complete: all of the call", "complete_s"),
        (f"  of which listing {entries:,} entries, from their headers", "headers_s"),
    ):
        table.add_row(name, *(f"{resume[key][k]:.2f}" for k in ("median", "min", "max")))
    Console().print(table)


def _figures(rate: dict[str, float]) -> list[str]:
    return [f"{rate[k]:,.0f}" for k in ("median", "min", "max")]
