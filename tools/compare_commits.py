"""Compares another commit with this working tree: losses and rendered outputs bit for bit, time and memory.

    python tools/compare_commits.py 18e2105 --data SCENE [SCENE ...]

checks the commit out into a temporary worktree, and trains with both for each preset on each capture, in turns of a few
steps, on the same machine with the same seed and number of threads. At the end both render a view with all outputs. It
compares every loss of every step, the outputs, and the CPU time of a step and of the view.

Both run in the environment of the Python that runs this script. It also needs git.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
PRESETS = ("surface-sos", "surface-sos-lite", "surface-sos-paper")
TURN = 20
"""Steps of a turn, while the other process waits."""
WARM_UP = 20
"""First steps, in which kernels are loaded; their time does not count."""
SIZES = {
    "pipeline.datamanager.train_num_rays_per_batch": 256,
    "pipeline.model.eval_num_rays_per_chunk": 8192,
}
"""Config values that make a step of the full preset fast enough on a CPU."""
VIEW_SIDE = 64
"""Longer side of the rendered view, pixels."""
MARK = "@@"
"""Prefix of the messages of the two processes in their output."""


@dataclass(frozen=True)
class Side:
    """The results of a commit.

    Attributes:
        losses: of each step, by name, as hexadecimal floats.
        outputs: of the rendered view: digests, by name.
        step: CPU seconds of each step.
        view: CPU seconds of the view.
        peak_gb: peak main memory, GB.
    """

    losses: list[dict[str, str]]
    outputs: dict[str, str]
    step: list[float]
    view: float
    peak_gb: float


# ------------------------------------------------------------------ in a process of its own


def work(method: str, data: Path, steps: int, output: Path) -> None:
    """Trains and renders. Waits for a line on standard input before each turn."""
    import hashlib
    import resource

    import numpy as np
    import torch
    from nerfstudio.configs.method_configs import all_methods
    from nerfstudio.scripts.train import _set_random_seed

    config: Any = all_methods[method]
    for path, value in SIZES.items():
        *place, name = path.split(".")
        holder = config
        for part in place:
            holder = getattr(holder, part)
        setattr(holder, name, value)
    config.data = config.pipeline.datamanager.data = config.pipeline.datamanager.dataparser.data = data
    config.max_num_iterations, config.vis = steps, "tensorboard"
    config.output_dir, config.timestamp, config.experiment_name = output, "run", "compared"
    config.logging.local_writer.enable = False
    config.set_timestamp()
    config.save_config()
    _set_random_seed(config.machine.seed)
    torch.set_grad_enabled(True)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    one_step = trainer.train_iteration

    def step(number: int) -> Any:
        if number % TURN == 0:
            wait()
        before = time.process_time()
        loss, losses, metrics = one_step(number)
        seconds = time.process_time() - before
        exact = {name: float(value).hex() for name, value in losses.items()}
        tell({"step": number, "losses": exact, "seconds": seconds, "turn_over": (number + 1) % TURN == 0})
        return loss, losses, metrics

    trainer.train_iteration = step
    trainer.train()
    wait()
    trainer.pipeline.eval()
    camera = trainer.pipeline.datamanager.train_dataset.cameras[0:1].to(trainer.device)
    camera.rescale_output_resolution(VIEW_SIDE / int(max(camera.width.max(), camera.height.max())))
    before = time.process_time()
    with torch.no_grad():
        images = trainer.pipeline.model.get_outputs_for_camera(camera)
        outputs = {name: images[name].cpu().numpy() for name in sorted(images.keys())}
    seconds = time.process_time() - before
    np.savez(output / "view.npz", **outputs)
    digests = {name: hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for name, image in outputs.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)
    tell({"outputs": digests, "seconds": seconds, "peak_gb": peak, "turn_over": True})


def wait() -> None:
    """Waits for this process's turn."""
    tell({"waiting": True})
    if not sys.stdin.readline():
        raise SystemExit("the comparison was stopped")


def tell(what: dict[str, Any]) -> None:
    """Sends a message to the comparing process."""
    print(f"{MARK}{json.dumps(what)}", flush=True)


# ------------------------------------------------------------------ the comparison


class Worker:
    """The process of a commit."""

    def __init__(self, tree: Path, method: str, data: Path, steps: int, output: Path, threads: int) -> None:
        output.mkdir(parents=True)
        self.output, self._log = output, (output / "log").open("w")
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work", method, str(data), str(steps), str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={"OMP_WAIT_POLICY": "PASSIVE", **environment},
            text=True,
            cwd=output,
        )
        self.said: list[dict[str, Any]] = []

    def turn(self) -> bool:
        """Runs the process for a turn; returns whether there is more to do."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith(MARK):
                self._log.write(line)
                continue
            what = json.loads(line[len(MARK) :])
            if "waiting" in what:
                self._process.stdin.write("go\n")
                self._process.stdin.flush()
                continue
            self.said.append(what)
            if what["turn_over"]:
                return "outputs" not in what
        self._process.wait()
        self._log.flush()
        tail = (self.output / "log").read_text().splitlines()[-15:]
        raise SystemExit(f"{self.output / 'log'}: ended with status {self._process.returncode}\n" + "\n".join(tail))

    def result(self) -> Side:
        """Waits for the end of the process; returns its results."""
        self._process.communicate()
        self._log.close()
        steps, view = [one for one in self.said if "step" in one], self.said[-1]
        return Side(
            [one["losses"] for one in steps],
            view["outputs"],
            [one["seconds"] for one in steps],
            view["seconds"],
            view["peak_gb"],
        )


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Context manager: a temporary worktree of a commit."""
    with tempfile.TemporaryDirectory(prefix="compared-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def both(other: Path, method: str, data: Path, steps: int, threads: int, scratch: Path) -> tuple[Side, Side]:
    """Runs the other commit and this tree in turns; returns their results."""
    workers = [
        Worker(tree, method, data, steps, scratch / name, threads) for name, tree in (("other", other), ("this", HERE))
    ]
    todo = list(workers)
    while todo:
        todo = [worker for worker in todo if worker.turn()]
    before, after = (worker.result() for worker in workers)
    return before, after


def differences(before: Side, after: Side) -> list[str]:
    """The differences of two results, as text."""
    found = []
    for step, (old, new) in enumerate(zip(before.losses, after.losses, strict=True)):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if names:
            values = [
                (float.fromhex(old[name]), float.fromhex(new[name])) for name in names if name in old and name in new
            ]
            largest = max((abs(a - b) / max(abs(a), abs(b)) for a, b in values if a != b), default=1.0)
            found.append(
                f"losses differ from step {step} on ({', '.join(sorted(names))}; there by {largest:.2g} at most)"
            )
            break
    old_view, new_view = before.outputs, after.outputs
    names = [name for name in {**old_view, **new_view} if old_view.get(name) != new_view.get(name)]
    if names:
        found.append(f"outputs differ: {', '.join(sorted(names))}")
    return found


def compare(revision: str, captures: Sequence[Path], methods: Sequence[str], steps: int, threads: int) -> bool:
    """Prints a table of all comparisons; returns whether all results are the same."""
    same = True
    print(f"{'capture':16} {'method':18} {'losses, outputs':16} {'step':>16} {'view':>16} {'memory':>14}")
    with checked_out(revision) as other:
        for data in captures:
            for method in methods:
                # A first short run, which is not compared, compiles the kernels into each tree's cache.
                with tempfile.TemporaryDirectory(prefix="compared-") as scratch:
                    both(other, method, data.resolve(), TURN, threads, Path(scratch))
                with tempfile.TemporaryDirectory(prefix="compared-") as scratch:
                    before, after = both(other, method, data.resolve(), steps, threads, Path(scratch))
                found = differences(before, after)
                same &= not found
                old, new = (statistics.median(side.step[WARM_UP:] or side.step) for side in (before, after))
                print(
                    f"{data.resolve().name:16} {method:18} {'same' if not found else 'DIFFERENT':16} "
                    f"{1e3 * new:7.1f} ms {new / old:5.3f} {after.view:7.2f} s {after.view / before.view:5.3f} "
                    f"{after.peak_gb:5.2f} GB {after.peak_gb / before.peak_gb:5.3f}",
                    flush=True,
                )
                for words in found:
                    print(f"    {words}", flush=True)
    return same


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--work"]:
        method, data, steps, output = sys.argv[2:]
        work(method, Path(data), int(steps), Path(output))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the other commit")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="captures to train on")
    parser.add_argument("--methods", nargs="+", default=PRESETS, choices=PRESETS)
    parser.add_argument("--steps", type=int, default=120, help=f"steps of each run, a multiple of {TURN}")
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    if settings.steps < TURN or settings.steps % TURN:
        parser.error(f"--steps is {settings.steps}; expected a multiple of {TURN}")
    print("Ratios are this tree over the other commit, CPU time.")
    sys.exit(0 if compare(settings.revision, settings.data, settings.methods, settings.steps, settings.threads) else 1)


if __name__ == "__main__":
    main()
