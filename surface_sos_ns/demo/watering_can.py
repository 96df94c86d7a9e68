"""The demo's object: an enamelled watering can with a sprig of flowers, two handles, a spout, and some rust."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surface_sos_ns.demo.shapes import Surface, facing, resample, revolve, rotation, smooth_path, sweep
from surface_sos_ns.demo.textures import Noise, linear, mix, smoothstep
from surface_sos_ns.demo.workbench import TABLE_TOP, Material

PLACE = np.array([-0.03, 0.0, TABLE_TOP])  # metres, where it stands
TURN = 24.0  # degrees about z
# (3,) metres, capture frame: where photographers look.
CENTRE = PLACE + rotation("z", TURN) @ np.array([0.035, 0.0, 0.155])


def can_materials(noise: Noise, painted: bool = True) -> dict[str, Material]:
    """Cream and green enamel with a painted sprig, chips down to the rusty iron, brass fittings.

    Where it is not `painted`, all materials are one: plain cream enamel. The colour then tells no part from another.
    """
    cream, green, leaf_green = linear((0.86, 0.82, 0.70)), linear((0.28, 0.40, 0.29)), linear((0.38, 0.50, 0.30))
    petal, rust, iron = linear((0.67, 0.24, 0.20)), linear((0.47, 0.24, 0.12)), linear((0.13, 0.11, 0.10))
    back = rotation("z", -TURN)

    def local(points: np.ndarray) -> np.ndarray:
        return ((points - PLACE) @ back.T).astype(np.float32)

    def chips(p: np.ndarray, colour: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
        worn = noise(p + 3.1, 14.0, 3) - 0.35 + amount
        colour = colour + (rust - colour) * smoothstep(1.75, 2.0, worn)[:, None]
        return colour + (iron - colour) * smoothstep(2.1, 2.25, worn)[:, None]

    def body(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        p = local(points)
        stained = 1 + 0.07 * noise(p, 7.0, 3)
        colour = np.repeat(cream[None], len(p), axis=0)
        angle, z = np.arctan2(p[:, 1], p[:, 0]), p[:, 2]
        # The sprig: flowers around the belly, each a six-petalled rose with leaves beside it.
        around = angle * 5 / (2 * np.pi)
        dx = (around - np.round(around)) * 2 * np.pi / 5 * 0.12
        dz = z - 0.112 - 0.010 * np.cos(2 * np.pi * np.round(around) / 2.5)
        r, turn = np.hypot(dx, dz), np.arctan2(dz, dx)
        rose = r < 0.021 * (0.78 + 0.22 * np.cos(6 * turn))
        heart = r < 0.007
        side = np.abs(dx) - 0.034
        leaves = (side / 0.017) ** 2 + ((dz - 0.35 * np.abs(dx) + 0.014) / 0.0075) ** 2 < 1
        stem = (np.abs(dz + 0.02 - 0.012 * np.cos(around * 2 * np.pi)) < 0.0022) & (np.abs(dx) > 0.012)
        colour[leaves | stem] = leaf_green
        colour[rose] = petal
        colour[heart] = linear((0.85, 0.66, 0.25))
        colour[(z < 0.034) | (z > 0.192)] = green
        colour[(np.abs(z - 0.046) < 0.0035) | (np.abs(z - 0.180) < 0.003)] = green
        edge = 0.55 * smoothstep(0.02, 0.0, z) + 0.35 * smoothstep(0.205, 0.222, z)
        return chips(p, colour * stained[:, None], edge)

    def trim(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        p = local(points)
        colour = green * (1 + 0.10 * noise(p, 11.0, 2))[:, None]
        return chips(p, colour, 0.1)

    def spout(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        p = local(points)
        colour = mix(cream, green, smoothstep(0.262, 0.266, p[:, 0]))
        return chips(p, colour * (1 + 0.08 * noise(p, 9.0, 2))[:, None], 0.15)

    def inside(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        p = local(points)
        return mix(linear((0.72, 0.70, 0.62)), rust, smoothstep(-0.6, 1.2, noise(p, 8.0, 2) + 4 * (0.1 - p[:, 2])))

    def brass(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        p = local(points)
        return mix(linear((0.70, 0.53, 0.26)), linear((0.36, 0.30, 0.20)), smoothstep(-0.4, 1.3, noise(p, 16.0, 2)))

    def rose_plate(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
        # Holes in rings on the sprinkler's face; uv = (angle, distance from the rim's outside to the middle).
        ring = uv[:, 1] * 5
        slot = uv[:, 0] * np.maximum(np.floor(6 * (5.5 - ring)), 1)
        hole = (np.abs(ring - np.round(ring)) < 0.22) & (np.abs(slot - np.round(slot)) < 0.25)
        return np.where(hole[:, None], 0.02, brass(points, uv)).astype(np.float32)

    materials = {
        "enamel": Material(body, 1.0, 0.05),
        "enamel trim": Material(trim, 1.0, 0.06),
        "enamel spout": Material(spout, 1.0, 0.06),
        "enamel inside": Material(inside, 0.3, 0.3),
        "brass": Material(brass, 2.5, 0.18),
        "rose plate": Material(rose_plate, 1.5, 0.2),
    }
    plain = Material(lambda points, uv: np.repeat(cream[None], len(points), axis=0), 1.0, 0.05)
    return materials if painted else dict.fromkeys(materials, plain)


def build_can(detail: float = 1.0) -> list[Surface]:
    """The watering can, in the capture frame: body with ribs, spout with rose, brace, arched and back handle.

    Its surfaces interpenetrate (their union is the object). Each names its part: body (with its lining), spout (with
    the collar at its root), rose, arched handle, back handle or brace. `detail` scales the density of the mesh.
    """
    around = max(24, int(72 * detail))
    fine = max(12, int(26 * detail))

    def ring(z: float, r: float, bulge: float) -> list[tuple[float, float]]:
        angle = np.linspace(-np.pi / 2, np.pi / 2, 7)
        return [(r + bulge * float(np.cos(a)), z + bulge * float(np.sin(a))) for a in angle]

    outer = [(0.0, 0.0), (0.05, 0.0), (0.104, 0.001)]
    outer += ring(0.008, 0.107, 0.006)
    outer += [(0.1065, 0.018), (0.108, 0.05), (0.1085, 0.08), (0.108, 0.12), (0.1065, 0.16), (0.105, 0.172)]
    outer += ring(0.178, 0.104, 0.004)
    outer += [(0.103, 0.185), (0.099, 0.197), (0.091, 0.206), (0.082, 0.212), (0.0765, 0.217), (0.075, 0.226)]
    outer += ring(0.234, 0.075, 0.005)
    inner = [
        (0.0725, 0.232),
        (0.072, 0.220),
        (0.078, 0.209),
        (0.095, 0.195),
        (0.100, 0.17),
        (0.103, 0.10),
        (0.102, 0.01),
    ]
    inner += [(0.05, 0.008), (0.0, 0.008)]
    # The vessel is one closed shell, outside and inside, so that one sees into it; two materials share its seam.
    shell = revolve(resample(outer, int(92 * detail)), around, "enamel", closed=False)
    lining = revolve(resample(inner, int(40 * detail)), around, "enamel inside", closed=False)
    middle = np.array([0, 0, 0.1])
    surfaces: list[Surface] = []

    def add(part: str, *pieces: Surface) -> None:
        surfaces.extend(replace(piece, part=part) for piece in pieces)

    add("body", facing(shell, middle, away=True), facing(lining, middle, away=False))

    tube = smooth_path(
        [(0.07, 0, 0.045), (0.135, 0, 0.062), (0.185, 0, 0.125), (0.225, 0, 0.205), (0.285, 0, 0.262)], int(60 * detail)
    )
    add("spout", sweep(tube, np.linspace(0.026, 0.0125, len(tube)), fine, "enamel spout"))
    collar = np.array([[0.085, 0, 0.048], [0.112, 0, 0.054]])
    add("spout", sweep(resample(collar, 8), 0.030, fine, "enamel trim"))
    direction = tube[-1] - tube[-4]
    direction /= np.linalg.norm(direction)
    tilt = rotation("y", float(np.degrees(np.arctan2(direction[0], direction[2]))))
    cone = resample([(0.013, -0.012), (0.0135, 0.0), (0.033, 0.040), (0.036, 0.046), (0.0345, 0.050)], int(26 * detail))
    face = resample([(0.0345, 0.050), (0.030, 0.053), (0.018, 0.0565), (0.0, 0.058)], int(22 * detail))
    for profile, material in ((cone, "brass"), (face, "rose plate")):
        piece = facing(revolve(profile, fine + 8, material, closed=False), np.array([0, 0, 0.02]), away=True)
        add("rose", piece.moved(tube[-1], tilt))

    arch = smooth_path(
        [
            (0.070, 0, 0.205),
            (0.078, 0, 0.262),
            (0.045, 0, 0.325),
            (-0.025, 0, 0.345),
            (-0.085, 0, 0.300),
            (-0.098, 0, 0.19),
        ],
        int(70 * detail),
    )
    add("arched handle", sweep(arch, 0.0105, fine, "enamel trim", flatten=1.25))
    grip = smooth_path(
        [(-0.098, 0, 0.165), (-0.150, 0, 0.185), (-0.192, 0, 0.145), (-0.178, 0, 0.085), (-0.100, 0, 0.050)],
        int(60 * detail),
    )
    add("back handle", sweep(grip, 0.0110, fine, "enamel trim"))
    brace = smooth_path([(0.090, 0, 0.200), (0.140, 0, 0.215), (0.222, 0, 0.200)], int(30 * detail))
    add("brace", sweep(brace, 0.0065, max(10, fine // 2), "brass"))
    turn = rotation("z", TURN)
    return [surface.moved(PLACE, turn) for surface in surfaces]
