"""Prints benchmark results as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from surface_sos_ns.bench.protocol import machine_line


def _time(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", style="bold" if column == "ratio" else None)
    return table


def _growth(result: dict[str, Any], console: Console) -> None:
    """Prints the time against each varied size, a table for each."""
    for axis, rows in result["scaling"].items():
        if not rows:
            continue
        flat = [_flat(row) for row in rows]
        times = [name for name in flat[0] if name not in (axis, "threads", "width", "height")]
        table = _table(f"Growth with {axis.replace('_', ' ')} ({rows[0]['threads']} thread(s))", axis, *times)
        for row in flat:
            table.add_row(str(row[axis]), *(_time(row[name]) for name in times))
        console.print(table)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}: {inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _kernels(result: dict[str, Any], console: Console) -> None:
    settings = result["settings"]
    points = f"{result['grid']['points']} points on rays, {settings['levels']} levels"
    for task, title in (("grid", "Hash grid with Jacobian"), ("sdf_normal", "Grid + SDF net + normal")):
        columns = ("entries", "threads", "ours", "other", "ratio", "which")
        table = _table(f"{title}: forward and backward, {points}", *columns)
        for key, figures in result.items():
            if key != task and not key.startswith(f"{task}_"):
                continue
            for size in figures["by_table_size"]:
                for row in size["by_threads"]:
                    times = (_time(row["ours_seconds"]), _time(row["baseline_seconds"]), _ratio(row["ratio"]))
                    table.add_row(f"2^{size['log2_entries']}", str(row["threads"]), *times, size["baseline"] or "-")
        console.print(table)
    worst = max((v for found in result["agreement"].values() for v in found.values()), default=0.0)
    console.print(f"Both sides compute the same: outputs and gradients differ by {worst:.1e} at most.")
    _growth(result, console)


def _train(result: dict[str, Any], console: Console) -> None:
    step = result["step"]
    table = _table(
        f"Training step, preset {step['preset']}: {step['rays']} rays, {step['samples']} samples a ray",
        *("against", "threads", "ours", "other", "ratio"),
    )
    for key in ("step", "step_our_sizes"):
        for row in result.get(key, {}).get("by_threads", []):
            times = (_time(row["ours_seconds"]), _time(row["baseline_seconds"]), _ratio(row["ratio"]))
            table.add_row(result[key]["baseline"] or "-", str(row["threads"]), *times)
    console.print(table)
    for phases in result["phases"]:
        table = _table(f"Where our step's time goes ({phases['threads']} thread(s))", "part", "time", "share")
        total = sum(phases["seconds"].values())
        for name, value in sorted(phases["seconds"].items(), key=lambda item: -item[1]):
            table.add_row(name, _time(value), f"{100 * value / total:.0f} %")
        console.print(table)
    floor, where = result["floor"], "one thread" if result["machine"]["device"] == "cpu" else "the GPU"
    table = _table(f"What our step needs at least, {where}", "part", "amount", "machine", "time")
    for name, part in floor["parts"].items():
        unit = "Gflop" if name == "arithmetic" else "GB"
        amount, rate = f"{part['amount'] / 1e9:.2f} {unit}", f"{part['per_second'] / 1e9:.0f} {unit}/s"
        table.add_row(name, amount, rate, _time(part["seconds"]))
    console.print(table)
    times = floor["step_seconds"] / floor["seconds"]
    console.print(
        f"The fastest step took {_time(floor['step_seconds'])}: {times:.1f} times the longest of these parts."
    )
    _by_rays(result["by_rays"], console)
    if "objects" in result:
        _objects(result["objects"], console)
    if result["peak_memory_gb"] is not None:
        console.print(f"Peak memory of our side, set-up included: {result['peak_memory_gb']:.2f} GB.")
    _growth(result, console)


def _objects(found: dict[str, Any], console: Console) -> None:
    """Prints time and memory with several objects against one."""
    table = _table("Our step with several objects", "threads", "one", f"{found['objects']} objects", "ratio")
    for row in found["by_threads"]:
        times = (_time(row["one_seconds"]), _time(row["several_seconds"]), f"{row['ratio']:.2f}x")
        table.add_row(str(row["threads"]), *times)
    console.print(table)
    one, several = found["one_peak_gb"], found["several_peak_gb"]
    if one is not None and several is not None:
        console.print(f"Peak memory of a process that trains: {one:.2f} GB and {several:.2f} GB, {several / one:.2f}x.")


def _by_rays(rows: list[dict[str, Any]], console: Console) -> None:
    """Prints what steps ask of the GPU; "-" is what was not measured."""
    counts = ("kernels", "launches", "synchronisations")
    columns = ("rays", "step", "time", "kernels", "launches", "waits", "GPU busy", "GPU memory", "main memory")
    table = _table("Our step by rays, without its share of the cache update", *columns)
    for row in rows:
        numbers = ["-" if row[name] is None else f"{row[name]:.0f}" for name in counts]
        busy = "-" if row["gpu_busy"] is None else f"{100 * row['gpu_busy']:.0f} %"
        peaks = (row["peak_gpu_memory_gb"], row["peak_memory_gb"])
        memory = ["-" if peak is None else f"{peak:.2f} GB" for peak in peaks]
        table.add_row(str(row["rays"]), row["step"], _time(row["seconds"]), *numbers, busy, *memory)
    console.print(table)


def _render(result: dict[str, Any], console: Console) -> None:
    size = f"{result['width']} x {result['height']}"
    table = _table(f"A view of {size}, preset {result['preset']}", "threads", "alpha alone", "all outputs")
    for row in result["by_threads"]:
        table.add_row(str(row["threads"]), _time(row["alpha_seconds"]), _time(row["all_outputs_seconds"]))
    console.print(table)
    console.print(f"Mask IoU of that view after the short run: {result['mask_iou']:.3f}.")
    _growth(result, console)


def show(result: dict[str, Any]) -> None:
    """Prints machine, tables, and what could not be measured."""
    console = Console(highlight=False, markup=False)
    console.print(f"{result['date']} | {machine_line(result['machine'])}", soft_wrap=True)
    {"kernels": _kernels, "train": _train, "render": _render}[result["benchmark"]](result, console)
    missing: dict[str, list[str]] = {}
    for name, reason in result.get("missing", {}).items():
        missing.setdefault(reason, []).append(name)
    for reason, names in missing.items():
        console.print(f"Not measured: {', '.join(names)}, because {reason}.", soft_wrap=True)
