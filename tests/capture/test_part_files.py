"""Identities of true parts: what is read, pixel for pixel, and what is refused, by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.identity_files import check_identity_images
from surface_sos_ns.capture.part_files import KIND, read_part_image, read_part_mesh

IDENTITIES = np.random.default_rng(0).integers(0, 7, (12, 18))


def png(path: Path, values: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), values)
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_identities_are_read_as_written(tmp_path: Path, kind: type) -> None:
    path = png(tmp_path / "parts.png", IDENTITIES.astype(kind))
    found = read_part_image(path, (18, 12), 6)
    assert found.dtype == np.int64 and np.array_equal(found, IDENTITIES)


def test_many_identities_need_sixteen_bits(tmp_path: Path) -> None:
    assert np.array_equal(
        read_part_image(png(tmp_path / "a.png", (IDENTITIES * 100).astype(np.uint16)), (18, 12)), IDENTITIES * 100
    )


@pytest.mark.parametrize("count", [2, 4, 7])
def test_a_palette_counts_by_its_indices(tmp_path: Path, count: int) -> None:
    # Pillow stores such files with 1, 2 and 4 bits.
    values = (IDENTITIES % count).astype(np.uint8)
    image = Image.fromarray(values, "P")
    image.putpalette([200, 0, 0, 0, 90, 0, 0, 0, 200, 9, 9, 9, 255, 255, 255, 70, 70, 0, 1, 2, 3][: 3 * count])
    image.save(tmp_path / "parts.png")
    assert np.array_equal(read_part_image(tmp_path / "parts.png", (18, 12)), values)


@pytest.mark.parametrize("factor", [2, 3])
def test_identities_are_reduced_to_the_middle_of_blocks(tmp_path: Path, factor: int) -> None:
    height, width = 12 // factor, 18 // factor
    large = np.pad(IDENTITIES, ((0, factor - 1), (0, factor - 1)), constant_values=9)  # a remainder, cropped
    found = read_part_image(png(tmp_path / "parts.png", large.astype(np.uint8)), (width, height), 9)
    expected = [
        [IDENTITIES[r * factor + factor // 2, c * factor + factor // 2] for c in range(width)] for r in range(height)
    ]
    assert np.array_equal(found, expected)


def test_reducing_invents_no_part(tmp_path: Path) -> None:
    # Averages of 1 and 5 would be 3.
    checks = np.where(np.indices((40, 40)).sum(axis=0) % 2, 1, 5).astype(np.uint8)
    path = png(tmp_path / "parts.png", checks)
    for side in (20, 13, 10, 7):
        assert set(np.unique(read_part_image(path, (side, side), 5))) <= {1, 5}


def test_identities_are_turned_as_their_photo_is(tmp_path: Path) -> None:
    image, tags = Image.fromarray(IDENTITIES.astype(np.uint8)), Image.Exif()
    tags[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "parts.png", exif=tags)
    assert np.array_equal(read_part_image(tmp_path / "parts.png", (12, 18)), np.rot90(IDENTITIES, -1))
    assert np.array_equal(read_part_image(tmp_path / "parts.png", (18, 12)), IDENTITIES)


def save(path: Path, mode: str, **options) -> Path:
    Image.fromarray(IDENTITIES.astype(np.uint8)).convert(mode).save(path, **options)
    return path


def test_what_cannot_hold_identities_is_refused_before_it_is_read(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", "RGB")
    files = [
        (save(tmp_path / "a.png", "RGB"), r"PNG \(RGB\)"),
        (save(tmp_path / "b.png", "LA"), r"PNG \(LA\)"),
        (save(tmp_path / "c.png", "1"), r"PNG \(black and white\)"),
        (save(tmp_path / "d.jpg", "L"), r"JPEG \(L\)"),
    ]
    for path, words in files:
        for call in (
            lambda path=path: check_identity_images([None, path], [photo, photo], [[(18, 12)]] * 2, KIND),
            lambda path=path: read_part_image(path, (18, 12)),
        ):
            with pytest.raises(
                CaptureError, match=rf"{path.name} is {words}; expected a PNG \(or another lossless format\) of one"
            ):
                call()
    files = [png(tmp_path / "f.png", IDENTITIES.astype(np.uint8)), save(tmp_path / "g.bmp", "L")]
    check_identity_images(files, [photo] * 2, [[(18, 12)]] * 2, KIND)
    assert np.array_equal(read_part_image(files[1], (18, 12)), IDENTITIES)


def test_missing_damaged_and_wrongly_sized_files_are_named(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", "RGB")
    with pytest.raises(CaptureError, match=r"nothing.png"):
        check_identity_images([tmp_path / "nothing.png"], [photo], [[(18, 12)]], KIND)
    with pytest.raises(CaptureError, match=r"nothing.png does not exist"):
        read_part_image(tmp_path / "nothing.png", (18, 12))
    path = png(tmp_path / "parts.png", IDENTITIES.astype(np.uint8))
    with pytest.raises(CaptureError, match=r"parts.png is 18 x 12 pixels, its photo .*photo.png is 19 x 12"):
        check_identity_images([path], [photo], [[(19, 12)]], KIND)
    with pytest.raises(CaptureError, match=r"parts.png is 18 x 12 pixels, its photo 19 x 12"):
        read_part_image(path, (19, 12))
    (tmp_path / "cut.png").write_bytes(path.read_bytes()[:60])
    with pytest.raises(CaptureError, match=r"cut.png"):
        read_part_image(tmp_path / "cut.png", (18, 12))


def test_identities_that_there_are_not_are_named(tmp_path: Path) -> None:
    path = png(tmp_path / "parts.png", IDENTITIES.astype(np.uint8))
    with pytest.raises(
        CaptureError, match=r"parts.png holds the identity 6; expected .* 1 to 5, the number of part_names"
    ):
        read_part_image(path, (18, 12), 5)
    depth = png(tmp_path / "depth.png", np.full((12, 18), 2400, np.uint16))
    with pytest.raises(CaptureError, match=r"depth.png holds the identity 2400; expected .* 1 to at most 1000"):
        read_part_image(depth, (18, 12))


@pytest.mark.parametrize("element", ["vertex", "face"])
@pytest.mark.parametrize("encoding", ["binary", "ascii"])
def test_parts_of_a_mesh_are_read_from_vertices_or_faces(tmp_path: Path, element: str, encoding: str) -> None:
    first, second = trimesh.creation.box(), trimesh.creation.icosphere(1).apply_translation([3, 0, 0])
    mesh = trimesh.util.concatenate([first, second])
    expected = np.repeat([4, 2], [len(first.faces), len(second.faces)])
    if element == "face":
        mesh.face_attributes["part"] = expected.astype(np.uint8)
    else:
        mesh.vertex_attributes["part"] = np.repeat([4, 2], [len(first.vertices), len(second.vertices)]).astype(np.int32)
    mesh.export(tmp_path / "mesh.ply", encoding=encoding)
    found = read_part_mesh(tmp_path / "mesh.ply")
    assert found is not None and np.array_equal(found.labels, expected)
    assert np.allclose(found.vertices, mesh.vertices) and np.array_equal(found.faces, mesh.faces)


def test_meshes_without_parts_and_wrong_ones(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    box.export(tmp_path / "plain.ply")
    assert read_part_mesh(tmp_path / "plain.ply") is None
    for values in (np.full(8, 0.5, np.float32), np.full(8, -1, np.int32)):
        box.vertex_attributes["part"] = values
        box.export(tmp_path / "wrong.ply")
        with pytest.raises(CaptureError, match=r"wrong.ply: the property 'part' is no whole number, or negative"):
            read_part_mesh(tmp_path / "wrong.ply")
    trimesh.PointCloud(box.vertices).export(tmp_path / "points.ply")
    with pytest.raises(CaptureError, match=r"points.ply has no faces"):
        read_part_mesh(tmp_path / "points.ply")
    (tmp_path / "none.ply").write_bytes(b"no mesh")
    for name in ("none.ply", "nowhere.ply"):
        with pytest.raises(CaptureError, match=f"{name} cannot be read as a PLY file"):
            read_part_mesh(tmp_path / name)
