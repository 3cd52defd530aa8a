"""Print what `alexnet-bench encoding` measured."""

from typing import Any

from rich import box
from rich.table import Table

from alexnet.tools.bench.measuring.console import console
from alexnet.tools.console import tell


def print_encoding(report: dict[str, Any]) -> None:
    """Print a line for each way to encode, beside the default."""
    c = report["conditions"]
    tell(
        f"{c['source']}: {c['images']:,} images of {c['size_px']} px, windows of {c['crop_px']} px, one thread by CPU "
        f"time, {c['rounds']} rounds"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in ("kB an image", "PSNR, dB", "encode, ms", "windows/s", "x", "whole/s", "x"):
        table.add_column(head, justify="right")
    for row in report["rows"]:
        whole = row["whole_images_per_s"]
        table.add_row(
            row["name"],
            f"{row['bytes_per_image'] / 1000:.1f}",
            f"{row['psnr_db']:.1f}",
            f"{row['encode_ms']:.2f}",
            f"{row['images_per_s']['median']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{whole['median']:,.0f}" if whole else "",
            f"{row['whole_ratio']:.2f}" if whole else "",
        )
    console().print(table)
