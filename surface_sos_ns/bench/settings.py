"""Options of `surface-sos bench`. Imports no heavy packages, since the command line reads it for its help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surface_sos_ns.utils.cores import usable_cores
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.files import WriteError, check_writable


class BenchError(UserError):
    """The benchmark cannot run, or its result would be wrong; the message says why and what to do."""


@dataclass
class ResultFile:
    """What all benchmarks have in common."""

    json: Path | None = None
    """File to write the results to, beside the table on the terminal."""
    overwrite: bool = False
    """Replace that file if it exists."""

    def check(self) -> None:
        """Checks the settings before any long work.

        Raises:
            BenchError: a setting is out of range, or the result file exists or cannot be written.
        """
        if self.json is not None:
            check_result_file(self.json, self.overwrite)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


@dataclass
class BenchSettings(ResultFile):
    """What the benchmarks of speed have in common."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run: auto takes CUDA where there is any."""
    threads: tuple[int, ...] = ()
    """Thread counts to measure with on a CPU; the largest gives the headline. By default one, and all cores this
    process may use (OMP_NUM_THREADS counts)."""
    repeats: int = 7
    """Timed calls of each side, taken in turns; the median counts."""
    scaling: bool = True
    """Also measure how cost grows with the sizes."""
    seed: int = 0
    """Of all random numbers."""

    def thread_counts(self) -> list[int]:
        """Thread counts to measure with, increasing."""
        return sorted(set(self.threads)) if self.threads else sorted({1, usable_cores()})

    def check(self) -> None:
        """See `ResultFile.check`."""
        require(self.repeats >= 1, f"--repeats is {self.repeats}; at least one is needed.")
        for count in self.threads:
            most = usable_cores()
            require(
                1 <= count <= most,
                f"--threads names {count}; this process may use 1 to {most} cores (OMP_NUM_THREADS and its affinity "
                "count), and more threads than cores would measure the waiting.",
            )
        super().check()


@dataclass
class Kernels(BenchSettings):
    """The hash grid with its Jacobian, and grid + SDF net + normal: forward and backward, against autograd's double
    backward."""

    rays: int = 1024
    """Rays through the unit cube, in random order as in training."""
    samples: int = 32
    """Points per ray, in ray order."""
    levels: int = 16
    """Levels of the hash grid, 16 to 2048 cells an axis."""
    log2_entries: tuple[int, ...] = (15, 17, 19)
    """Entries per level, as powers of two."""
    headline: int = 17
    """The table size, as a power of two, whose figures stand at the top."""

    def check(self) -> None:
        """See `BenchSettings.check`."""
        super().check()
        require(self.rays >= 1 and self.samples >= 1, "--rays and --samples must be positive.")
        require(1 <= self.levels <= 32, f"--levels is {self.levels}; expected 1 to 32.")
        require(
            all(4 <= size <= 24 for size in self.log2_entries),
            f"--log2-entries is {self.log2_entries}; expected powers of two from 4 to 24.",
        )
        require(
            self.headline in self.log2_entries,
            f"--headline {self.headline} is not among --log2-entries {self.log2_entries}.",
        )


@dataclass
class SceneSettings(BenchSettings):
    """What the benchmarks on the demo scene have in common."""

    preset: Literal["lite", "full", "paper"] = "lite"
    """Whose sizes to take."""
    capture: Path | None = None
    """Folder of the demo capture: one that `surface-sos capture` wrote, or where to render a small one. By default a
    small one is rendered once and kept in the user's cache folder."""
    fit_steps: int = 100
    """Training steps, after the fit to the voted hull, that give a scene to measure on."""

    def check(self) -> None:
        """See `BenchSettings.check`."""
        super().check()
        require(self.fit_steps >= 1, f"--fit-steps is {self.fit_steps}; at least one is needed.")
        if self.capture is not None and self.capture.exists() and not (self.capture / "transforms.json").is_file():
            folder = self.capture
            require(
                folder.is_dir() and not any(folder.iterdir()),
                f"--capture {folder} exists and holds no transforms.json. Name a folder that `surface-sos capture` "
                "wrote, or one that does not exist yet: a small capture is then rendered into it.",
            )


@dataclass
class Train(SceneSettings):
    """A whole training step on the demo scene, against nerfstudio's neus-facto on the same rays and samples."""

    repeats: int = 5
    rays: int | None = None
    """Rays per step; by default the preset's."""
    profile_rays: tuple[int, ...] = ()
    """Numbers of rays per step whose milliseconds, kernels, launches, host synchronisations, GPU-busy share and peak
    memory are measured; by default --rays, and with --scaling also half, twice and four times as many. What only a GPU
    can tell is null in the JSON file where there is none."""
    objects: int | None = None
    """Also measure time and memory of a step with so many objects against one with one, in turns: the demo's object is
    taken for so many."""

    def check(self) -> None:
        """See `BenchSettings.check`."""
        super().check()
        require(self.rays is None or self.rays >= 2, f"--rays is {self.rays}; at least two are needed.")
        for rays in self.profile_rays:
            require(rays >= 2, f"--profile-rays names {rays}; at least two are needed.")
        count = self.objects
        require(count is None or 2 <= count <= 32, f"--objects is {count}; expected 2 to 32.")


@dataclass
class Render(SceneSettings):
    """A view of the demo scene: its matte alone, and all outputs."""

    repeats: int = 5
    fit_steps: int = 400
    width: int = 320
    """Width of the view in pixels."""
    height: int = 240
    """Height of the view in pixels."""

    def check(self) -> None:
        """See `BenchSettings.check`."""
        super().check()
        require(self.width >= 4 and self.height >= 4, "--width and --height must be at least 4.")


@dataclass
class Quality(ResultFile):
    """Masks, clean plates and meshes against the truth, on the captures, methods and variants that recipes name."""

    config: tuple[Path, ...] = ()
    """Recipes, such as those in configs/bench/."""
    data: Path = Path()
    """Folder that the recipes' captures are looked up in; by default the working directory."""
    output: Path = Path("bench_quality")
    """Folder for runs, contact sheets and results.md. Runs that are finished there are not repeated."""
    features_onnx: Path | None = None
    """ONNX file of a network, such as DINOv2's, for the methods that look at features of the photos: nerf-sos, and
    the baselines cosegment, selfment and auto. Without it they take a descriptor of colour and texture."""

    def check(self) -> None:
        """See `ResultFile.check`."""
        super().check()
        require(bool(self.config), "--config names no recipe; there are some in configs/bench/.")
        file = self.features_onnx
        require(file is None or file.is_file(), f"--features-onnx {file} is no file; name an ONNX file.")
        self.output.mkdir(parents=True, exist_ok=True)


@dataclass(kw_only=True)
class Saliency(ResultFile):
    """Masks in a folder against true ones, by the measures of salient object detection: F with beta^2 = 0.3, S, E,
    weighted F, MAE."""

    predictions: Path
    """Folder of the masks, such as surface-sos masks --images makes: white or opaque is the object, soft or not."""
    truth: Path
    """Folder of the true masks, named as the predictions; any suffix."""

    def check(self) -> None:
        """See `ResultFile.check`.

        Raises:
            MissingPackageError: the package that computes the measures is not installed.
        """
        require_package("pysodmetrics", "surface-sos bench saliency")
        super().check()
        for option, folder in (("--predictions", self.predictions), ("--truth", self.truth)):
            require(folder.is_dir(), f"{option} {folder} is no folder; name a folder of masks.")


@dataclass(kw_only=True)
class Parts(ResultFile):
    """Parts of a run's object against the true ones, beside simpler ways to divide it; nothing is kept."""

    load_config: Path
    """The run's config.yml; its capture has true parts, as those of `surface-sos capture` have."""
    parts: int = 6
    """How many parts."""
    features: Literal["auto", "network", "descriptor"] = "auto"
    """What describes the photos, as in surface-sos parts."""
    model: str | None = None
    """Another checkpoint of the network."""
    features_onnx: Path | None = None
    """An ONNX file of the network, instead of a checkpoint."""
    seed: int = 0
    """Of the random start."""
    data: Path | None = None
    """The capture's folder, where it was moved since training."""

    def check(self) -> None:
        """See `ResultFile.check`."""
        super().check()
        require(self.load_config.is_file(), f"{self.load_config} does not exist; expected the config.yml of a run.")
        require(2 <= self.parts <= 64, f"--parts is {self.parts}; expected 2 to 64.")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def require(holds: bool, message: str) -> None:
    """Raises a BenchError with the message unless it holds."""
    if not holds:
        raise BenchError(message)


def check_result_file(path: Path, overwrite: bool) -> None:
    """Raises a BenchError unless the file can be written, and is not there already or may be replaced."""
    require(not path.is_dir(), f"--json {path} is a folder; name a file.")
    require(
        overwrite or not path.exists(),
        f"--json {path} exists; add --overwrite to replace it, or name another file.",
    )
    require(path.parent.is_dir(), f"--json {path}: there is no folder {path.parent}.")
    try:
        check_writable(path.parent)
    except WriteError as error:
        raise BenchError(f"--json {path}: {error}") from error
