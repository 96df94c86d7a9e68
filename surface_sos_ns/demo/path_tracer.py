"""Renders the demo scene: light gathered at mesh vertices by ray tracing, camera rays shaded from it.

Two layers, the objects and their surroundings, are traced apart. One set of camera rays thus gives the photo, the exact
matte and the clean plate (the same view without the objects, their shadows and their reflections), and all three agree
wherever the objects have no influence. Lighting is soft window light with occlusion by both layers plus diffuse
interreflection: one traced bounce, its further bounces by their geometric series.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from surface_sos_ns.demo.scene import DemoScene
from surface_sos_ns.demo.shapes import Surface
from surface_sos_ns.demo.workbench import Light, Material

OFFSET = 1e-4  # metres; where secondary rays start, off the surface
FAR = 1e4
EXPOSURE = 1.55


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class Layer:
    """One mesh with its embree acceleration structure and its per-vertex attributes.

    Args:
        things: surfaces of the surroundings (key 0) and of objects (by identity); they follow each other in the mesh.
        names: of all materials.
        parts: names of the parts of objects.
    """

    def __init__(self, things: Mapping[int, list[Surface]], names: list[str], parts: list[str]):
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        surfaces = [surface for group in things.values() for surface in group]
        sizes = [sum(len(surface.vertices) for surface in group) for group in things.values()]
        self.vertex_object = np.repeat(np.array(list(things), np.uint8), sizes)
        offsets = np.cumsum([0] + [len(s.vertices) for s in surfaces])
        self.vertices = np.concatenate([s.vertices for s in surfaces]).astype(np.float32)
        self.normals = np.concatenate([s.normals for s in surfaces]).astype(np.float32)
        self.uv = np.concatenate([s.uv for s in surfaces]).astype(np.float32)
        self.faces = np.concatenate([s.faces + o for s, o in zip(surfaces, offsets[:-1], strict=True)]).astype(np.int32)
        identity = {part: k for k, part in enumerate(["", *parts])}
        self.vertex_part = np.concatenate([np.full(len(s.vertices), identity[s.part], np.uint8) for s in surfaces])
        self.face_material = np.concatenate([np.full(len(s.faces), names.index(s.material)) for s in surfaces])
        self.vertex_material = np.concatenate([np.full(len(s.vertices), names.index(s.material)) for s in surfaces])
        self.scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self.scene, np.ascontiguousarray(self.vertices[self.faces]))

    def hit(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        """First hit of (N, 3) rays: "primID" (-1: none), "tfar" in metres for unit directions, "u", "v"."""
        found = self.scene.run(
            np.ascontiguousarray(origins, dtype=np.float32),
            np.ascontiguousarray(directions, dtype=np.float32),
            output=True,
        )
        found["tfar"] = np.where(found["primID"] < 0, np.float32(FAR), found["tfar"])
        return found

    def occluded(self, origins: np.ndarray, directions: np.ndarray, length: np.ndarray) -> np.ndarray:
        """(N,) bool: whether anything lies on the (N, 3) rays before `length` (N,) metres."""
        found = self.scene.run(
            np.ascontiguousarray(origins, dtype=np.float32),
            np.ascontiguousarray(directions, dtype=np.float32),
            np.ascontiguousarray(length, dtype=np.float32),
            query="OCCLUDED",
        )
        return found >= 0

    def interpolate(self, faces: np.ndarray, u: np.ndarray, v: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(N, C) barycentric interpolation of per-vertex values (V, C) at hits."""
        corners = self.faces[faces]
        return (
            values[corners[:, 0]] * (1 - u - v)[:, None]
            + values[corners[:, 1]] * u[:, None]
            + values[corners[:, 2]] * v[:, None]
        )


class Chunk(NamedTuple):
    """Vertices to be lit at once: those of layer "back" or "front" from `first` to before `last`.

    The identity (0: surroundings) and `start`, the number of vertices of that thing before these, decide the random
    numbers, so that a thing is lit by the same rays in whichever layer it is.
    """

    layer: str
    first: int
    last: int
    identity: int
    start: int


@dataclass
class Lighting:
    """Irradiance (V, 3) at the vertices: of the surroundings with and without the objects, and of the objects."""

    surroundings: np.ndarray
    surroundings_alone: np.ndarray
    object: np.ndarray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with radial lens distortion; camera_to_world (3, 4) OpenGL, focal lengths in pixels."""

    camera_to_world: np.ndarray
    focal: float
    cx: float
    cy: float
    width: int
    height: int
    k1: float
    k2: float

    def rays(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(N, 3) unit directions in the capture frame through pixel positions (centres at +0.5), undistorted."""
        px, py = (x - self.cx) / self.focal, (y - self.cy) / self.focal
        distorted = np.hypot(px, py)
        r = distorted.copy()
        for _ in range(8):  # Newton on r (1 + k1 r^2 + k2 r^4) = distorted
            value = r * (1 + self.k1 * r**2 + self.k2 * r**4) - distorted
            r -= value / (1 + 3 * self.k1 * r**2 + 5 * self.k2 * r**4)
        scale = np.where(distorted > 1e-12, r / np.maximum(distorted, 1e-12), 1.0)
        local = np.stack([px * scale, -py * scale, -np.ones_like(px)], axis=1)
        return _unit(local @ self.camera_to_world[:, :3].T)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions (N, 2) and depths (N,) along the viewing direction of (N, 3) points in the capture frame."""
        local = (points - self.camera_to_world[:, 3]) @ self.camera_to_world[:, :3]
        depth = -local[:, 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        px, py = local[:, 0] / safe, -local[:, 1] / safe
        r2 = px**2 + py**2
        bend = 1 + self.k1 * r2 + self.k2 * r2**2
        return np.stack([self.focal * px * bend + self.cx, self.focal * py * bend + self.cy], axis=1), depth


@dataclass(frozen=True)
class Rendered:
    """One view: image and clean plate (H, W, 3) uint8 sRGB, matte (H, W) uint8, depth (H, W) metres along the axis.

    objects: (H, W) uint8 identity of the object that most of the pixel's rays on objects hit; parts: likewise of the
    object's part. Both are 0 where the matte is below 0.5.
    """

    image: np.ndarray
    clean_plate: np.ndarray
    matte: np.ndarray
    objects: np.ndarray
    parts: np.ndarray
    depth: np.ndarray


class Tracer:
    """Renders views of a `DemoScene`; deterministic, and independent of how the work is split among processes.

    Args:
        scene: what to render.
        seed: decides the random numbers.
        rays: to each light from each vertex.
        apart: names of the objects in the front layer, which mattes show and clean plates lack; the other objects
            count as surroundings. None: all objects.
    """

    CHUNK = 4096  # vertices per unit of lighting work; fixed, since it decides the random numbers

    def __init__(self, scene: DemoScene, seed: int = 0, rays: int = 64, apart: Collection[str] | None = None):
        self.seed = seed
        self.lights = scene.lights
        self.side = max(3, round(np.sqrt(rays)))
        names = list(scene.materials)
        self.materials: list[Material] = [scene.materials[name] for name in names]
        self.specular = np.array([m.specular for m in self.materials], dtype=np.float32)
        self.roughness = np.array([m.roughness for m in self.materials], dtype=np.float32)
        self.emission = np.array([m.emission for m in self.materials], dtype=np.float32)
        self.object_names = list(scene.objects)
        self.part_names = scene.part_names
        back: dict[int, list[Surface]] = {0: scene.surroundings}
        front: dict[int, list[Surface]] = {}
        for identity, (name, surfaces) in enumerate(scene.objects.items(), start=1):
            (front if apart is None or name in apart else back)[identity] = surfaces
        self.back = Layer(back, names, self.part_names)
        self.front = Layer(front, names, self.part_names)
        self.lighting: Lighting | None = None

    # --- lighting ------------------------------------------------------------------------------------------------
    def vertex_chunks(self) -> list[Chunk]:
        """The units of lighting work."""
        chunks = []
        for name, layer in (("back", self.back), ("front", self.front)):
            for identity, first, count in zip(
                *np.unique(layer.vertex_object, return_index=True, return_counts=True), strict=True
            ):
                for start in range(0, int(count), self.CHUNK):
                    last = min(start + self.CHUNK, int(count))
                    chunks.append(Chunk(name, int(first) + start, int(first) + last, int(identity), start))
        return chunks

    def _chunk(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """Where light is gathered: points (n, 3), normals (n, 3), and the random numbers to do it with."""
        layer = self.back if chunk.layer == "back" else self.front
        part = slice(chunk.first, chunk.last)
        normals = layer.normals[part]
        stream = [101 + chunk.identity] if chunk.identity < 2 else [108, chunk.identity]
        rng = np.random.default_rng([self.seed, *stream, chunk.start])
        return layer.vertices[part] + 10 * OFFSET * normals, normals, rng

    def direct(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
        """Irradiance (n, 3) by the lights with both layers in place, and with the surroundings alone."""
        points, normals, rng = self._chunk(chunk)
        n = len(points)
        both, alone = np.zeros((n, 3)), np.zeros((n, 3))
        for light in self.lights:
            side = self.side
            total = side * side
            s, t = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
            shift = rng.uniform(size=(n, 2))
            a = ((s.ravel() + shift[:, :1]) / side) % 1.0
            b = ((t.ravel() + shift[:, 1:]) / side) % 1.0
            target = light.corner + a[..., None] * light.u + b[..., None] * light.v
            area, facing = _light_area(light)
            to = target - points[:, None]
            distance = np.linalg.norm(to, axis=-1)
            to /= distance[..., None]
            weight = np.clip(np.einsum("nkc,nc->nk", to, normals), 0, None) * np.clip(-to @ facing, 0, None)
            weight *= area / total / np.maximum(distance, 0.05) ** 2
            useful = np.flatnonzero(weight.ravel() > 1e-7)
            if len(useful) == 0:
                continue
            origin = np.repeat(points, total, axis=0)[useful]
            direction, length = to.reshape(-1, 3)[useful], distance.ravel()[useful] - 0.03
            lit_alone = ~self.back.occluded(origin, direction, length)
            lit_both = lit_alone.copy()
            open_ = np.flatnonzero(lit_alone)
            lit_both[open_] = ~self.front.occluded(origin[open_], direction[open_], length[open_])
            who, share = useful // total, weight.ravel()[useful]
            both += np.bincount(who, share * lit_both, n)[:, None] * light.radiance
            alone += np.bincount(who, share * lit_alone, n)[:, None] * light.radiance
        return both, alone

    def bounce(self, chunk: Chunk, radiosity: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Irradiance (n, 3) from the lit surfaces around, with both layers and with the surroundings alone.

        radiosity: reflected light (V, 3) at the vertices, keys "back", "back alone", "front".
        """
        points, normals, rng = self._chunk(chunk)
        n, side = len(points), self.side + self.side // 2
        total = side * side
        s, t = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        shift = rng.uniform(size=(n, 2))
        radius = np.sqrt(((s.ravel() + shift[:, :1]) / side) % 1.0)
        angle = 2 * np.pi * (((t.ravel() + shift[:, 1:]) / side) % 1.0)
        helper = np.where(np.abs(normals[:, :1]) < 0.7, [[1.0, 0, 0]], [[0, 1.0, 0]])
        tangent = _unit(np.cross(normals, helper))
        other = np.cross(normals, tangent)
        up = np.sqrt(np.clip(1 - radius**2, 0, None))
        x, y = radius * np.cos(angle), radius * np.sin(angle)
        direction = x[..., None] * tangent[:, None] + y[..., None] * other[:, None] + up[..., None] * normals[:, None]
        origin, direction = np.repeat(points, total, axis=0), direction.reshape(-1, 3)
        back, front = self.back.hit(origin, direction), self.front.hit(origin, direction)
        alone = self._lit(self.back, back, radiosity["back alone"])
        both = self._lit(self.back, back, radiosity["back"])
        nearer = np.flatnonzero(front["tfar"] < back["tfar"])
        both[nearer] = self._lit(self.front, {k: v[nearer] for k, v in front.items()}, radiosity["front"])
        return both.reshape(n, total, 3).mean(axis=1), alone.reshape(n, total, 3).mean(axis=1)

    def _lit(self, layer: Layer, found: dict[str, np.ndarray], radiosity: np.ndarray) -> np.ndarray:
        result = np.zeros((len(found["primID"]), 3), dtype=np.float32)
        hit = np.flatnonzero(found["primID"] >= 0)
        result[hit] = layer.interpolate(found["primID"][hit], found["u"][hit], found["v"][hit], radiosity)
        return result

    def vertex_albedo(self, layer: Layer) -> np.ndarray:
        """(V, 3) reflectance at the vertices; 0 on lights (their light is counted by `direct`)."""
        albedo = self._albedo(layer.vertices, layer.uv, layer.vertex_material)
        albedo[self.emission[layer.vertex_material] > 0] = 0
        return albedo

    def assemble(
        self,
        direct: dict[str, list[tuple[np.ndarray, np.ndarray]]],
        bounced: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    ) -> Lighting:
        """Total irradiance from the two passes, chunk results in order, keys "back" and "front"."""

        def total(name: str, which: int) -> np.ndarray:
            layer = self.back if name == "back" else self.front
            first = np.concatenate([c[which] for c in direct[name]])
            second = self._smooth(layer, np.concatenate([c[which] for c in bounced[name]]))
            # Later bounces shrink by the mean reflectance each time: a geometric series of the first one.
            return (first + second / (1 - 0.45)).astype(np.float32)

        return Lighting(total("back", 0), total("back", 1), total("front", 0))

    @staticmethod
    def _smooth(layer: Layer, values: np.ndarray) -> np.ndarray:
        """Three rounds of averaging with mesh neighbours: bounced light is smooth, its sampling noise is not."""
        from scipy.sparse import coo_matrix, diags

        n = len(layer.vertices)
        i = layer.faces[:, [0, 1, 2, 1, 2, 0]].ravel()
        j = layer.faces[:, [1, 2, 0, 0, 1, 2]].ravel()
        graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n)).tocsr()
        graph.data[:] = 1.0
        graph = graph + diags(np.ones(n))
        graph = diags(1.0 / np.asarray(graph.sum(axis=1)).ravel()) @ graph
        for _ in range(3):
            values = graph @ values
        return values

    def radiosity(self, direct: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, np.ndarray]:
        """Light leaving the vertices after the direct pass: reflectance * irradiance (V, 3)."""
        back, front = self.vertex_albedo(self.back), self.vertex_albedo(self.front)
        return {
            "back": (back * np.concatenate([c[0] for c in direct["back"]])).astype(np.float32),
            "back alone": (back * np.concatenate([c[1] for c in direct["back"]])).astype(np.float32),
            "front": (front * np.concatenate([c[0] for c in direct["front"]])).astype(np.float32),
        }

    # --- views ---------------------------------------------------------------------------------------------------
    def _albedo(self, points: np.ndarray, uv: np.ndarray, material: np.ndarray) -> np.ndarray:
        """(N, 3) linear reflectance of points by material index."""
        result = np.empty((len(points), 3), dtype=np.float32)
        if len(points) == 0:
            return result
        order = np.argsort(material, kind="stable")
        kinds, starts = np.unique(material[order], return_index=True)
        for kind, first, last in zip(kinds, starts, [*starts[1:], len(order)], strict=True):
            part = order[first:last]
            result[part] = np.clip(self.materials[kind].colour(points[part], uv[part]), 0.0, 0.95)
        return result

    def _surface(
        self, layer: Layer, found: dict[str, np.ndarray], hit: np.ndarray, origins: Any, directions: np.ndarray
    ):
        """Material, points, normals and reflectance at the hits (indices `hit` of the rays)."""
        faces, u, v = found["primID"][hit], found["u"][hit], found["v"][hit]
        points = (origins if np.ndim(origins) == 1 else origins[hit]) + found["tfar"][hit, None] * directions[hit]
        material = layer.face_material[faces]
        attributes = layer.interpolate(faces, u, v, np.concatenate([layer.normals, layer.uv], axis=1))
        normals = _unit(attributes[:, :3])
        return faces, u, v, material, points, normals, self._albedo(points, attributes[:, 3:], material)

    def _matt(self, layer: Layer, found: dict, hit: np.ndarray, origins: Any, directions: np.ndarray, lights: list):
        """Diffuse radiance (n, 3) at hits for each irradiance array in `lights`, plus what reflections need."""
        faces, u, v, material, points, normals, albedo = self._surface(layer, found, hit, origins, directions)
        glow = self.emission[material]
        results = []
        for irradiance in lights:
            radiance = albedo * layer.interpolate(faces, u, v, irradiance) / np.pi
            results.append(np.where(glow[:, None] > 0, albedo * glow[:, None], radiance))
        return results, material, points, normals

    def _reflection(
        self, material, points, normals, directions, jitter, alone: bool
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Indices of shiny hits and their reflected radiance, [with both layers] or [both, surroundings alone]."""
        assert self.lighting is not None
        shiny = np.flatnonzero(self.specular[material] > 0)
        view = directions[shiny]
        rough = normals[shiny] + self.roughness[material[shiny], None] * jitter[shiny]
        rough = _unit(rough)
        cosine = -np.einsum("ij,ij->i", view, rough)
        rough = np.where(cosine[:, None] < 0, -rough, rough)
        cosine = np.abs(cosine)
        mirrored = _unit(view + 2 * cosine[:, None] * rough)
        fresnel = self.specular[material[shiny]] * (0.04 + 0.96 * (1 - cosine) ** 5)
        start = points[shiny] + 20 * OFFSET * normals[shiny]
        back, front = self.back.hit(start, mirrored), self.front.hit(start, mirrored)
        hit = np.flatnonzero(back["primID"] >= 0)
        lights = [self.lighting.surroundings] + ([self.lighting.surroundings_alone] if alone else [])
        seen = self._matt(self.back, back, hit, start, mirrored, lights)[0]
        results = [np.zeros((len(shiny), 3), dtype=np.float32) for _ in lights]
        for result, colour in zip(results, seen, strict=True):
            result[hit] = np.minimum(colour, 3.0)  # keeps single bright samples from speckling
        nearer = np.flatnonzero(front["tfar"] < back["tfar"])
        if len(nearer):
            results[0][nearer] = self._matt(self.front, front, nearer, start, mirrored, [self.lighting.object])[0][0]
        return shiny, [fresnel[:, None] * r for r in results]

    def render(self, camera: Camera, view: int, samples: int = 4) -> Rendered:
        """One view with samples^2 jittered rays per pixel; its random numbers depend on the seed and `view` alone."""
        if self.lighting is None:
            raise RuntimeError("the scene is not lit yet: set Tracer.lighting first")
        rng = np.random.default_rng([self.seed, 103, view])
        h, w, count = camera.height, camera.width, samples * samples
        image, plate = np.zeros((h * w, 3)), np.zeros((h * w, 3))
        matte, depth = np.zeros(h * w), np.zeros(h * w)
        objects, parts = np.zeros(h * w, np.uint8), np.zeros(h * w, np.uint8)
        origin = camera.camera_to_world[:, 3].astype(np.float32)
        forward = -camera.camera_to_world[:, 2]
        rows = max(1, 160_000 // (w * count))
        si, sj = np.meshgrid(np.arange(samples), np.arange(samples), indexing="ij")
        for first in range(0, h, rows):
            last = min(first + rows, h)
            y, x = np.meshgrid(np.arange(first, last), np.arange(w), indexing="ij")
            n = x.size
            jitter = rng.uniform(size=(n, count, 2))
            px = (x.reshape(-1, 1) + (sj.ravel() + jitter[..., 0]) / samples).ravel()
            py = (y.reshape(-1, 1) + (si.ravel() + jitter[..., 1]) / samples).ravel()
            gloss = rng.standard_normal((n * count, 3)).astype(np.float32)
            directions = camera.rays(px, py).astype(np.float32)
            origins = np.broadcast_to(origin, directions.shape)
            back, front = self.back.hit(origins, directions), self.front.hit(origins, directions)
            with_object = np.zeros((n * count, 3), dtype=np.float32)
            without = np.zeros_like(with_object)
            hit = np.flatnonzero(back["primID"] >= 0)
            lights = [self.lighting.surroundings, self.lighting.surroundings_alone]
            (a, b), material, points, normals = self._matt(self.back, back, hit, origin, directions, lights)
            with_object[hit], without[hit] = a, b
            shiny, (ra, rb) = self._reflection(material, points, normals, directions[hit], gloss[hit], True)
            with_object[hit[shiny]] += ra
            without[hit[shiny]] += rb
            covered = front["tfar"] < back["tfar"]
            hit = np.flatnonzero(covered)
            if len(hit):
                (a,), material, points, normals = self._matt(
                    self.front, front, hit, origin, directions, [self.lighting.object]
                )
                shiny, (ra,) = self._reflection(material, points, normals, directions[hit], gloss[hit], False)
                a[shiny] += ra
                with_object[hit] = a
            part = slice(first * w, last * w)
            # Tone curve per sample, so that a bright window behind a dark edge does not eat the edge.
            image[part] = tone(with_object).reshape(n, count, 3).mean(axis=1)
            plate[part] = tone(without).reshape(n, count, 3).mean(axis=1)
            matte[part] = covered.reshape(n, count).mean(axis=1)
            corner = self.front.faces[front["primID"][covered], 0]
            for result, of_vertex, names in (
                (objects, self.front.vertex_object, self.object_names),
                (parts, self.front.vertex_part, self.part_names),
            ):
                identity = np.zeros(n * count, np.uint8)
                identity[covered] = of_vertex[corner]
                result[part] = most_frequent(identity.reshape(n, count), len(names))
            nearest = np.minimum(front["tfar"], back["tfar"]) * (directions @ forward)
            depth[part] = np.median(nearest.reshape(n, count), axis=1)
        objects[matte < 0.5] = parts[matte < 0.5] = 0
        to_bytes = lambda a: np.round(255 * np.clip(a, 0, 1)).astype(np.uint8)  # noqa: E731
        return Rendered(
            to_bytes(image).reshape(h, w, 3),
            to_bytes(plate).reshape(h, w, 3),
            to_bytes(matte).reshape(h, w),
            objects.reshape(h, w),
            parts.reshape(h, w),
            depth.reshape(h, w),
        )

    def visible(self, camera: Camera, points: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the (N, 3) surface points lie in the picture and nothing is in front of them."""
        uv, depth = camera.project(points)
        margin = 2.0
        inside = (depth > 0.05) & (uv[:, 0] > margin) & (uv[:, 0] < camera.width - margin)
        inside &= (uv[:, 1] > margin) & (uv[:, 1] < camera.height - margin)
        index = np.flatnonzero(inside)
        centre = camera.camera_to_world[:, 3]
        to = points[index] - centre
        distance = np.linalg.norm(to, axis=1)
        directions = to / distance[:, None]
        origins = np.broadcast_to(centre, to.shape)
        length = distance * 0.995 - 0.002
        blocked = self.back.occluded(origins, directions, length) | self.front.occluded(origins, directions, length)
        inside[index[blocked]] = False
        return inside


def most_frequent(identities: np.ndarray, count: int) -> np.ndarray:
    """(N,) the most frequent identity, 1 to `count`, in each row of (N, R); of equals the smallest, and 0 for none."""
    votes = np.array([(identities == k).sum(axis=1) for k in range(count + 1)])
    votes[0] = 0
    return votes.argmax(axis=0)


def _light_area(light: Light) -> tuple[float, np.ndarray]:
    """Area in square metres and unit direction into the room."""
    cross = np.cross(light.u, light.v)
    area = float(np.linalg.norm(cross))
    return area, cross / area


def tone(radiance: np.ndarray) -> np.ndarray:
    """Scene radiance (N, 3) to display values in 0..1: a soft shoulder, then the sRGB curve."""
    x = np.maximum(radiance, 0) * EXPOSURE
    x = x * (1 + x / 6.0) / (1 + x)  # linear in the shadows, white at 6
    x = np.clip(x, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.power(x, 1 / 2.4, where=x > 0, out=np.zeros_like(x)) - 0.055)
