"""The sections of docs/measurements.md: a report of each command as tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

_GROUPS = ("limits", "rows", "peers")


def dataloader_section(report: dict[str, Any]) -> list[str]:
    """Return the loader's rows beside limits and peers, its ratios and its stages."""
    c = report["conditions"]
    rows = [row for group in _GROUPS for row in report[group] if row["images_per_s"]["median"]]
    cells = [
        (
            row["title"],
            _rate(row["images_per_s"], 0),
            "" if row["gpu"] else _number(row["images_per_s_all_cores_busy"]["median"], 0),
            _limit(row),
            _number(row["memory_mb"]["peak"], 0),
            _mark(row, c),
        )
        for row in rows
    ]
    heads = ("row", "images/s by wall time", "by CPU time, all cores busy", "of its limit, wall / CPU", "peak MB", "")
    data = f"{c['images']:,} images of {c['bytes_per_image'] / 1e3:.1f} kB, {c['why']}; batches of {c['batch_images']}"
    parts = [f"{data}. {_machine(c)}", _table(heads, cells)]
    if report["stages"]:
        spent = "; ".join(
            f"{s['name']} {s['cpu_us']:,.0f} ± {s['plus_minus_us']:,.0f} ({s['share']:.0%})" for s in report["stages"]
        )
        parts.append(f"CPU time of the float32 stream, microseconds an image: {spent}.")
    return [*parts, *_ratios(report), *_missing(report), report["verdict"]]


def model_section(report: dict[str, Any]) -> list[str]:
    """Return networks with the parts of a step, shares of the rooflines, and the naive version."""
    machine = "; ".join(f"{limit['title']} {_per_s(limit)}" for limit in report["limits"])
    parts = [f"{_machine(report['conditions'])} Measured in the same run: {machine}.", _networks(report, "peers")]
    for one in report["layers"]:
        parts.append(
            f"Each layer by itself, for {one['row']}: {one['sum_ms']:,.1f} ms forward and backward, in its best way:"
        )
        cells = [
            (layer["layer"], way, f"{ms:,.2f}", "; ".join(f"{w} {x:,.2f}" for w, x in others))
            for layer in one["layers"]
            for (way, ms), *others in [tuple(layer["ways_ms"].items())]
        ]
        parts.append(_table(("layer", "best way", "ms", "others, ms"), cells))
    return [*parts, *_ratios(report), *_missing(report), report["verdict"]]


def train_section(report: dict[str, Any]) -> list[str]:
    """Return training on data beside the loader alone and made-up batches."""
    c = report["conditions"]
    (loader, *_), networks = (
        [row for row in report["limits"] if "arch" not in row] or [None],
        [row for row in report["limits"] if "arch" in row],
    )
    alone = f" The stream alone: {_rate(loader['images_per_s'], 0)} images/s." if loader else ""
    data = f"{c['images']:,} images of {c['bytes_per_image'] / 1e3:.1f} kB, {c['why']}."
    table = _networks({"rows": networks, "peers": report["rows"], "conditions": c}, "peers")
    return [f"{data} {_machine(c)}{alone}", table, *_ratios(report), *_missing(report), report["verdict"]]


def prep_section(report: dict[str, Any]) -> list[str]:
    """Return the converter against its bound, and what a second call costs."""
    c, resume = report["conditions"], report["resume"]
    cells = [("bound: one core's decode + resize + encode", _rate(report["bound_images_per_s_a_core"], 0), "")]
    for row in report["rows"]:
        share = f"{row['share_of_bound_a_core']:.0%}"
        cells.append((f"{row['workers']} worker{'s' * (row['workers'] > 1)}", _rate(row["images_per_s"], 0), share))
    words = (
        f"{c['images']:,} images, {c['rounds']} rounds on {c['cores']} cores, load {c['load']:.1f}; Pillow "
        f"{c['pillow']}, libjpeg-turbo {c['libjpeg_turbo']}, Python {c['python']}. Largest worker: "
        f"{report['largest_worker_mb']:,.0f} MB."
    )
    calls = [
        (
            f"{resume['done_shards']} of {resume['shards']} shards done: beyond converting the rest",
            _rate(resume["resumed_s"], 2),
        ),
        ("complete: all of the call", _rate(resume["complete_s"], 2)),
    ]
    heads = ("", "images/s", "share of the bound, a core")
    return [words, _table(heads, cells), _table(("the same command again", "seconds"), calls)]


def _networks(report: dict[str, Any], beside: str) -> str:
    heads = (
        "row", "images/s", "by CPU time", "step, ms", "forward", "backward", "update", "rest", "communication alone",
        "of arithmetic", "of layers", "of best kernels", "",
    )  # fmt: skip
    cells = [_network(row, report["conditions"]) for row in (*report["rows"], *report[beside])]
    empty = {k for k in range(len(heads)) if not any(row[k] for row in cells)}
    kept = [k for k in range(len(heads)) if k not in empty or k == 0]
    return _table([heads[k] for k in kept], [[row[k] for k in kept] for row in cells])


def _network(row: dict[str, Any], conditions: dict[str, Any]) -> list[str]:
    parts, share = row["parts_ms"], row["share_of_limit"]
    return [
        row["title"],
        _rate(row["images_per_s"], 1),
        _number(row["images_per_s_all_cores_busy"]["median"], 1) if conditions["device"] == "cpu" else "",
        _number(row["step_ms"]["median"], 1),
        *(_number(parts[name], 1) if parts else "" for name in ("forward", "backward", "update", "rest")),
        _number(parts["communication"], 1) if parts and parts["communication"] is not None else "",
        *("" if share[name] is None else f"{share[name]:.0%}" for name in ("arithmetic", "layers", "best_kernels")),
        _mark(row, conditions),
    ]


def _machine(c: dict[str, Any]) -> str:
    machine, load = c["machine"], c["load"]
    device = machine["gpu"]["name"] if c["device"] == "cuda" and machine["gpu"] else machine["cpu"]
    names = ("python", "torch", "DALI", "numpy")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names if name in machine["versions"])
    return (
        f"{device}, {c['threads']} threads on {c['cores']} cores; {c['rounds']} interleaved rounds of {c['seconds']:g} "
        f"s, each row in a process of its own; load {load['before']:.1f} before, others {load['foreign_before']:.0%}; "
        f"{versions}; {c['when'][:10]}."
    )


def _ratios(report: dict[str, Any]) -> list[str]:
    if not report["ratios"]:
        return []
    cells = [
        (r["about"], _rate(r["wall"], 2), _rate(r["cpu"], 2), "" if r["at_least"] is None else f"{r['at_least']:.2f}",
         "" if r["at_least"] is None else f"{'holds' if r['holds'] else 'fails'} by {r['by']} time")
        for r in report["ratios"]
    ]  # fmt: skip
    return [_table(("ratio, round by round", "by wall time", "by CPU time", "wanted", ""), cells)]


def _missing(report: dict[str, Any]) -> list[str]:
    if not report["missing"]:
        return []
    return ["Not measured: " + "; ".join(f"{one['title']} ({one['why']})" for one in report["missing"]) + "."]


def _limit(row: dict[str, Any]) -> str:
    share = row["share_of_limit"]
    return " / ".join(f"{v:.0%}" for v in (share["wall"], share["cpu"]) if v is not None) if share else ""


def _mark(row: dict[str, Any], conditions: dict[str, Any]) -> str:
    marks = ["repeated"] if conditions.get("repeated") else []
    return ", ".join(marks + ([f"others {row['foreign_load']:.0%}"] if row["disturbed"] else []))


def _per_s(limit: dict[str, Any]) -> str:
    scale, unit = (1e12, "TFLOP/s") if limit["unit"] == "flop" else (1e9, "GB/s")
    return f"{_rate({k: v / scale for k, v in limit['per_s'].items()}, 2)} {unit} ({limit['settings']})"


def _rate(rate: dict[str, float], digits: int) -> str:
    median, low, high = (_number(rate[k], digits) for k in ("median", "min", "max"))
    return f"{median} ({low}-{high})"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
