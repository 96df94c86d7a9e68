"""Sizes and choices of the scene model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from surface_sos_ns.fields.deformation import RIGID, DeformationConfig
from surface_sos_ns.fields.label import LABEL_LAYOUT
from surface_sos_ns.ops.choose import Backend
from surface_sos_ns.ops.layout import GridLayout


@dataclass(frozen=True)
class SceneConfig:
    """Sizes and choices of the scene model."""

    foreground_grid: GridLayout = field(default_factory=GridLayout)
    """FoCoR's hash grid over the object cube."""
    background_grid: GridLayout = field(default_factory=GridLayout)
    """BaCo's hash grid over contracted space."""
    label_grid: GridLayout = LABEL_LAYOUT
    """The label's (small) hash grid over the object cube."""
    backend: Backend = "auto"
    """What computes the numeric operations (fields, sampling, rendering, optimiser). torch is plain PyTorch for all of
    them; numba is compiled for a CPU; on CUDA triton has kernels for all but the networks, tcnn for the hash grid. auto
    takes numba on a CPU, on CUDA triton, or tcnn where Triton does not work, and torch where none is there. One that is
    asked for by name and cannot run is an error."""
    split: Literal["votes", "predicted"] = "votes"
    """What splits the layers: a view-independent label learned from mask votes to the end of the run (default preset),
    or the colour net's predicted alpha (eq. 3, paper preset)."""
    foreground: Literal["sdf", "density"] = "sdf"
    """FoCoR's geometry: a signed distance, or for the ablation a density of the same network, without eikonal loss."""
    background: Literal["density", "sdf", "directional"] = "density"
    """BaCo's geometry in contracted space, or for the ablation none: a colour that depends on the direction alone."""
    blending: Literal["light", "display"] = "display"
    """The space in which colours are blended: linear light, as in a camera, or the photo's encoded values, as eq. 7 is
    printed."""
    hidden: int = 64
    """Width of the hidden layers (Fig. 3)."""
    samples: int = 32
    """Samples per ray in training, drawn by the cached fields."""
    render_samples: int = 64
    """Samples per ray otherwise. The noise of few samples averages out in training; in an image thin parts fray."""
    candidates: tuple[int, int, int] = (24, 64, 32)
    """Coarse intervals per ray before, inside and beyond the object sphere."""
    cache_resolution: int = 64
    """Cells per axis of the cached foreground that guides sampling."""
    background_cache_resolution: int = 128
    """Cells per axis of the cached background that guides sampling."""
    observation_resolution: int = 128
    """Cells per axis of the grid that counts training rays in the background, for the clean plate's confidence."""
    probability_resolution: int = 96
    """Cells per axis of the probability map m^P (eq. 4)."""
    first_sharpness: float = 64.0
    """Floor of b of eq. 6 at the start, in 1 / object radius. The learned b starts at exp(3) = 20, too soft after
    initialisation at the hull: FoCoR must occlude the background before that learns the object's colours."""
    last_sharpness: float = 400.0
    """Floor of b at the end of the run, in 1 / object radius; in short runs a learned b alone stays too small."""
    sharpening: float = 4.0
    """Factor on b, reached over the last part of the run (`SHARPENING`). A b that surfaces can still move with makes
    outlines softer than those of photos; once surfaces are found it can be higher."""
    gate_slope: tuple[float, float] = (1.0, 6.0)
    """Factor on the label's logit in the gate (the alpha of eq. 3), at the start and the end of the run: the split
    hardens."""
    gate_gradient: float = 0.1
    """Share of the colour loss' gradient that reaches the label: where votes are even, the photos decide."""
    near_fraction: float = 0.4
    """Rays start at this fraction of the distance from the camera to the object sphere. Closer to a camera too few
    others see the same space to tell a surface from a floater. From cameras in or near the sphere they start at 0.6 of
    the distance to the object's hull."""
    far: float = 200.0
    """Farthest sample distance, in object radii."""
    light_codes: int = 0
    """Length of the latent code of each training photo that goes into the colour nets of both layers (NeRF-W): for
    photos whose light differs. 0: a gain and an offset per colour channel are all that differs."""
    sky: bool = False
    """Rays that meet nothing show a sky, whose colour depends on direction and light alone, instead of black."""
    room: tuple[int, int] | None = None
    """Rays that meet nothing show a picture of the room, so many pixels wide and high, that stands still before the
    camera, as behind a turntable; in place of a sky."""
    colour_threshold: float = 1e-3
    """Colours are evaluated at samples with a larger weight than this only."""
    deformation: DeformationConfig = RIGID
    """Small motion of the object over time, for video; off by default."""
