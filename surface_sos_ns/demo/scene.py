"""The demo scene: an enamelled watering can on a garden-room table, among pots, books, fruit and furniture.

Everything is built from the shapes and colours of this folder, so that the demo needs no download. Lengths are metres,
z is up, the floor is z = 0; this is the capture frame that transforms.json refers to.
"""

from __future__ import annotations

from dataclasses import dataclass

from surface_sos_ns.demo.room import build_room
from surface_sos_ns.demo.shapes import Surface
from surface_sos_ns.demo.still_life import build_still_life
from surface_sos_ns.demo.watering_can import build_can, can_materials
from surface_sos_ns.demo.workbench import Light, Material, Workbench


@dataclass(frozen=True)
class DemoScene:
    """The surfaces of the surroundings and of the object, their materials and the lights."""

    surroundings: list[Surface]
    object: list[Surface]
    materials: dict[str, Material]
    lights: list[Light]

    @property
    def part_names(self) -> list[str]:
        """Names of the object's parts; the first one has identity 1."""
        return list(dict.fromkeys(surface.part for surface in self.object if surface.part))


def build_scene(seed: int = 0, detail: float = 1.0, painted: bool = True) -> DemoScene:
    """The whole scene.

    `seed` varies patterns and arrangements, `detail` scales mesh density and picture sizes; without `painted` the
    object has one colour all over.
    """
    bench = Workbench(seed, detail)
    build_room(bench)
    build_still_life(bench)
    bench.materials |= can_materials(bench.noise, painted)
    return DemoScene(bench.parts, build_can(max(detail, 0.5)), bench.materials, bench.lights)
