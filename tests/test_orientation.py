"""Photos with an orientation tag that the size leaves open: the poses of a known scene tell what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import textured_corner
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.orientation import check_orientation
from surface_sos_ns.capture.views import Views

VIEWS = 7
STORED = {2: lambda seen: seen[:, ::-1], 3: lambda seen: seen[::-1, ::-1], 4: lambda seen: seen[::-1]}


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], Views]:
    """Photos of the corner as they are seen, and their true cameras."""
    folder = tmp_path_factory.mktemp("corner")
    names = textured_corner.write_photos(folder, VIEWS)
    rotations, centres = textured_corner.cameras(VIEWS)
    poses = np.concatenate([rotations @ np.diag([1.0, -1, -1]), centres[..., None]], axis=-1)  # OpenGL's axes
    width, height, focal = textured_corner.WIDTH, textured_corner.HEIGHT, textured_corner.FOCAL
    each = {"fx": focal, "fy": focal, "cx": width / 2, "cy": height / 2, "width": width, "height": height}
    views = Views(poses, **{name: np.full(VIEWS, value) for name, value in each.items()})
    return [np.array(Image.open(folder / name)) for name in names], views


def tagged(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)
    return path


@pytest.mark.seconds(3)
@pytest.mark.parametrize(("orientation", "which"), [(3, range(VIEWS)), (2, [2, 5])])
def test_poses_tell_what_they_are_for(
    tmp_path: Path, corner: tuple[list[np.ndarray], Views], orientation: int, which: list[int]
) -> None:
    """All photos, or two of seven."""
    seen, views = corner
    paths = [tagged(tmp_path / f"{index}.png", photo, 1) for index, photo in enumerate(seen)]
    for index in which:
        tagged(paths[index], STORED[orientation](seen[index]), orientation)
    assert check_orientation(paths, views.scaled(0.5)) is None
    for index in which:  # what COLMAP has seen of such files
        tagged(paths[index], seen[index], orientation)
    with pytest.raises(CaptureError, match=rf"{len(which)} photos \({which[0]}.png.* as they are stored.*exiftool"):
        check_orientation(paths, views)


def test_nothing_is_asked_where_the_size_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surface_sos_ns.capture import orientation

    monkeypatch.setattr(orientation, "read_image", None)  # calling it would fail
    stored = np.zeros((20, 30, 3), np.uint8)
    paths = [tagged(tmp_path / f"{tag}.png", stored, tag) for tag in (1, 5, 6, 7, 8)]
    poses = np.tile(np.eye(4)[:3], (5, 1, 1))

    def views(width: int, height: int) -> Views:
        return Views(poses, *(np.full(5, value) for value in (30, 30, width / 2, height / 2, width, height)))

    assert check_orientation(paths[:1] * 5, views(30, 20)) is None
    assert check_orientation(paths[1:] + paths[1:2], views(20, 30)) is None  # turned
    assert check_orientation(paths, views(30, 20)) is None  # as stored
    # The program that estimated the poses ignored four tags; it will have ignored the fifth.
    paths[0] = tagged(tmp_path / "half.png", stored, 3)
    with pytest.raises(CaptureError, match=r"1 photos \(half.png\) have an EXIF orientation tag"):
        check_orientation(paths, views(30, 20))


def test_where_nothing_tells_it_is_said(tmp_path: Path) -> None:
    paths = [tagged(tmp_path / f"{index}.png", np.zeros((20, 30, 3), np.uint8), 3) for index in range(3)]
    poses = np.tile(np.eye(4)[:3], (3, 1, 1))
    poses[:, 0, 3] = range(3)
    views = Views(poses, *(np.full(3, value) for value in (30, 30, 15, 10, 30, 20)))
    said = check_orientation(paths, views)
    assert said is not None and "3 photos (0.png, 1.png, 2.png) are turned" in said and "exiftool" in said
