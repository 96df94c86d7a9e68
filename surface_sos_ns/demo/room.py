"""The garden room around the demo's table: walls, windows, pictures, furniture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surface_sos_ns.demo.shapes import (
    Surface,
    blob,
    box,
    facing,
    grid_surface,
    placed,
    resample,
    revolve,
    rotation,
    rounded_box,
    sheet,
    smooth_path,
)
from surface_sos_ns.demo.workbench import Light, Workbench

HALF_X, HALF_Y, HEIGHT = 2.6, 2.3, 2.6  # metres
MIDDLE = np.array([0, 0, 1.3])


def build_room(bench: Workbench) -> None:
    """Everything but the table and what stands on it."""
    _shell(bench)
    _window(bench, "y", HALF_Y, (-1.15, 0.85), (0.75, 2.25), np.array([10.5, 10.9, 11.6]))
    _window(bench, "x", HALF_X, (-1.05, 0.9), (0.15, 2.2), np.array([4.8, 5.0, 5.4]))
    _curtains(bench, (-1.37, 0.99))
    corner, u, v = np.array([-0.35, 0.35, HEIGHT - 0.01]), np.array([0.7, 0, 0]), np.array([0, -0.7, 0])
    bench.lights.append(Light(corner, u, v, np.array([1.3, 1.1, 0.8])))
    _pictures(bench)
    _bookshelf(bench)
    _sideboard(bench)
    _armchair(bench)
    tall = [*bench.pot(0.36, 0.20), bench.soil(0.29, 0.17)]
    tall += placed(bench.plant(16, 1.15, 0.15), (0, 0, 0.28))
    bench.parts += placed(tall, (2.1, 1.8, 0))


def _shell(bench: Workbench) -> None:
    """Floor, rug, ceiling, papered walls, skirting boards."""
    px, step, hx, hy = bench.pixels, bench.step, HALF_X, HALF_Y
    parquet = bench.paint.planks(px(900), px(900), 22, [(0.58, 0.42, 0.28), (0.43, 0.29, 0.18)], 1.7)
    bench.picture("parquet", parquet, specular=0.35, roughness=0.22)
    bench.parts.append(sheet((-hx, -hy, 0), (2 * hx, 0, 0), (0, 2 * hy, 0), 0.09 * step, "parquet"))
    bench.plain("ceiling", (0.90, 0.89, 0.86), 0.02, 3.0)
    bench.parts.append(sheet((-hx, hy, HEIGHT), (2 * hx, 0, 0), (0, -2 * hy, 0), 0.2 * step, "ceiling"))
    warm = bench.paint.wallpaper(px(256), (0.80, 0.80, 0.69), (0.53, 0.61, 0.50), (0.70, 0.45, 0.36))
    cool = bench.paint.wallpaper(px(256), (0.66, 0.71, 0.66), (0.50, 0.58, 0.54), (0.82, 0.79, 0.68))
    tile = 0.62
    bench.picture("wallpaper x", warm, (2 * hy / tile, HEIGHT / tile))
    bench.picture("wallpaper y", cool, (2 * hx / tile, HEIGHT / tile))
    for name, corner, along in (
        ("wallpaper x", (-hx, hy, 0), (0, -2 * hy, 0)),
        ("wallpaper x", (hx, -hy, 0), (0, 2 * hy, 0)),
        ("wallpaper y", (hx, hy, 0), (-2 * hx, 0, 0)),
        ("wallpaper y", (-hx, -hy, 0), (2 * hx, 0, 0)),
    ):
        wall = sheet(corner, along, (0, 0, HEIGHT), 0.13 * step, name)
        bench.parts.append(facing(wall, MIDDLE, away=False))
    bench.plain("paint", (0.88, 0.86, 0.80), 0.03, 5.0, specular=0.3, roughness=0.2)
    for low, high in (
        ((-hx, hy - 0.02, 0), (hx, hy, 0.12)),
        ((-hx, -hy, 0), (hx, -hy + 0.02, 0.12)),
        ((-hx, -hy, 0), (-hx + 0.02, hy, 0.12)),
        ((hx - 0.02, -hy, 0), (hx, hy, 0.12)),
    ):
        bench.parts += box(low, high, 0.25 * step, "paint")
    bench.picture("rug", bench.paint.rug(px(420), px(560)))
    bench.parts += placed(rounded_box((2.7, 2.0, 0.02), 0.006, 0.09 * step, "rug"), (0, 0, 0.011))


def _window(
    bench: Workbench,
    axis: str,
    wall: float,
    low: tuple[float, float],
    high: tuple[float, float],
    radiance: np.ndarray,
) -> None:
    """A window with glazing bars and a sill in the wall at `axis` = `wall`; low and high are (along the wall, z)."""
    step = bench.step
    if "garden" not in bench.materials:
        view = bench.paint.landscape(bench.pixels(300), bench.pixels(420), 6.2, garden=True)
        bench.picture("garden", view, emission=7.0)
    (a0, z0), (a1, z1) = low, high
    up = np.array([0, 0, z1 - z0])
    if axis == "y":
        corner, along = np.array([a1, wall - 0.012, z0]), np.array([a0 - a1, 0, 0])
    else:
        corner, along = np.array([wall - 0.012, a0, z0]), np.array([0, a1 - a0, 0])
    pane = sheet(tuple(corner), tuple(along), tuple(up), 0.3, "garden")
    bench.parts.append(facing(pane, MIDDLE, away=False))
    into_room = np.cross(along, up) @ (MIDDLE - corner) > 0
    bench.lights.append(Light(corner, *((along, up) if into_room else (up, along)), radiance))

    def bar(s0: float, t0: float, s1: float, t1: float, depth: float) -> None:
        if axis == "y":
            bench.parts.extend(box((s0, wall - depth, t0), (s1, wall - 0.001, t1), 0.2 * step, "paint"))
        else:
            bench.parts.extend(box((wall - depth, s0, t0), (wall - 0.001, s1, t1), 0.2 * step, "paint"))

    for at in np.linspace(a0, a1, 4):
        half = 0.05 if at in (a0, a1) else 0.018
        bar(at - half, z0 - 0.05, at + half, z1 + 0.05, 0.05)
    for at in (z0, z0 + 0.62 * (z1 - z0), z1):
        bar(a0 - 0.05, at - 0.03, a1 + 0.05, at + 0.03, 0.045)
    bar(a0 - 0.12, z0 - 0.07, a1 + 0.12, z0 - 0.035, 0.17)


def _curtains(bench: Workbench, centres: tuple[float, float]) -> None:
    """Gathered curtains on the wall at y = HALF_Y."""
    bench.plain("curtain", (0.78, 0.70, 0.56), 0.10, 14.0)
    for centre in centres:
        s, t = np.meshgrid(np.linspace(0, 1, bench.count(60, 12)), np.linspace(0, 1, bench.count(14, 3)))
        wave = 0.035 * np.sin(2 * np.pi * 6.5 * s + 0.6 * np.sin(4 * t)) * (0.75 + 0.25 * t)
        points = np.stack([centre - 0.25 + 0.5 * s, HALF_Y - 0.11 + wave, 0.12 + 2.3 * t], -1)
        bench.parts.append(facing(grid_surface(points, "curtain"), np.array([0, -9.0, 1.2]), away=False))


def _pictures(bench: Workbench) -> None:
    """Framed pictures on all walls."""
    px, paint, step = bench.pixels, bench.paint, bench.step
    bench.plain("frame", (0.33, 0.22, 0.14), 0.18, 12.0, specular=0.6, roughness=0.12)
    bench.plain("gilt", (0.66, 0.52, 0.28), 0.2, 18.0, specular=1.0, roughness=0.2)
    hung = (
        ("-x", -0.15, 1.35, 0.62, 0.46, "gilt", paint.landscape(px(150), px(200), 1.2)),
        ("-x", 0.62, 1.45, 0.36, 0.50, "frame", paint.abstract(px(180), px(130), 2.4)),
        ("+x", 0.95, 1.45, 0.50, 0.66, "frame", paint.abstract(px(200), px(150), 3.1)),
        ("-y", -1.55, 1.50, 0.80, 0.58, "gilt", paint.landscape(px(180), px(250), 4.4)),
        ("-y", 0.35, 1.55, 0.44, 0.56, "frame", paint.abstract(px(190), px(150), 5.9)),
        ("-y", 0.98, 1.48, 0.40, 0.40, "frame", paint.landscape(px(150), px(150), 7.3)),
        ("+y", 1.75, 1.5, 0.42, 0.56, "frame", paint.landscape(px(190), px(140), 8.8)),
    )
    for k, (side, at, z, width, tall, frame, image) in enumerate(hung):
        bench.picture(f"picture {k}", image, specular=0.3, roughness=0.03)
        # Built against the wall y = -HALF_Y, then turned to its wall.
        turn = {"-y": 0.0, "+x": 90.0, "+y": 180.0, "-x": -90.0}[side]
        distance = HALF_Y if side[1] == "y" else HALF_X
        x, y, b = width / 2, tall / 2, 0.045
        pieces = [sheet((x, 0.022, -y), (-width, 0, 0), (0, 0, tall), 0.1 * step, f"picture {k}")]
        for low, high in (
            ((-x - b, 0, -y - b), (x + b, 0.035, -y)),
            ((-x - b, 0, y), (x + b, 0.035, y + b)),
            ((-x - b, 0, -y), (-x, 0.035, y)),
            ((x, 0, -y), (x + b, 0.035, y)),
        ):
            pieces += box(low, high, 0.12 * step, frame)
        bench.parts += placed(placed(pieces, (at, -distance + 0.001, z)), (0, 0, 0), rotation("z", turn))


def _bookshelf(bench: Workbench) -> None:
    """Five shelves of books against the wall at x = -HALF_X."""
    step, rng = bench.step, bench.rng
    wood = [(0.48, 0.33, 0.21), (0.34, 0.22, 0.13)]
    board = bench.paint.planks(bench.pixels(256), bench.pixels(512), 3, wood, 2.9, staggered=False)
    bench.picture("board", board, specular=0.35, roughness=0.15)
    bench.picture("spines", bench.paint.spines(bench.pixels(150), 60), specular=0.2, roughness=0.2)
    bench.plain("paper", (0.84, 0.80, 0.70), 0.08, 40.0)
    x, first, last = -HALF_X + 0.001, 0.95, 2.1
    levels = np.linspace(0.08, 1.95, 6)
    for z in levels:
        bench.parts += box((x, first, z - 0.012), (x + 0.30, last, z + 0.012), 0.12 * step, "board")
    for y in (first, last):
        bench.parts += box((x, y - 0.012, 0), (x + 0.305, y + 0.012, 1.975), 0.12 * step, "board")
    for z in levels[:-1]:
        y = first + 0.03
        while y < last - 0.12:
            width, tall = rng.uniform(0.05, 0.14), rng.uniform(0.20, 0.32)
            deep, start = rng.uniform(0.17, 0.25), rng.uniform(0, 1)
            low, high = (x + 0.01, y, z + 0.012), (x + 0.01 + deep, y + width, z + 0.012 + tall)
            for side in box(low, high, 0.16 * step, {"+z": "paper", "": "spines"}):
                bench.parts.append(replace(side, uv=side.uv * [width * 0.55, 1.0] + [start, 0.0]))
            y += width + (0.003 if rng.uniform() < 0.8 else 0.07)


def _sideboard(bench: Workbench) -> None:
    """A sideboard against the wall at y = -HALF_Y with a vase, a stack of books and a lamp on it."""
    step, back = bench.step, -HALF_Y
    wood = [(0.62, 0.46, 0.30), (0.50, 0.35, 0.21)]
    front = bench.paint.planks(bench.pixels(200), bench.pixels(512), 4, wood, 4.9, staggered=False)
    bench.picture("front", front, specular=0.4, roughness=0.12)
    bench.parts += placed(rounded_box((1.7, 0.44, 0.66), 0.012, 0.11 * step, "front"), (0.15, back + 0.23, 0.43))
    for x in (-0.25, 0.15, 0.55):
        bench.parts += box((x - 0.004, back + 0.452, 0.14), (x + 0.004, back + 0.455, 0.72), 0.3, "frame")
        bench.parts.append(blob((0.014, 0.014, 0.014), 7, "gilt").moved((x + 0.05, back + 0.465, 0.45)))
    for x in (-0.6, 0.9):
        for y in (back + 0.07, back + 0.40):
            bench.parts += box((x - 0.02, y - 0.02, 0), (x + 0.02, y + 0.02, 0.12), 0.3, "frame")
    bench.plain("glaze", (0.22, 0.34, 0.42), 0.35, 6.0, specular=1.0, roughness=0.05)
    bench.plain("shade", (0.90, 0.82, 0.64), 0.06, 30.0)
    top = 0.76
    outside = smooth_path([(0.05, 0), (0.105, 0.10), (0.085, 0.21), (0.035, 0.29), (0.05, 0.34)], bench.count(30, 6))
    vase = np.concatenate([[(0, 0)], outside, outside[::-1] - [0.008, -0.001], [(0, 0.28)]])
    bench.parts.append(revolve(np.maximum(vase, 0), bench.count(28), "glaze").moved((-0.42, back + 0.24, top)))
    foot = [(0, 0), (0.08, 0), (0.085, 0.015), (0.02, 0.03), (0.015, 0.05), (0.055, 0.12), (0.05, 0.18)]
    foot += [(0.012, 0.22), (0.01, 0.34), (0, 0.34)]
    bench.parts.append(revolve(resample(foot, 40), 20, "terracotta").moved((0.72, back + 0.22, top)))
    shade = resample([(0.17, 0.27), (0.10, 0.50), (0.097, 0.50), (0.166, 0.27)], bench.count(24, 4))
    bench.parts.append(revolve(shade, bench.count(30), "shade").moved((0.72, back + 0.22, top)))
    z = top
    for k, (width, deep, thick) in enumerate(((0.26, 0.19, 0.035), (0.24, 0.17, 0.028), (0.21, 0.15, 0.04))):
        sides = {"+z": f"cover {k}", "+x": "paper", "": "spines"}
        book = rounded_box((width, deep, thick), 0.004, 0.12 * step, sides)
        bench.parts += placed(book, (0.2, back + 0.24, z + thick / 2), rotation("z", 8.0 * k - 12))
        z += thick


def _armchair(bench: Workbench) -> None:
    """An armchair with a cushion in a corner."""
    spacing, px = 0.09 * bench.step, bench.pixels
    cloth = bench.paint.weave(px(256), (0.48, 0.53, 0.44), (0.40, 0.45, 0.38), 9)
    bench.picture("chair", cloth, (2, 2))
    bench.picture("cushion", bench.paint.weave(px(256), (0.80, 0.72, 0.58), (0.60, 0.26, 0.20), 4))
    chair: list[Surface] = []
    for size, radius, at in (
        ((0.72, 0.70, 0.26), 0.05, (0, 0, 0.29)),
        ((0.60, 0.56, 0.12), 0.05, (0, 0.06, 0.46)),
        ((0.74, 0.18, 0.66), 0.07, (0, -0.32, 0.60)),
        ((0.15, 0.74, 0.46), 0.06, (-0.40, 0.02, 0.40)),
        ((0.15, 0.74, 0.46), 0.06, (0.40, 0.02, 0.40)),
    ):
        chair += placed(rounded_box(size, radius, spacing, "chair"), at)
    cushion = rounded_box((0.40, 0.12, 0.36), 0.05, 0.07 * bench.step, "cushion")
    chair += placed(cushion, (0.08, -0.14, 0.66), rotation("x", 18) @ rotation("y", 9))
    bench.parts += placed(chair, (1.85, -1.55, 0), rotation("z", 42))
