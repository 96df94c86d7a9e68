"""Textures of known surfaces: charts, texels, occlusion, and colours from photos that are computed."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from surface_sos_ns.capture.views import Views
from surface_sos_ns.texture.atlas import PADDING, Atlas, texels_of, unwrapped
from surface_sos_ns.texture.bake import MAX_SIZE, MIN_SIZE, baked, texture_size, textured
from surface_sos_ns.texture.blend import best_of, blended
from surface_sos_ns.texture.photos import Occluder, Photo, Seen, Sight, colours_in, sight_of
from surface_sos_ns.texture.simplify import simplified
from tests.helpers.ball_views import ring

BIG, SMALL = np.array([0.0, 0.0, 0.0]), np.array([1.6, 0.0, 0.1])
"""Centres of two spheres, of radius 1 and 0.4: the small one hides a part of the big one from some views."""


def two_spheres() -> trimesh.Trimesh:
    big = trimesh.creation.icosphere(4, 1.0)
    small = trimesh.creation.icosphere(3, 0.4)
    small.apply_translation(SMALL)
    both = trimesh.util.concatenate([big, small])
    assert isinstance(both, trimesh.Trimesh)
    return both


def colours_of(points: np.ndarray) -> np.ndarray:
    """(P, 3): soft waves on the big sphere, one colour on the small one."""
    waves = 0.5 + 0.3 * np.sin(3 * points @ np.array([[1.0, 0.3, 0], [0.2, 1, 0.5], [0, -0.4, 1]]))
    small = np.linalg.norm(points - SMALL, axis=1) < 0.6
    return np.where(small[:, None], [0.75, 0.1, 0.1], waves)


def photographed(view: Views) -> np.ndarray:
    """(H, W, 4) colours and matte of one view, by its rays."""
    width, height = view.sizes()[0]
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = view.rays(0, np.stack([column, row], axis=-1).reshape(-1, 2))
    eye, nearest = view.centres()[0], np.full(len(rays), np.inf)
    for centre, radius in ((BIG, 1.0), (SMALL, 0.4)):
        along = rays @ (centre - eye)
        inside = radius**2 - np.square(np.linalg.norm(centre - eye)) + along**2
        found = np.where(inside > 0, along - np.sqrt(np.maximum(inside, 0)), np.inf)
        nearest = np.minimum(nearest, found)
    hit = np.isfinite(nearest)
    image = np.full((len(rays), 4), 0.0)
    image[hit, :3] = colours_of(eye + nearest[hit, None] * rays[hit])
    image[:, 3] = hit
    image[~hit, :3] = (0.0, 0.9, 0.9)  # a background that must not bleed in
    return image.reshape(height, width, 4)


def photo_of(views: Views, index: int, gain: float = 1.0, offset: float = 0.0) -> Photo:
    view = views.subset([index])
    pixels = photographed(view)
    image = np.rint(255 * np.clip(gain * pixels[..., :3] + offset, 0, 1)).astype(np.uint8)
    return Photo(lambda: image, view, pixels[..., 3], np.full(3, gain), np.full(3, offset))


def test_charts_lie_apart_and_texels_are_where_their_faces_are() -> None:
    mesh, size = two_spheres(), 256
    atlas = unwrapped(mesh, size)
    assert (atlas.source[atlas.faces] == mesh.faces).all(), "the mesh's faces in their order"
    assert atlas.uv.min() >= 0 and atlas.uv.max() <= 1
    texels = texels_of(atlas, size)
    middles = np.stack([(texels.column + 0.5) / size, 1 - (texels.row + 0.5) / size], axis=1)
    assert np.abs(texels.interpolated(atlas.faces, atlas.uv) - middles).max() < 1e-4
    assert 0.3 * size**2 < len(texels.row) < 0.95 * size**2
    corners = atlas.uv[atlas.faces]
    flat = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])) / 2
    ratio = flat / mesh.area_faces
    assert np.percentile(ratio, 99) < 2.5 * np.percentile(ratio, 1), "texels have one size all over"
    # No two faces of different charts share a texel or come closer than the padding, but for rounding.
    chart = trimesh.graph.connected_component_labels(trimesh.Trimesh(atlas.uv, atlas.faces).face_adjacency, len(flat))
    image = np.full((size, size), -1)
    image[texels.row, texels.column] = chart[texels.face]
    for step in range(1, PADDING - 1):
        left, right = image[:, :-step], image[:, step:]
        assert not ((left >= 0) & (right >= 0) & (left != right)).any()


def test_a_photo_shows_what_faces_it_and_is_not_hidden() -> None:
    mesh = two_spheres()
    pose = np.array([[0.0, 0, 1, 6], [1, 0, 0, 0], [0, 1, 0, 0]])  # looks along -x: the small sphere is in front
    view = Views(pose[None], 300, 300, 160, 120, 320, 240)  # type: ignore[arg-type]
    points = np.array([[1.0, 0, 0], [0, 0.6, 0.8], [0.6, 0.8, 0], [-1, 0, 0], [2.0, 0, 0.1]])
    normals = np.array([[1.0, 0, 0], [0, 0.6, 0.8], [0.6, 0.8, 0], [-1, 0, 0], [1, 0, 0]])
    photo = Photo(lambda: np.zeros((240, 320, 3), np.uint8), view, np.ones((240, 320)), np.ones(3), np.zeros(3))
    sight = sight_of(photo, points, normals, Occluder(mesh))
    assert sight.which.tolist() == [2, 4], "hidden, grazing and averted points are not seen"
    along = np.array([6, 0, 0]) - points[[2, 4]]
    cosine = (along * normals[[2, 4]]).sum(1) / np.linalg.norm(along, axis=1)
    np.testing.assert_allclose(sight.weight, 300**2 / (6 - points[[2, 4], 0]) ** 2 * cosine, rtol=1e-5)
    none = photo._replace(matte=np.zeros((240, 320)))
    assert len(sight_of(none, points, normals, Occluder(mesh)).which) == 0, "something else is in front of it there"
    narrow = photo._replace(view=Views(pose[None], 300, 300, 20, 15, 40, 30), matte=np.ones((30, 40)))  # type: ignore[arg-type]
    assert sight_of(narrow, points, normals, Occluder(mesh)).which.tolist() == [4], "the other is out of the picture"


def test_colours_are_those_under_the_point() -> None:
    pose = np.eye(4)[None, :3] + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5.0]])
    view = Views(pose, 100, 100, 50, 40, 100, 80)  # type: ignore[arg-type]
    column, row = np.meshgrid(np.arange(100), np.arange(80))
    image = np.stack([2 * column, 3 * row, 0 * row], axis=-1).astype(np.uint8)
    photo = Photo(lambda: image, view, np.ones((80, 100)), np.ones(3), np.zeros(3))
    uv = np.array([[20.5, 30.5], [21.0, 30.5]])  # the middle of a pixel, and between two
    points = np.column_stack([(uv - (50, 40)) / 100 * 5 * (1, -1), np.zeros(2)])
    seen = colours_in(photo, points, Sight(np.arange(2, dtype=np.int32), np.ones(2, np.float32)))
    assert seen.colour.tolist() == [[40, 90, 0], [41, 90, 0]]


def test_the_mean_prefers_the_best_photo_and_leaves_outliers_out() -> None:
    one = np.array([0], np.int32)

    def seen(weight: float, value: int) -> Seen:
        return Seen(one, np.array([weight], np.float32), np.full((1, 3), value, np.uint8))

    same = (np.ones(3), np.zeros(3))
    reference = np.full((2, 3), 0.5, np.float32)
    photos = [seen(4.0, 102), seen(2.0, 204)]
    best = best_of([Sight(*photo[:2]) for photo in photos], 2)
    assert best.tolist() == [4.0, 0.0]
    found = blended(photos, [same, same], best, reference)
    # By hand; d, the distance from the mean before, is over three channels.
    prior, expected = 0.02, 0.5
    for power in (1, 1, 6):
        robust = [min(1, 0.01 / (3 * (value - expected) ** 2)) for value in (0.4, 0.8)]
        weights = [(1.0 * robust[0]) ** power, (0.5 * robust[1]) ** power]
        total = prior**power + sum(weights)
        expected = (prior**power * 0.5 + weights[0] * 0.4 + weights[1] * 0.8) / total
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_allclose(found[1], 0.5, atol=1e-6, err_msg="what no photo sees has the reference's colour")
    brighter = blended([seen(4.0, 204)], [(np.full(3, 2.0), np.full(3, 0.2))], best, reference)
    np.testing.assert_allclose(brighter[0], (0.8 - 0.2) / 2, atol=1e-3)


@pytest.mark.seconds(5)
def test_a_texture_from_photos_of_different_exposures_through_a_lens() -> None:
    mesh, size = two_spheres(), 256
    views = ring(14, size=(240, 180), focal=230.0, distortion=(-0.1, 0.02, 0, 0, 0.001, -0.001))
    exposures = [(0.8 + 0.03 * index, 0.02 * (index % 3)) for index in range(14)]
    photos = [photo_of(views, index, *exposure) for index, exposure in enumerate(exposures)]
    spoilt = photos[3].image().copy()
    spoilt[60:120, 90:150] = 255  # a reflection that no other photo has
    photos[3] = photos[3]._replace(image=lambda: spoilt)
    atlas = unwrapped(mesh, size)
    texture = baked(mesh, atlas, size, photos, lambda points: 0.9 * colours_of(points))
    texels = texels_of(atlas, size)
    points = texels.interpolated(mesh.faces, mesh.vertices)
    wrong = np.abs(texture[texels.row, texels.column] / 255 - colours_of(points)).max(axis=1)
    occluder = Occluder(mesh)
    normals = texels.interpolated(mesh.faces, mesh.vertex_normals)
    best = best_of([sight_of(photo, points, normals, occluder) for photo in photos], len(points))
    seen = best > 0.3 * best.max()
    assert seen.mean() > 0.6 and wrong[seen].mean() < 0.008 and np.percentile(wrong[seen], 99) < 0.04
    unseen = best == 0
    assert unseen.any() and (wrong[unseen] > 0.02).all(), "there it is the reference"
    # Charts end in their own colours: half a texel outside them is the nearest chart's.
    found = textured(mesh, atlas, texture)
    assert np.allclose(found.vertex_normals, mesh.vertex_normals[atlas.source]) and len(found.faces) == len(mesh.faces)
    np.testing.assert_allclose(found.triangles, mesh.triangles)


def test_texels_have_the_size_of_pixels() -> None:
    sphere = trimesh.creation.icosphere(3, 1.0)
    side = texture_size(sphere, 100.0**2)  # 12.6 x 10^4 pixels on the whole sphere: 457 a side where 0.6 is covered
    assert side == MIN_SIZE
    assert texture_size(sphere, 400.0**2) == 2048 and texture_size(sphere, 1e9) == MAX_SIZE
    assert texture_size(sphere, 0.0) == MIN_SIZE


def test_fewer_faces_keep_the_shape_far_from_the_origin_too() -> None:
    sphere = trimesh.creation.icosphere(5, 1.0)
    place = np.array([4.4e5, 5.1e6, 2e3])
    sphere.apply_translation(place)
    fewer = simplified(sphere, 2000)
    assert len(fewer.faces) <= 2000 and fewer.is_watertight
    assert np.abs(np.linalg.norm(fewer.vertices - place, axis=1) - 1).max() < 0.01
    assert fewer.volume == pytest.approx(sphere.volume, rel=0.01)
    assert simplified(sphere, 10**6) is sphere


def test_a_single_triangle() -> None:
    atlas = Atlas(np.arange(3), np.array([[0, 1, 2]]), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    texels = texels_of(atlas, 4)
    below = {(row, column) for row in range(4) for column in range(4) if column + 0.5 + (3.5 - row) < 4}
    assert below <= set(zip(texels.row.tolist(), texels.column.tolist(), strict=True))
    assert len(texels.row) <= len(below) + 4  # those on the diagonal may go either way
