"""The demo's table and what lies on it besides the object: pots, books, fruit, a mug, seed packets, a trowel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from surface_sos_ns.demo.shapes import (
    Surface,
    blob,
    box,
    leaf,
    placed,
    resample,
    revolve,
    rotation,
    rounded_box,
    smooth_path,
    sweep,
)
from surface_sos_ns.demo.textures import linear, mix, smoothstep
from surface_sos_ns.demo.workbench import TABLE_TOP, Material, Workbench

SIZE = (1.70, 1.20)  # of the table top, metres

COVERS = (
    (["THE", "KITCHEN", "GARDEN"], (0.30, 0.41, 0.31), (0.86, 0.80, 0.62)),
    (["FERNS", "& MOSSES"], (0.80, 0.76, 0.64), (0.35, 0.24, 0.18)),
    (["A YEAR", "OUTDOORS"], (0.52, 0.22, 0.17), (0.88, 0.80, 0.64)),
    (["SWEET", "PEA"], (0.84, 0.80, 0.68), (0.62, 0.26, 0.34)),
    (["RUNNER", "BEAN"], (0.42, 0.54, 0.38), (0.90, 0.86, 0.70)),
)


class Place(NamedTuple):
    """Where a thing stands on the table: x and y in metres, its turn about z in degrees, and a factor on its size."""

    x: float
    y: float
    turn: float
    size: float = 1.0


APART: Mapping[str, Place] = {
    "mug": Place(0.10, 0.43, 150),
    "pot": Place(0.44, 0.31, -28),
    "books": Place(0.50, -0.30, 0),
    "lemon": Place(0.52, -0.29, 40),
}
"""The things that may be objects, where the watering can is the only one: well away from it."""

AROUND_THE_CAN: Mapping[str, Place] = {
    "mug": Place(0.05, 0.26, 150),
    "pot": Place(0.32, 0.20, -28),
    "books": Place(0.26, -0.26, 0),
    "lemon": Place(0.28, -0.25, 40, 1.15),
}
"""The same things as objects beside the can: near enough to be in most photos, and to hide each other in some."""


def build_still_life(bench: Workbench, places: Mapping[str, Place]) -> None:
    """The table and everything on it but the can; `places` of the mug, the pot lying, the books and their lemon."""
    _materials(bench)
    _table(bench)
    _pots(bench, places["pot"])
    _books(bench, places["books"], places["lemon"])
    _mug(bench, places["mug"])
    _fruit(bench)
    _packets_and_trowel(bench)
    _seedlings(bench)


def _put(bench: Workbench, pieces: list[Surface], x: float, y: float, turn: float = 0.0, lift: float = 0.0) -> None:
    bench.parts.extend(placed(pieces, (x, y, TABLE_TOP + lift), rotation("z", turn)))


def _put_thing(bench: Workbench, name: str, pieces: list[Surface], place: Place, lift: float = 0.0) -> None:
    """Puts a thing that may be an object of the capture on the table."""
    _put(bench, [replace(piece, object=name) for piece in pieces], place.x, place.y, place.turn, lift)


def _materials(bench: Workbench) -> None:
    noise = bench.noise
    clay, lime = linear((0.64, 0.38, 0.26)), linear((0.80, 0.72, 0.62))
    leaf_dark, leaf_light = linear((0.20, 0.34, 0.18)), linear((0.50, 0.60, 0.36))

    def terracotta(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        bloom = smoothstep(0.2, 1.6, noise(points, 7.0, 3))
        return mix(clay, lime, 0.6 * bloom) * (1 + 0.06 * noise(points, 40.0, 1))[:, None]

    def foliage(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        across = np.abs((uv[:, 0] * 2) % 1 - 0.42)
        veins = 0.5 + 0.5 * np.sin(uv[:, 1] * 60 + across * 14)
        return mix(leaf_dark, leaf_light, 0.45 * veins + 0.45 * (across < 0.06) + 0.1 * noise(points, 9.0, 1))

    def lemon(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        return mix(linear((0.88, 0.74, 0.24)), linear((0.70, 0.66, 0.26)), smoothstep(0.3, 1.8, noise(points, 14.0, 3)))

    def marble(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        vein = np.abs(np.sin(22 * points[:, 0] + 13 * points[:, 1] + 2.4 * noise(points, 6.0, 3)))
        return mix(linear((0.45, 0.44, 0.44)), linear((0.86, 0.84, 0.80)), smoothstep(0.0, 0.45, vein))

    def yarn(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        strands = np.sin(300 * points[:, 0] + 12 * noise(points, 14.0, 1))
        strands = strands * np.sin(260 * points[:, 2] + 170 * points[:, 1])
        return mix(linear((0.52, 0.20, 0.20)), linear((0.74, 0.40, 0.34)), 0.5 + 0.5 * strands)

    def striped(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        z = points[:, 2] - TABLE_TOP
        band = (np.sin(z * 330) > 0.3) & (z > 0.02) & (z < 0.085)
        speckle = smoothstep(0.6, 1.8, noise(points, 30.0, 2))
        glaze = mix(linear((0.78, 0.76, 0.70)), linear((0.58, 0.53, 0.45)), speckle)
        return np.where(band[:, None], linear((0.25, 0.36, 0.45)), glaze).astype(np.float32)

    bench.materials |= {
        "terracotta": Material(terracotta),
        "leaf": Material(foliage, 0.5, 0.2),
        "lemon": Material(lemon, 0.6, 0.2),
        "marble": Material(marble, 0.8, 0.05),
        "ball": Material(yarn),
        "mug": Material(striped, 1.0, 0.05),
    }
    bench.plain("soil", (0.20, 0.15, 0.11), 0.5, 40.0)
    bench.plain("handle wood", (0.62, 0.40, 0.22), 0.25, 22.0, specular=0.5, roughness=0.12)
    bench.plain("steel", (0.46, 0.47, 0.47), 0.25, 20.0, specular=2.5, roughness=0.15)
    px = bench.pixels
    bench.picture("napkin", bench.paint.weave(px(256), (0.86, 0.84, 0.78), (0.36, 0.46, 0.36), 6))
    pale = [(0.74, 0.62, 0.45), (0.60, 0.47, 0.32)]
    bench.picture("crate", bench.paint.planks(px(128), px(256), 4, pale, 7.7, staggered=False))
    for k, (title, ground, ink) in enumerate(COVERS):
        cover = bench.paint.cover(px(220), px(160), title, ground, ink, 0.9 + k)
        bench.picture(f"cover {k}", cover, specular=0.35, roughness=0.15)


def _table(bench: Workbench) -> None:
    x, y = SIZE
    wood = [(0.66, 0.47, 0.29), (0.49, 0.31, 0.17)]
    top = bench.paint.planks(bench.pixels(700), bench.pixels(900), 6, wood, 0.6, staggered=False)
    bench.picture("table", top, specular=0.4, roughness=0.09)
    sides = {"+z": "table", "": "board"}
    # Shadows fall on the top: its mesh is as fine as the pictures' pixels, that of the edges need not be.
    fine = rounded_box((x, y, 0.035), 0.006, 0.0095 * bench.step, sides)
    coarse = rounded_box((x, y, 0.035), 0.006, 0.08 * bench.step, sides)
    chosen = [p for p in fine if p.material == "table"] + [p for p in coarse if p.material != "table"]
    bench.parts += placed(chosen, (0, 0, TABLE_TOP - 0.0175))
    low, high = (-x / 2 + 0.09, -y / 2 + 0.09, 0.62), (x / 2 - 0.09, y / 2 - 0.09, 0.72)
    bench.parts += box(low, high, 0.1 * bench.step, "board")
    profile = resample([(0, 0), (0.022, 0), (0.034, 0.5), (0.036, 0.7), (0, 0.7)], bench.count(16, 6))
    for side in (-1, 1):
        for end in (-1, 1):
            leg = revolve(profile, 14, "board")
            bench.parts.append(leg.moved((side * (x / 2 - 0.12), end * (y / 2 - 0.12), 0.021)))


def _pots(bench: Workbench, place: Place) -> None:
    potted = [*bench.pot(0.12, 0.075), bench.soil(0.095, 0.066)]
    _put(bench, potted + placed(bench.plant(15, 0.26, 0.05), (0, 0, 0.09)), -0.50, 0.34)
    fallen = placed(bench.pot(0.10, 0.062), (0, 0, 0.058), rotation("y", 82))
    _put_thing(bench, "pot", fallen, place)


def _books(bench: Workbench, place: Place, lemon: Place) -> None:
    z = 0.0
    for k, (width, deep, thick, turn) in enumerate(
        ((0.26, 0.19, 0.042, 14), (0.23, 0.165, 0.030, -9), (0.21, 0.15, 0.036, 31))
    ):
        # Title side up; one long side is the spine, the other three show the pages.
        sides = {"+z": f"cover {k}", "-z": f"cover {k}", "-y": f"cover {k}", "": "paper"}
        book = [
            replace(side, uv=side.uv[:, ::-1] * [1, -1] + [0, 1]) if side.material.startswith("cover") else side
            for side in rounded_box((width, deep, thick), 0.003, 0.02 * bench.step, sides)
        ]
        _put_thing(bench, "books", book, place._replace(turn=place.turn + turn), z + thick / 2 + 0.0005)
        z += thick + 0.0005
    radii = (0.036 * lemon.size, 0.030 * lemon.size, 0.030 * lemon.size)
    _put_thing(bench, "lemon", [blob(radii, bench.count(14, 6), "lemon")], lemon, z + radii[2])


def _mug(bench: Workbench, place: Place) -> None:
    wall = [(0, 0), (0.036, 0), (0.040, 0.003), (0.041, 0.05), (0.042, 0.097), (0.0405, 0.1), (0.038, 0.097)]
    wall += [(0.037, 0.012), (0, 0.010)]
    ear = smooth_path([(0.038, 0, 0.080), (0.066, 0, 0.080), (0.070, 0, 0.050), (0.038, 0, 0.022)], bench.count(30, 6))
    mug = [revolve(resample(wall, bench.count(60)), bench.count(44), "mug"), sweep(ear, 0.0058, 12, "mug")]
    _put_thing(bench, "mug", mug, place)


def _fruit(bench: Workbench) -> None:
    _put(bench, rounded_box((0.34, 0.30, 0.006), 0.0025, 0.014 * bench.step, "napkin"), -0.44, -0.31, 17, 0.003)
    dish = [(0, 0.004), (0.06, 0.004), (0.105, 0.018), (0.110, 0.022), (0.107, 0.024), (0.06, 0.010), (0, 0.009)]
    _put(bench, [revolve(resample(dish, bench.count(50)), bench.count(56), "marble")], -0.44, -0.31, 0, 0.006)
    for x, y, turn, up in ((-0.475, -0.33, 20, 0.045), (-0.405, -0.335, 100, 0.045), (-0.435, -0.265, 60, 0.046)):
        _put(bench, [blob((0.040, 0.0315, 0.0315), bench.count(16, 6), "lemon")], x, y, turn, up)
    _put(bench, [blob((0.046, 0.046, 0.046), bench.count(20, 6), "ball")], -0.66, -0.02, 0, 0.0455)


def _packets_and_trowel(bench: Workbench) -> None:
    for k, (x, y, turn, lift) in enumerate(((0.06, -0.42, -14, 0.0028), (0.15, -0.45, 24, 0.0075))):
        sides = {"+z": f"cover {3 + k}", "": "paper"}
        _put(bench, rounded_box((0.085, 0.125, 0.004), 0.0015, 0.014 * bench.step, sides), x, y, turn, lift)
    knob = [(0, 0), (0.006, 0.0), (0.013, 0.02), (0.011, 0.06), (0.0135, 0.10), (0.009, 0.115), (0, 0.116)]
    trowel = placed([revolve(resample(knob, 34), 16, "handle wood")], (0, 0, 0.0135), rotation("y", -90))
    neck = smooth_path([(0, 0, 0.0135), (0.03, 0, 0.017), (0.065, 0, 0.010)], 14)
    spine = smooth_path([(0.05, 0, 0.013), (0.10, 0, 0.006), (0.17, 0, 0.004)], bench.count(20, 5))
    trowel += [sweep(neck, 0.004, 10, "steel"), leaf(spine, 0.062, np.array([0, 1.0, 0]), "steel")]
    _put(bench, trowel, 0.62, 0.06, -72)


def _seedlings(bench: Workbench) -> None:
    """A wooden tray with three small pots."""
    tray: list[Surface] = []
    for low, high in (
        ((-0.10, -0.07, 0), (0.10, 0.07, 0.008)),
        ((-0.10, -0.07, 0), (0.10, -0.062, 0.085)),
        ((-0.10, 0.062, 0), (0.10, 0.07, 0.085)),
        ((-0.10, -0.062, 0), (-0.092, 0.062, 0.085)),
        ((0.092, -0.062, 0), (0.10, 0.062, 0.085)),
    ):
        tray += box(low, high, 0.014 * bench.step, "crate")
    for x in (-0.055, 0.0, 0.055):
        y = 0.01 * float(np.sign(x))
        tray += placed(bench.pot(0.07, 0.027, 0.6), (x, y, 0.009))
        tray += placed(bench.plant(6, 0.10, 0.026, 0.6), (x, y, 0.06))
    _put(bench, tray, -0.20, 0.44, -11)
