"""The demo scene: an enamelled watering can on a garden-room table, among pots, books, fruit and furniture.

The watering can is the object; where several are asked for, some of the things around it are objects as well.

Everything is built from the shapes and colours of this folder, so that the demo needs no download. Lengths are metres,
z is up, the floor is z = 0; this is the capture frame that transforms.json refers to.
"""

from __future__ import annotations

from dataclasses import dataclass

from surface_sos_ns.demo.room import build_room
from surface_sos_ns.demo.shapes import Surface
from surface_sos_ns.demo.still_life import APART, AROUND_THE_CAN, build_still_life
from surface_sos_ns.demo.watering_can import build_can, can_materials
from surface_sos_ns.demo.workbench import Light, Material, Workbench

CAN = "can"
OBJECTS = (CAN, *AROUND_THE_CAN)
"""Names of the objects where there are several; the first one has identity 1."""


@dataclass(frozen=True)
class DemoScene:
    """The surfaces of the surroundings and of each object by its name, their materials and the lights."""

    surroundings: list[Surface]
    objects: dict[str, list[Surface]]
    materials: dict[str, Material]
    lights: list[Light]

    @property
    def part_names(self) -> list[str]:
        """Names of the can's parts; the first one has identity 1."""
        return list(dict.fromkeys(part.part for surfaces in self.objects.values() for part in surfaces if part.part))


def build_scene(seed: int = 0, detail: float = 1.0, painted: bool = True, several: bool = False) -> DemoScene:
    """The whole scene.

    `seed` varies patterns and arrangements, `detail` scales mesh density and picture sizes; without `painted` the can
    has one colour all over. With `several`, all of `OBJECTS` are objects and stand near each other.
    """
    bench = Workbench(seed, detail)
    build_room(bench)
    build_still_life(bench, AROUND_THE_CAN if several else APART)
    bench.materials |= can_materials(bench.noise, painted)
    objects = {CAN: build_can(max(detail, 0.5))}
    if several:
        objects |= {name: [s for s in bench.parts if s.object == name] for name in AROUND_THE_CAN}
    surroundings = [surface for surface in bench.parts if surface.object not in objects]
    return DemoScene(surroundings, objects, bench.materials, bench.lights)
