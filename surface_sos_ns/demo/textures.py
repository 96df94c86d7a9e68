"""Procedural colours of the demo scene: smooth noise in space, and painted pictures made at run time.

Colours are linear RGB reflectances in 0..1; pictures are (H, W, 3) float32, row 0 at texture coordinate v = 1.
"""

from __future__ import annotations

import cv2
import numpy as np


def linear(colour: np.ndarray | tuple | list) -> np.ndarray:
    """sRGB in 0..1 to linear light (IEC 61966-2-1)."""
    c = np.asarray(colour, dtype=np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((np.maximum(c, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


class Noise:
    """Smooth periodic noise in space: a band-limited random volume, looked up linearly; zero mean, unit deviation."""

    def __init__(self, seed: int, size: int = 48):
        rng = np.random.default_rng([seed, 77])
        frequency = np.fft.fftfreq(size) * size
        fx, fy, fz = np.meshgrid(frequency, frequency, frequency[: size // 2 + 1], indexing="ij")
        band = np.sqrt(fx**2 + fy**2 + fz**2) / size
        # One wave per 5..16 voxels: linear interpolation is then indistinguishable from smooth.
        spectrum = np.fft.rfftn(rng.standard_normal((size, size, size))) * np.exp(-(((band - 0.11) / 0.05) ** 2))
        volume = np.fft.irfftn(spectrum, s=(size, size, size))
        self.volume = (volume / volume.std()).astype(np.float32)
        self.period = 8.0  # one wave of noise per unit length, about

    def __call__(self, points: np.ndarray, frequency: float | tuple = 1.0, octaves: int = 1) -> np.ndarray:
        """Noise at (N, 3) points, `frequency` waves per metre; each further octave doubles it and halves its share."""
        from scipy.ndimage import map_coordinates

        total = np.zeros(len(points), dtype=np.float32)
        scale, share = np.asarray(frequency, dtype=np.float32) * self.period, 1.0
        for octave in range(octaves):
            at = (points * scale + 5.3 * octave).T.astype(np.float32)
            total += share * map_coordinates(self.volume, at, order=1, mode="grid-wrap", prefilter=False)
            scale, share = scale * 2, share / 2
        return total


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: np.ndarray | tuple, b: np.ndarray | tuple, t: np.ndarray) -> np.ndarray:
    """(N, 3) blend of two colours by t (N,)."""
    a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    return a + (b - a) * np.asarray(t, dtype=np.float32)[..., None]


def lookup(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N, 3) colours of a tiling picture at texture coordinates (N, 2), bilinear."""
    height, width = picture.shape[:2]
    columns = 1024  # OpenCV's remap wants images, not long lists
    rows = -(-len(uv) // columns)
    at = np.zeros((rows * columns, 2), dtype=np.float32)
    at[: len(uv), 0] = (uv[:, 0] % 1.0) * width - 0.5
    at[: len(uv), 1] = ((1.0 - uv[:, 1]) % 1.0) * height - 0.5
    grid = at.reshape(rows, columns, 2)
    found = cv2.remap(picture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return found.reshape(-1, 3)[: len(uv)]


class Painter:
    """Paints the scene's pictures; every picture depends on the seed alone."""

    def __init__(self, seed: int, noise: Noise):
        self.seed = seed
        self.noise = noise

    def _field(
        self, height: int, width: int, frequency: tuple[float, float], slot: float, octaves: int = 3
    ) -> np.ndarray:
        """(H, W) noise over a picture, `frequency` waves per picture along (u, v)."""
        u, v = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
        points = np.stack([u.ravel(), v.ravel(), np.full(u.size, slot)], axis=1).astype(np.float32)
        # The slot picks a plane of the noise volume, in units that frequency must not scale.
        return self.noise(points, (*frequency, 1.0), octaves).reshape(height, width)

    def planks(
        self, height: int, width: int, rows: int, colours: list, slot: float, *, staggered: bool = True
    ) -> np.ndarray:
        """Wooden boards along u: growth-ring streaks, a tint and an offset per board, dark joints."""
        rng = np.random.default_rng([self.seed, int(slot * 100), 1])
        v = np.arange(height) / height * rows
        board = v.astype(int)
        joint = np.minimum(v - board, board + 1 - v) * height / rows
        picture = np.zeros((height, width, 3), dtype=np.float32)
        base = np.asarray(colours, dtype=np.float32)
        for row in range(rows):
            lines = board == row
            count = int(lines.sum())
            grain = self._field(count, width, (3.0, 14.0 / rows * 1.6), slot + 0.37 * row, 2)
            rings = 0.5 + 0.5 * np.sin(9 * grain + np.linspace(0, 9, count)[:, None])
            fibre = self._field(count, width, (6.0, 130.0 / rows), slot + 0.5 + 0.37 * row, 2)
            cuts = np.sort(rng.uniform(0, 1, 2)) if staggered else np.array([])
            part = np.searchsorted(cuts, np.arange(width) / width)
            tint = rng.uniform(0.78, 1.12, (len(cuts) + 1, 1)) * rng.uniform(0.96, 1.04, (len(cuts) + 1, 3))
            tint[-1] = tint[0] if len(cuts) else tint[-1]
            mixed = base[0] + (base[1] - base[0]) * np.clip(0.65 * rings + 0.16 * fibre + 0.2, 0, 1)[..., None]
            picture[lines] = mixed * tint[part]
            for cut in cuts:
                at = int(cut * width)
                picture[lines, max(at - 1, 0) : at + 1] *= 0.45
        picture *= (0.45 + 0.55 * np.clip(joint / 2.0, 0, 1))[:, None, None]
        return linear(np.clip(picture, 0, 1))

    def wallpaper(self, size: int, ground: tuple, ink: tuple, accent: tuple) -> np.ndarray:
        """A tile of a leafy trellis print."""
        scale = 4
        canvas = np.full((size * scale, size * scale, 3), ground, dtype=np.float32)
        s = size * scale

        def stem(points: np.ndarray, colour: tuple, width: int) -> None:
            for dx in (-s, 0, s):
                for dy in (-s, 0, s):
                    cv2.polylines(
                        canvas, [(points + np.array([dx, dy])).astype(np.int32)], False, colour, width, cv2.LINE_AA
                    )

        def petal(centre: tuple, angle: float, length: float, width: float, colour: tuple) -> None:
            t = np.linspace(0, 2 * np.pi, 24)
            shape = np.stack([length * (0.5 + 0.5 * np.cos(t)), width * np.sin(t) * (0.6 - 0.4 * np.cos(t))], 1)
            c, n = np.cos(angle), np.sin(angle)
            points = shape @ np.array([[c, n], [-n, c]]) + centre
            for dx in (-s, 0, s):
                for dy in (-s, 0, s):
                    cv2.fillPoly(canvas, [(points + np.array([dx, dy])).astype(np.int32)], colour, cv2.LINE_AA)

        t = np.linspace(0, 1, 40)
        for base, sign in ((0.25, 1), (0.75, -1)):
            x = (base + 0.11 * np.sin(2 * np.pi * t) * sign) * s
            stem(np.stack([x, t * s], 1), ink, 3 * scale)
            for k, at in enumerate(np.linspace(0.06, 0.94, 8)):
                side = 1 if k % 2 else -1
                where = ((base + 0.11 * np.sin(2 * np.pi * at) * sign) * s, at * s)
                petal(where, np.pi / 2 + side * 1.05, 0.15 * s, 0.045 * s, ink)
        for cx, cy in ((0.5, 0.25), (0.0, 0.75)):
            for k in range(6):
                petal((cx * s, cy * s), k * np.pi / 3, 0.095 * s, 0.045 * s, accent)
            for dx in (-s, 0, s):
                cv2.circle(canvas, (int(cx * s) + dx, int(cy * s)), int(0.028 * s), ink, -1, cv2.LINE_AA)
        printed = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
        fibres = 0.012 * self._field(size, size, (24, 24), 3.3, 1)[..., None]
        return linear(np.clip(printed + fibres, 0, 1))

    def rug(self, height: int, width: int) -> np.ndarray:
        """A woven rug: nested borders, a lattice of diamonds, wool grain."""
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        edge = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)) / height
        palette = np.array([(0.50, 0.16, 0.13), (0.15, 0.20, 0.30), (0.80, 0.70, 0.52), (0.62, 0.36, 0.18)], np.float32)
        diamonds = np.abs(((x / height * 7) % 1) - 0.5) + np.abs(((y / height * 7) % 1) - 0.5)
        field = np.where(diamonds < 0.2, 2, np.where(diamonds < 0.32, 1, np.where(diamonds < 0.40, 3, 0)))
        stitch = ((x + y) / height * 22 % 1 < 0.5) & ((x - y) / height * 22 % 1 < 0.5)
        border = np.where(edge < 0.03, 0, np.where(edge < 0.045, 2, np.where(stitch, 3, 1)))
        border = np.where((edge > 0.12) & (edge < 0.135), 2, border)
        picture = palette[np.where(edge < 0.135, border, field)]
        wool = 1 + 0.10 * self._field(height, width, (60, 45), 4.1, 2) + 0.05 * np.sin(y * 2.2)
        return linear(np.clip(picture * wool[..., None], 0, 1))

    def landscape(self, height: int, width: int, slot: float, *, garden: bool = False) -> np.ndarray:
        """A painted landscape; as `garden`, the blurred view out of a window."""
        rng = np.random.default_rng([self.seed, int(slot * 10), 2])
        v = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        sky_top, sky_low = ((0.62, 0.76, 0.92), (0.95, 0.95, 0.90)) if garden else rng.uniform(0.45, 0.95, (2, 3))
        picture = mix(sky_top, sky_low, np.broadcast_to(v * 1.5, (height, width)).clip(0, 1))
        clouds = smoothstep(0.2, 1.2, self._field(height, width, (2.0, 4.0), slot))
        picture = mix(picture, (0.97, 0.96, 0.94), 0.6 * clouds * (1 - v))
        x = np.arange(width) / width
        for layer in range(4):
            ridge = self.noise(
                np.stack([x * (1.2 + layer), np.full(width, slot + layer), np.zeros(width)], 1).astype(np.float32),
                1.0,
                3,
            )
            top = 0.45 + 0.13 * layer + 0.05 * ridge
            tone = np.array((0.42, 0.52, 0.40)) if garden else rng.uniform(0.2, 0.62, 3)
            leaves = 1 + 0.28 * self._field(height, width, (14.0 + 6 * layer, 12.0), slot + layer, 2)
            inside = v > top[None, :]
            shade = (tone * (1.05 - 0.17 * layer))[None, None] * leaves[..., None]
            picture = np.where(inside[..., None], shade, picture)
        if garden:
            picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), height / 50)
        return linear(np.clip(picture, 0, 1))

    def abstract(self, height: int, width: int, slot: float) -> np.ndarray:
        """A modern print: overlapping discs and bars on paper."""
        rng = np.random.default_rng([self.seed, int(slot * 10), 3])
        canvas = np.full((height * 2, width * 2, 3), (0.90, 0.87, 0.80), np.float32)
        palette = [(0.75, 0.32, 0.20), (0.18, 0.30, 0.36), (0.86, 0.66, 0.28), (0.42, 0.52, 0.38), (0.20, 0.18, 0.17)]
        for k in range(11):
            colour = palette[int(rng.integers(5))]
            at = (int(rng.uniform(0.1, 0.9) * width * 2), int(rng.uniform(0.1, 0.9) * height * 2))
            if k % 3 == 2:
                to = (at[0] + int(rng.normal(0, 0.4) * width), at[1] + int(rng.normal(0, 0.6) * height))
                cv2.line(canvas, at, to, colour, int(rng.integers(4, 18)), cv2.LINE_AA)
            else:
                cv2.circle(canvas, at, int(rng.uniform(0.08, 0.3) * height), colour, -1 if k % 2 else 9, cv2.LINE_AA)
        canvas[:16], canvas[-16:], canvas[:, :16], canvas[:, -16:] = [0.93] * 4
        return linear(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))

    def cover(self, height: int, width: int, title: list[str], ground: tuple, ink: tuple, slot: float) -> np.ndarray:
        """A printed cover with a title, a vignette and worn edges."""
        rng = np.random.default_rng([self.seed, int(slot * 10), 4])
        s = 3
        canvas = np.full((height * s, width * s, 3), ground, np.float32)
        margin = int(0.06 * width * s)
        cv2.rectangle(canvas, (margin, margin), (width * s - margin, height * s - margin), ink, 2 * s, cv2.LINE_AA)
        for k, word in enumerate(title):
            (w, _), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_TRIPLEX, 1.0, 2)
            scale = 0.74 * width * s / max(w, 1)
            scale = min(scale, 0.010 * height * s * 0.45)
            (w, h), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_TRIPLEX, scale, 2 * s)
            cv2.putText(
                canvas,
                word,
                ((width * s - w) // 2, int(height * s * (0.24 + 0.16 * k)) + h // 2),
                cv2.FONT_HERSHEY_TRIPLEX,
                scale,
                ink,
                2 * s,
                cv2.LINE_AA,
            )
        centre = (width * s // 2, int(height * s * 0.74))
        radius = int(0.15 * height * s)
        for k in range(9):
            angle = k * 2 * np.pi / 9 + rng.uniform(0, 1)
            to = (int(centre[0] + radius * np.cos(angle)), int(centre[1] + radius * np.sin(angle)))
            cv2.ellipse(
                canvas,
                ((centre[0] + to[0]) // 2, (centre[1] + to[1]) // 2),
                (radius // 2, radius // 6),
                np.degrees(angle),
                0,
                360,
                ink if k % 2 else tuple(0.5 * (a + b) for a, b in zip(ground, ink, strict=True)),
                -1,
                cv2.LINE_AA,
            )
        printed = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
        wear = smoothstep(0.9, 1.9, self._field(height, width, (4, 6), slot, 3))
        return linear(np.clip(mix(np.asarray(printed), (0.82, 0.78, 0.70), 0.5 * wear), 0, 1))

    def spines(self, size: int, count: int) -> np.ndarray:
        """A row of book spines along u: cloth colours, bands and lettering."""
        rng = np.random.default_rng([self.seed, 5])
        picture = np.zeros((size, size * 4, 3), np.float32)
        edges = np.cumsum(rng.uniform(0.6, 1.5, count))
        edges = np.concatenate([[0], edges / edges[-1]]) * size * 4
        cloth = [(0.42, 0.16, 0.14), (0.17, 0.26, 0.33), (0.76, 0.69, 0.54), (0.26, 0.36, 0.26), (0.62, 0.42, 0.22)]
        cloth += [(0.83, 0.81, 0.76), (0.30, 0.22, 0.30), (0.55, 0.60, 0.58), (0.12, 0.12, 0.14)]
        for k in range(count):
            a, b = int(edges[k]), int(edges[k + 1])
            colour = np.clip(np.array(cloth[int(rng.integers(len(cloth)))]) * rng.uniform(0.8, 1.2), 0, 1)
            picture[:, a:b] = colour
            ink = (0.85, 0.72, 0.40) if colour.mean() < 0.5 else (0.25, 0.15, 0.12)
            for band in rng.uniform(0.05, 0.95, int(rng.integers(1, 4))):
                row = int(band * size)
                picture[row : row + int(rng.integers(2, 6)), a + 1 : b - 1] = ink
            low = int(rng.uniform(0.25, 0.4) * size)
            for row in range(low, low + int(rng.uniform(0.2, 0.35) * size), 7):
                inset = max(2, (b - a) // 4)
                picture[row : row + 4, a + inset : b - inset] = ink
            shade = np.sin(np.linspace(0.35, np.pi - 0.35, max(b - a, 1)))
            picture[:, a:b] *= (0.5 + 0.5 * shade)[None, :, None]
            top = int(rng.uniform(0.0, 0.16) * size)
            picture[:top, a:b] = 0.05
        return linear(np.clip(picture, 0, 1))

    def weave(self, size: int, first: tuple, second: tuple, stripes: int) -> np.ndarray:
        """A checked cloth with visible threads."""
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        bands = (np.sin(2 * np.pi * stripes * x) > 0.2).astype(np.float32)
        cross = (np.sin(2 * np.pi * stripes * y) > 0.2).astype(np.float32)
        picture = mix(first, second, (bands + cross) / 2)
        threads = 1 + 0.08 * np.sin(2 * np.pi * 60 * x) * np.sin(2 * np.pi * 60 * y)
        return linear(np.clip(picture * threads[..., None], 0, 1))
