"""Turn measured rounds into the report of `alexnet-bench model`: rates, parts of a step, limits, ratios, a verdict."""

import statistics
from typing import Any

from alexnet.model.networks.settings import NetSettings
from alexnet.tools.bench.guards import OVER_NAIVE, OVER_NAIVE_BATCH, PAIR_OVER_ONE, Guard, in_words, ratio_of
from alexnet.tools.bench.measuring.conditions import FOREIGN_LOAD_MARK
from alexnet.tools.bench.measuring.figures import spread
from alexnet.tools.bench.measuring.report_rows import missing_rows, row_of
from alexnet.tools.bench.measuring.rounds import Measured
from alexnet.tools.bench.networks.model_rows import NAIVE_ARCH, name_of, network_options
from alexnet.tools.bench.networks.roofline import arithmetic_bound, layer_bound, step_work
from alexnet.tools.bench.networks.trainer_steps import PARTS
from alexnet.tools.bench.schema import SCHEMA

_VALUE_BYTES = {"fp32": 4, "bf16": 2}


def model_report_of(measured: list[Measured], conditions: dict[str, Any], *, complete: bool) -> dict[str, Any]:
    """Return the report of a run; `complete` is False for one that was interrupted."""
    done = [one for one in measured if one.rounds]
    limits = [machine_limit(one, conditions) for one in done if one.row.group == "limit"]
    layers = [_layers(one) for one in done if one.row.group == "part"]
    rows = [network_row(one, conditions) for one in done if one.row.group == "row"]
    for row in rows:
        _compare_with_limits(row, {x["name"]: x for x in limits}, {x["row"]: x for x in layers}, conditions)
    peers = [network_row(one, conditions) for one in done if one.row.group == "peer"]
    ratios = _ratios(rows, peers, conditions)
    return {
        "schema": SCHEMA,
        "command": "model",
        "complete": complete,
        "conditions": conditions,
        "limits": limits,
        "rows": rows,
        "peers": peers,
        "missing": missing_rows(measured),
        "layers": layers,
        "ratios": ratios,
        "verdict": _verdict(rows, ratios),
    }


def machine_limit(one: Measured, conditions: dict[str, Any]) -> dict[str, Any]:
    """Return a rate of the machine: `per_s` in operations or in bytes."""
    row = row_of(one, min(conditions["threads"], conditions["cores"]))
    unit = "flop" if one.row.kind == "matmul" else "bytes"
    for kept, r in zip(row["rounds"], one.rounds, strict=True):
        kept["per_s"] = r["amount"] / r["seconds"]
        kept["per_s_all_cores_busy"] = row["cores"] * r["amount"] / max(r["cpu_seconds"], 1e-9)
    for key in ("per_s", "per_s_all_cores_busy"):
        row[key] = spread([r[key] for r in row["rounds"]])
    return row | {"unit": unit}


def network_row(one: Measured, conditions: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a network, with what a step and its parts took."""
    row, options = row_of(one, min(conditions["threads"], conditions["cores"])), one.row.options
    steps = [1e3 * options["batch_images"] / r["images_per_s"] for r in row["rounds"]]
    kept = ("arch", "precision", "batch_images", "gpus", "parallel")
    return row | {
        **{key: options[key] for key in kept},
        "step_ms": spread(steps),
        "parts_ms": _parts(one, statistics.median(steps)),
        "limits_by": None,
        "limits": {"arithmetic": None, "layers": None, "best_kernels": None},
        "share_of_limit": {"arithmetic": None, "layers": None, "best_kernels": None},
    }


def _parts(one: Measured, step_ms: float) -> dict[str, float | None] | None:
    """Return medians over the rounds; None where the parts cannot be seen from outside.

    Communication is part of forward and backward, measured once more by itself. The rest is the loop.
    """
    told = [r["more"] for r in one.rounds if r["more"].get("parts_s")]
    if not told:
        return None
    parts = {name: statistics.median(1e3 * more["parts_s"][name] for more in told) for name in PARTS}
    alone = [1e3 * more["communication_s"] for more in told if more["communication_s"] is not None]
    communication = statistics.median(alone) if alone else None
    return {**parts, "rest": max(0.0, step_ms - sum(parts.values())), "communication": communication}


def _layers(one: Measured) -> dict[str, Any]:
    """Return each layer's ways, the best one first, in milliseconds: medians over the rounds."""
    told = [r["more"]["layers_s"] for r in one.rounds]
    layers = []
    for name, ways in told[0].items():
        medians = {way: statistics.median(1e3 * more[name][way] for more in told) for way in ways}
        layers.append({"layer": name, "ways_ms": dict(sorted(medians.items(), key=lambda item: item[1]))})
    total = sum(min(layer["ways_ms"].values()) for layer in layers)
    disturbed = statistics.fmean(r["foreign_load"] for r in one.rounds) > FOREIGN_LOAD_MARK
    return {"row": name_of(one.row.options), "layers": layers, "sum_ms": total, "disturbed": disturbed}


def _compare_with_limits(
    row: dict[str, Any], limits: dict[str, Any], layers: dict[str, Any], conditions: dict[str, Any]
) -> None:
    """Fill in images/s of the limits, and the row's shares: by CPU time where others disturbed either, on a CPU."""
    matmul, copy = limits.get(f"matmul-{row['precision']}"), limits.get("copy")
    if matmul is not None and copy is not None:
        disturbed = any(one["disturbed"] for one in (row, matmul, copy)) and conditions["device"] == "cpu"
        end = "_all_cores_busy" if disturbed else ""
        row["limits_by"] = "cpu" if disturbed else "wall"
        devices = row["gpus"] if conditions["device"] == "cuda" else 1
        rates = [devices * one[f"per_s{end}"]["median"] for one in (matmul, copy)]
        work = step_work(_net_settings(row), row["batch_images"], _VALUE_BYTES[row["precision"]])
        row["limits"]["arithmetic"] = arithmetic_bound(work, row["batch_images"], rates[0])
        row["limits"]["layers"] = layer_bound(work, row["batch_images"], rates[0], rates[1])
        for name in ("arithmetic", "layers"):
            row["share_of_limit"][name] = row[f"images_per_s{end}"]["median"] / row["limits"][name]
    if (own := layers.get(row["name"])) is not None:
        row["limits"]["best_kernels"] = 1e3 * row["batch_images"] / own["sum_ms"]
        if conditions["device"] == "cuda" or not (row["disturbed"] or own["disturbed"]):
            row["share_of_limit"]["best_kernels"] = row["images_per_s"]["median"] / row["limits"]["best_kernels"]


def _net_settings(row: dict[str, Any]) -> NetSettings:
    return NetSettings(arch=row["arch"], classes=network_options(row["arch"], "fp32", 1)["classes"])


def _ratios(
    rows: list[dict[str, Any]], peers: list[dict[str, Any]], conditions: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return each network over the naive version in the same batch, and several processes over one."""
    by_wall = conditions["device"] == "cuda"
    by_name = {row["name"]: row for row in rows}
    found = []
    for row in rows:
        found += [
            ratio_of(_naive_guard(row, peer, conditions), row, peer, by_wall=by_wall)
            for peer in peers
            if (peer["arch"], peer["batch_images"]) == (row["arch"], row["batch_images"])
        ]
        one = by_name.get(name_of({**row, "gpus": 1}))
        if row["gpus"] > 1 and one is not None:
            found.append(ratio_of(_layout_guard(row, one, conditions), row, one, by_wall=by_wall))
    return found


def _naive_guard(row: dict[str, Any], peer: dict[str, Any], conditions: dict[str, Any]) -> Guard:
    asked = (row["precision"], row["batch_images"], row["gpus"], conditions["device"]) == (
        "bf16", OVER_NAIVE_BATCH, 1, "cpu",
    ) and conditions["cpu_has_bf16"]  # fmt: skip
    about = f"{row['title']} over the naive version"
    return Guard(row=row["name"], over=peer["name"], at_least=OVER_NAIVE if asked else None, about=about)


def _layout_guard(row: dict[str, Any], one: dict[str, Any], conditions: dict[str, Any]) -> Guard:
    asked = conditions["device"] == "cpu" and (row["gpus"], row["parallel"]) == (2, "towers")
    asked = asked and row["batch_images"] == OVER_NAIVE_BATCH and row["arch"] == NAIVE_ARCH
    asked = asked and row["precision"] == ("bf16" if conditions["cpu_has_bf16"] else "fp32")  # what training would take
    about = f"{row['title']} over one process"
    return Guard(row=row["name"], over=one["name"], at_least=PAIR_OVER_ONE if asked else None, about=about)


def _verdict(rows: list[dict[str, Any]], ratios: list[dict[str, Any]]) -> str:
    if not rows:
        return "No verdict: no network was measured."
    best = max(rows, key=lambda row: row["images_per_s"]["median"])
    sentences = [f"The fastest is {best['title']}: {best['images_per_s']['median']:,.1f} images/s."]
    share = best["share_of_limit"]
    if share["layers"] is not None:
        sentences.append(
            f"That is {share['arithmetic']:.0%} of what arithmetic alone would allow at the rate of a matrix product, "
            f"and {share['layers']:.0%} of what arithmetic and memory allow layer by layer."
        )
    if best["parts_ms"]:
        name, value = max(((part, best["parts_ms"][part]) for part in (*PARTS, "rest")), key=lambda item: item[1])
        sentences.append(f"Most of a step is {name}: {value / best['step_ms']['median']:.0%}.")
    asked = [r for r in ratios if r["at_least"] is not None]
    for r in asked:
        word = "holds" if r["holds"] else "FAILS"
        sentences.append(f"{r['about']}: {in_words(r)} by {r['by']} time, wanted {r['at_least']:.1f}: {word}.")
    if any(row["disturbed"] for row in rows):
        sentences.append("Others used this machine meanwhile: compare by CPU time only.")
    return " ".join(sentences)
