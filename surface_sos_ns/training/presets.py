"""The presets without nerfstudio: sizes, losses, run lengths, learning rates.

`plugin/methods.py` and `plugin/model.py` make nerfstudio's configs of them; `bench/` uses them directly.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from torch.nn import Parameter

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.training.objective import ObjectiveConfig


@dataclass(frozen=True)
class Preset:
    """All numbers of a run."""

    scene: SceneConfig = field(default_factory=lambda: SceneConfig(blending="light"))
    """Sizes and choices of the scene model."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Losses and their schedules."""
    steps: int = 15_000
    """Training steps."""
    rays: int = 2048
    """Rays per training step."""
    rays_per_chunk: int = 1 << 14
    """Rays rendered at once."""
    initial_fit_steps: int = 300
    """Steps of the regressions that initialise the fields before training."""
    cache_interval: int = 25
    """Training steps between two refreshes of the cached fields that guide sampling."""
    cache_share: float = 0.25
    """Share of the cells in such a refresh, drawn at random; those near FoCoR's surface are always refreshed."""
    hull_slack: float = 0.25
    """How much the voted hull's threshold is lowered for initialisation, as a fraction of the votes: training removes
    surplus volume more easily than it adds missing volume."""


def lite_scene(scene: SceneConfig) -> SceneConfig:
    """The same scene model with smaller tables and fewer samples, for a laptop or a CPU."""
    small = GridLayout(levels=12, features=2, log2_entries=16, base_resolution=16, max_resolution=512)
    return replace(
        scene,
        foreground_grid=small,
        background_grid=replace(small, max_resolution=1024),
        hidden=32,
        samples=24,
        render_samples=48,
        last_sharpness=300.0,
    )


def paper_scene(scene: SceneConfig) -> SceneConfig:
    """The scene model of equations 1-12 as printed: SDFs everywhere, predicted alpha."""
    return replace(
        scene,
        split="predicted",
        background="sdf",
        blending="display",
        first_sharpness=20.0,
        last_sharpness=200.0,
        sharpening=1.0,
    )


def paper_objective(objective: ObjectiveConfig) -> ObjectiveConfig:
    """The losses of eq. 8-12 as printed, with the mask loss at the start only."""
    return replace(
        objective,
        learned_noise=False,
        eikonal=0.1,
        mask=0.1,
        sparsity=0.01,
        votes=0.0,
        label_prior=0.0,
        plate=0.0,
        outside=0.0,
        distortion=0.0,
        entropy=0.0,
        parsimony=0.0,
        surfaces=0.0,
    )


FULL = Preset()
LITE = replace(
    FULL, scene=lite_scene(FULL.scene), steps=7_000, rays=1024, rays_per_chunk=1 << 12, initial_fit_steps=200
)
PAPER = replace(FULL, scene=paper_scene(FULL.scene), objective=paper_objective(FULL.objective), steps=40_000)
PRESETS = {"full": FULL, "lite": LITE, "paper": PAPER}


@dataclass(frozen=True)
class Rate:
    """Adam's settings for a parameter group."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-15


TABLE_BETAS = (0.9, 0.99)
"""Betas for hash tables: their entries rarely have a gradient, so the second moment has to forget faster."""

RATES = {
    "grids": Rate(1e-2, TABLE_BETAS),
    "surface": Rate(1e-2, TABLE_BETAS),
    "nets": Rate(5e-3),
    "sharpness": Rate(1e-3, eps=1e-8),
    "appearance": Rate(1e-3, eps=1e-8),
    "light": Rate(5e-3, eps=1e-8),
    "room": Rate(2e-3, eps=1e-8),
    "deformation": Rate(2e-3),
    "camera_opt": Rate(1e-3),
}
"""Learning rates by parameter group. The last four exist where photos have light codes, where a
room is static in the camera's frame, where the object may deform, and where poses are refined."""


def parameter_groups(scene: SurfaceSOS) -> dict[str, list[Parameter]]:
    """Parameters by group, with the names of `RATES`."""
    groups: dict[str, list[Parameter]] = defaultdict(list)
    for name, parameter in scene.named_parameters():
        groups[_group(name)].append(parameter)
    return dict(groups)


def _group(name: str) -> str:
    """The group of a scene's parameter, by its name."""
    part = name.split(".")[0]
    if "log_sharpness" in name:
        return "sharpness"
    if name.startswith("foreground.field."):
        return "surface"
    if part in ("deformation", "room"):
        return part
    if part == "appearance":
        return "light" if name.endswith("light") else "appearance"
    return "grids" if name.endswith("table") else "nets"
