"""What the builders of the demo scene share: materials, lights, and the place where they put what they made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from surface_sos_ns.demo.shapes import Surface, leaf, resample, revolve
from surface_sos_ns.demo.textures import Noise, Painter, linear, lookup

TABLE_TOP = 0.75  # metres above the floor


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    colour(points (N, 3) metres, uv (N, 2)) gives (N, 3) linear reflectance in 0..1. `specular` scales the reflection
    of a dielectric (1: glass-like varnish, 0: matt), `roughness` is the spread of the reflected direction. With
    `emission` > 0 the surface is a light whose radiance is emission * colour.
    """

    colour: Callable[[np.ndarray, np.ndarray], np.ndarray]
    specular: float = 0.0
    roughness: float = 0.1
    emission: float = 0.0


@dataclass(frozen=True)
class Light:
    """A rectangle that emits `radiance` (3,) to the side of u x v."""

    corner: np.ndarray
    u: np.ndarray
    v: np.ndarray
    radiance: np.ndarray


class Workbench:
    """Tools and finished parts of a scene under construction.

    `seed` varies patterns and arrangements; `detail` scales mesh density and picture sizes (1 for the demo).
    """

    def __init__(self, seed: int, detail: float):
        self.detail = detail
        self.step = 1.0 / max(detail, 0.2)  # factor on mesh spacings
        self.noise = Noise(seed)
        self.paint = Painter(seed, self.noise)
        self.rng = np.random.default_rng([seed, 11])
        self.parts: list[Surface] = []
        self.materials: dict[str, Material] = {}
        self.lights: list[Light] = []

    def pixels(self, full: int) -> int:
        """The side of a picture that has `full` pixels in the demo."""
        return max(32, int(full * min(1.0, 0.35 + 0.65 * self.detail)))

    def count(self, full: int, least: int = 8) -> int:
        """The number of rings or segments of a shape that has `full + least` in the demo."""
        return int(full * self.detail) + least

    def plain(
        self, name: str, colour: tuple, amount: float, frequency: float, specular: float = 0.0, roughness: float = 0.1
    ) -> None:
        """A material of one sRGB colour, mottled by `amount` at `frequency` waves per metre."""
        base, noise = linear(colour), self.noise

        def mottled(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
            return base * np.clip(1 + amount * noise(points, frequency, 2), 0.2, 1.6)[:, None]

        self.materials[name] = Material(mottled, specular, roughness)

    def picture(
        self,
        name: str,
        image: np.ndarray,
        repeat: tuple[float, float] = (1, 1),
        specular: float = 0.0,
        roughness: float = 0.1,
        emission: float = 0.0,
    ) -> None:
        """A material that shows a picture, `repeat` times along u and v."""

        def shown(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
            return lookup(image, uv * np.asarray(repeat, dtype=np.float32))

        self.materials[name] = Material(shown, specular, roughness, emission)

    def pot(self, height: float, top: float, detail: float = 1.0) -> list[Surface]:
        """A terracotta pot on the origin: tapered wall, thick rim, open, `top` its radius there."""
        base = 0.66 * top
        profile = [(0, 0), (base, 0), (base + 0.003, 0.004), (0.93 * top, 0.74 * height), (0.935 * top, 0.745 * height)]
        profile += [(top, 0.75 * height), (1.02 * top, 0.78 * height), (1.03 * top, 0.97 * height), (top, height)]
        profile += [(0.92 * top, height), (0.90 * top, 0.97 * height), (0.84 * top, 0.70 * height)]
        profile += [(0.6 * top, 0.1 * height), (0, 0.1 * height)]
        points = resample(profile, int(self.count(70) * detail))
        return [revolve(points, int(self.count(44) * detail), "terracotta")]

    def soil(self, height: float, radius: float) -> Surface:
        """A disc of soil at a height."""
        return revolve([(0, height), (radius, height)], 20, "soil", closed=False)

    def plant(self, count: int, reach: float, width: float, detail: float = 1.0) -> list[Surface]:
        """Arching leaves from one root at the origin, up to `reach` metres long."""
        leaves = []
        for k in range(count):
            angle = 2 * np.pi * (k * 0.382 + self.rng.uniform(-0.04, 0.04))
            out = np.array([np.cos(angle), np.sin(angle), 0.0])
            lean, length = self.rng.uniform(0.25, 1.0), reach * self.rng.uniform(0.7, 1.05)
            t = np.linspace(0, 1, max(6, int(12 * self.detail * detail)))[:, None]
            rise = np.sin(t * (1.0 + 1.0 * lean)) * (1.25 - 0.55 * lean)
            spine = length * (out * (0.12 * t + 0.75 * lean * t**1.6) + np.array([0, 0, 1.0]) * rise * 0.8)
            side = np.cross(out, [0, 0, 1.0])
            leaves.append(leaf(spine, width * self.rng.uniform(0.8, 1.2), side, "leaf"))
        return leaves
