"""Print what `alexnet-bench encoding` measured."""

from typing import Any

import click
from rich.console import Console
from rich.table import Table


def print_encoding(report: dict[str, Any]) -> None:
    """Print a line for each way to encode, beside the default."""
    c = report["conditions"]
    click.echo(
        f"{c['source']}: {c['images']:,} images of {c['size_px']} px, windows of {c['crop_px']} px, one thread by CPU "
        f"time, {c['rounds']} rounds"
    )
    table = Table("", "kB an image", "PSNR, dB", "encode, ms", "windows/s", "x", "whole/s", "x")
    for row in report["rows"]:
        table.add_row(
            row["name"],
            f"{row['bytes_per_image'] / 1000:.1f}",
            f"{row['psnr_db']:.1f}",
            f"{row['encode_ms']:.2f}",
            f"{row['images_per_s']['median']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['whole_images_per_s']['median']:,.0f}",
            f"{row['whole_ratio']:.2f}",
        )
    Console().print(table)
