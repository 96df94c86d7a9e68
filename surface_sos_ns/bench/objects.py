"""`bench train --objects K`: our training step with K objects against the one with one object.

Both are the same scene, whose object is taken for K (`SceneData.in_bands`), and steps are timed in turns. Peak memory
is that of a process of its own that reads the capture and trains for the same steps, all that it loads included.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.fit import fitted_run
from surface_sos_ns.bench.protocol import Side, choose_device, seconds, take_turns
from surface_sos_ns.bench.scene_data import SceneData
from surface_sos_ns.bench.settings import Train
from surface_sos_ns.training.presets import PRESETS
from surface_sos_ns.utils.memory import peak_gb
from surface_sos_ns.utils.user_commands import run_module

ONE, SEVERAL = "one", "several"
"""One object, and several."""


def compare_objects(
    settings: Train,
    one: ours.Run,
    data: SceneData,
    until: float,
    counts: list[int],
    step_of: Callable[[ours.Run, SceneData], Callable[[], Any]],
) -> dict[str, Any]:
    """Time of a step, its share of the cache update included, and peak memory, with several objects and with one.

    Args:
        settings: of the benchmark, with `objects`.
        one: the run with one object, trained for a moment.
        data: that it is trained on.
        until: progress of its schedules, see `fitted_run`.
        counts: of threads to measure with.
        step_of: makes what does one step of a run, with batches of its data.
    """
    assert settings.objects is not None
    rays = settings.rays or one.preset.rays
    divided = data.in_bands(settings.objects)
    ours.use_threads(counts[-1])
    several = ours.Run(one.preset, divided, one.device)
    several.fit(divided.batches(rays, settings.seed), settings.fit_steps, until, lambda: None)
    runs = {ONE: (one, data), SEVERAL: (several, divided)}
    rows = []
    for count in counts:
        sides = {name: Side(step_of(*run), ours.use_threads) for name, run in runs.items()}
        taken = take_turns(sides, count, settings.repeats, one.device)
        ours.use_threads(count)
        row: dict[str, Any] = {"threads": count}
        for name, (run, _) in runs.items():
            refreshes = [seconds(run.refresh_cache, run.device) for _ in range(3)]
            share = statistics.median(refreshes) / run.preset.cache_interval
            row[f"{name}_seconds"] = statistics.median(taken[name]) + share
        rows.append(row | {"ratio": row[f"{SEVERAL}_seconds"] / row[f"{ONE}_seconds"]})
    memory = {f"{name}_peak_gb": _peak_gb(settings, k) for name, k in ((ONE, 1), (SEVERAL, settings.objects))}
    return {"objects": settings.objects, "by_threads": rows, **memory}


def _peak_gb(settings: Train, objects: int) -> float | None:
    """Peak memory of a process that trains as many steps as the fit; None if the system does not tell."""
    arguments = {
        "capture": None if settings.capture is None else str(settings.capture),
        **{name: getattr(settings, name) for name in ("preset", "rays", "fit_steps", "seed", "device")},
    }
    given, said = json.dumps(arguments | {"objects": objects}), [""]
    with tempfile.TemporaryDirectory() as folder:
        run_module(["surface_sos_ns.bench.objects", given], Path(folder) / "train.log", said.append)
    return json.loads(said[-1])  # its own figure: the system's would include this process's memory


def main(arguments: list[str]) -> int:
    """Trains as `_peak_gb` says, and prints the peak memory."""
    given = json.loads(arguments[0])
    objects, capture = given.pop("objects"), given.pop("capture")
    settings = Train(**given, capture=None if capture is None else Path(capture))
    preset, device = PRESETS[settings.preset], choose_device(settings.device)
    torch.set_flush_denormal(True)
    ours.use_threads(settings.thread_counts()[-1])
    fitted_run(settings, preset, settings.rays or preset.rays, 0.5, device, objects)
    print(json.dumps(peak_gb()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
