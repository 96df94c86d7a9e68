"""Metrics of parts against values computed by hand and shapes whose pieces are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from surface_sos_ns.utils.part_metrics import face_labels, labels_at, part_metrics, pieces_per_part, view_agreement


def test_ari_and_nmi_of_a_small_table() -> None:
    # Truth 1 1 1 2 2 2 against found 1 1 2 2 3 3. Pairs together: 6 in the truth, 3 found, 2 in both, of 15. So
    # ARI = (2 - 6 * 3 / 15) / ((6 + 3) / 2 - 6 * 3 / 15) = 0.8 / 3.3.
    truth, found = np.array([1, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 2, 3, 3])
    scores = part_metrics(found, truth)
    assert scores["parts_ari"] == pytest.approx(0.8 / 3.3)
    # Cells: 2/6, 1/6, 1/6, 2/6. Entropies log 2 and log 3.
    cells = [(2, 3, 2), (1, 3, 2), (1, 3, 2), (2, 3, 2)]
    information = sum(n / 6 * np.log(n * 6 / (a * b)) for n, a, b in cells)
    assert scores["parts_nmi"] == pytest.approx(information / ((np.log(2) + np.log(3)) / 2))
    assert scores["parts_share"] == 1


def test_what_has_no_part_is_not_compared_but_counted() -> None:
    truth = np.array([[0, 1, 1, 2], [0, 2, 1, 2]], np.uint8)
    found = np.array([[3, 7, 0, 3], [0, 3, 7, 0]], np.int64)
    assert part_metrics(found, truth) == {"parts_nmi": 1.0, "parts_ari": 1.0, "parts_share": 4 / 6}
    scores = part_metrics(np.zeros_like(found), truth)
    assert np.isnan([scores["parts_nmi"], scores["parts_ari"]]).all() and scores["parts_share"] == 0
    assert np.isnan(part_metrics(found, np.zeros_like(truth))["parts_share"])
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(4, 2\)"):
        part_metrics(found, truth.T)


def test_parts_by_chance_have_an_ari_of_zero() -> None:
    truth, found = np.random.default_rng(0).integers(1, 7, (2, 100_000))
    assert abs(part_metrics(found, truth)["parts_ari"]) < 1e-3


def test_share_of_points_on_which_two_views_agree() -> None:
    assert view_agreement(np.array([1, 2, 3, 0, 2]), np.array([1, 2, 1, 4, 0])) == pytest.approx(2 / 3)
    assert np.isnan(view_agreement(np.array([0, 1]), np.array([2, 0])))
    with pytest.raises(ValueError, match="one shape"):
        view_agreement(np.ones(3, int), np.ones(4, int))


def strip(squares: int) -> tuple[np.ndarray, np.ndarray]:
    """A row of unit squares, two triangles each."""
    vertices = np.array([[x, y, 0.0] for x in range(squares + 1) for y in (0, 1)])
    faces = [[[2 * k, 2 * k + 2, 2 * k + 3], [2 * k, 2 * k + 3, 2 * k + 1]] for k in range(squares)]
    return vertices, np.array(faces).reshape(-1, 3)


def test_pieces_of_a_striped_strip() -> None:
    vertices, faces = strip(6)
    parts = np.repeat([1, 1, 2, 1, 0, 2], 2)
    assert pieces_per_part(vertices, faces, parts) == {1: 2, 2: 2}
    assert pieces_per_part(vertices, faces, np.repeat([5, 5, 5, 2, 2, 2], 2)) == {2: 1, 5: 1}
    assert pieces_per_part(vertices, faces, np.zeros(12, int)) == {}


def test_a_common_corner_does_not_join_and_equal_places_do() -> None:
    # Two triangles that touch in one corner, and two that share an edge whose vertices are doubled.
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0.0]])
    assert pieces_per_part(corner, np.array([[0, 1, 2], [0, 3, 4]]), np.array([1, 1])) == {1: 2}
    seam = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])
    assert pieces_per_part(seam, np.array([[0, 1, 2], [3, 5, 4]]), np.array([1, 1])) == {1: 1}


def test_edges_of_three_faces_and_opposite_directions_join() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 1, 2], [0, 1, 3], [1, 0, 4]])
    assert pieces_per_part(vertices, faces, np.array([1, 2, 1])) == {1: 1, 2: 1}


@pytest.mark.parametrize(("size", "pieces"), [(0.09, 1), (0.11, 2)])
def test_specks_are_left_out(size: float, pieces: int) -> None:
    # A unit square, and another of side `size` apart from it: 0.8 % and 1.2 % of the area.
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    vertices = np.concatenate([square, 5 + size * square])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    assert pieces_per_part(vertices, faces, np.ones(4, int)) == {1: pieces}


def test_pieces_of_spheres_as_another_library_splits_them() -> None:
    balls = [trimesh.creation.icosphere(2, 0.3).apply_translation([x, 0, 0]) for x in range(5)]
    mesh = trimesh.util.concatenate(balls)
    parts = np.repeat([1, 2, 1, 1, 2], len(balls[0].faces))
    split = {k: len(mesh.submesh([np.flatnonzero(parts == k)], append=True).split()) for k in (1, 2)}
    assert pieces_per_part(mesh.vertices, mesh.faces, parts) == split == {1: 3, 2: 2}


def test_parts_of_faces_by_their_corners() -> None:
    faces = np.array([[0, 1, 2], [3, 0, 1], [0, 3, 1], [0, 3, 4], [0, 1, 3]])
    assert face_labels(faces, np.array([1, 1, 1, 2, 3])).tolist() == [1, 1, 1, 1, 1]
    assert face_labels(faces, np.array([2, 2, 3, 3, 3])).tolist() == [2, 2, 2, 3, 2]
    assert face_labels(faces[3:4], np.array([5, 0, 0, 6, 7])).tolist() == [5]


def test_parts_of_points_near_a_box() -> None:
    box = trimesh.creation.box((2, 2, 2))
    parts = np.where(box.triangles_center[:, 2] > 0.99, 1, np.where(box.triangles_center[:, 2] < -0.99, 2, 3))
    points = np.array([[0.3, 0.2, 1.1], [0.1, -0.4, -0.8], [1.05, 0, 0.2], [0, 0, 1.3], [0, 4, 0]])
    found = labels_at(points, box.vertices, box.faces, parts, max_distance=0.25, samples=20_000)
    assert found.tolist() == [1, 2, 3, 0, 0]
    assert labels_at(points, box.vertices, box.faces, parts, samples=20_000).tolist() == [1, 2, 3, 1, 3]


def test_a_boundary_is_found_to_the_spacing_of_the_samples() -> None:
    vertices, faces = strip(2)
    x = np.linspace(0.02, 1.98, 99)
    points = np.column_stack([x, np.full(99, 0.5), np.full(99, 0.01)])
    found = labels_at(points, vertices, faces, np.repeat([1, 2], 2), samples=50_000)
    assert np.array_equal(found[abs(x - 1) > 0.02], np.where(x < 1, 1, 2)[abs(x - 1) > 0.02])
