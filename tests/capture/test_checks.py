"""Each check on a capture: what it refuses, what it lets pass, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import ImageHeader
from tests.helpers.poses import look_at, orbit

SOURCE = Path("capture/transforms.json")


def half_fields(count: int, tangent: float = 0.5) -> np.ndarray:
    return np.full((count, 2), tangent)


def names(count: int) -> list[str]:
    return [f"images/{i:04d}.png" for i in range(count)]


def disc(size: int = 90, radius: float = 25.0) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (np.hypot(rows - size / 2, columns - size / 2) < radius).astype(np.float32)


def test_frames_are_counted() -> None:
    with pytest.raises(CaptureError, match="no frames"):
        checks.check_frames([], SOURCE)
    with pytest.raises(CaptureError, match=r"one frame only \(images/0000.png\)"):
        checks.check_frames(names(1), SOURCE)
    checks.check_frames(names(2), SOURCE)


def test_photos_come_once() -> None:
    with pytest.raises(CaptureError, match="images/0000.png twice"):
        checks.check_frames([*names(2), "./images/0000.png"], SOURCE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pose: pose.__setitem__((0, 3), np.nan), "NaN"),
        (lambda pose: pose.__setitem__((2, 1), np.inf), "NaN or infinite"),
        (lambda pose: pose.__imul__(np.array([[2.0, 2, 2, 1]])), "scaled or sheared"),
        (lambda pose: pose.__imul__(np.array([[1.0, 1, -1, 1]])), "mirrored"),
    ],
)
def test_bad_poses_are_named(change, words: str) -> None:
    poses = orbit(5)
    change(poses[3])
    with pytest.raises(CaptureError, match=words) as caught:
        checks.check_poses(poses.tolist(), [f"{i}.png" for i in range(5)], SOURCE)
    assert "3.png" in str(caught.value)


def test_poses_pass_and_are_completed() -> None:
    poses = orbit(4)
    checked = checks.check_poses(poses[:, :3].tolist(), list("abcd"), SOURCE)
    np.testing.assert_allclose(checked, poses, atol=1e-12)


def test_cameras_in_one_place_are_refused() -> None:
    poses = orbit(6)
    poses[:, :3, 3] = [1.0, 2.0, 3.0]
    with pytest.raises(CaptureError, match="same place"):
        checks.check_poses(poses.tolist(), list("abcdef"), SOURCE)


@pytest.mark.parametrize("matrix", [[[1, 2, 3]], np.diag([1.0, 1, 1, 2]).tolist(), np.eye(3).tolist(), [[1.0]] * 4])
def test_what_is_no_pose_matrix_is_refused(matrix) -> None:
    with pytest.raises(CaptureError, match="b is not a 4 x 4 matrix of numbers whose last row is 0 0 0 1"):
        checks.check_poses([np.eye(4).tolist(), matrix], ["a", "b"], SOURCE)


def test_a_transposed_pose_is_called_that() -> None:
    poses = orbit(4)
    poses[1] = poses[1].T
    with pytest.raises(CaptureError, match="b is not .* It is transposed"):
        checks.check_poses(poses.tolist(), list("abcd"), SOURCE)


def test_a_stray_camera_is_named() -> None:
    poses = orbit(6)
    poses[4, :3, 3] *= 1e5
    with pytest.raises(CaptureError, match="e stands .* times as far away"):
        checks.check_poses(poses.tolist(), list("abcdef"), SOURCE)
    poses[4, :3, 3] = 1e300
    with pytest.raises(CaptureError, match=r"e is 1e\+300 units away from the origin"):
        checks.check_poses(poses.tolist(), list("abcdef"), SOURCE)


def lens(
    focal: float = 100.0, centre: float = 50.0, distortion: tuple[float, ...] = (0,) * 6, aspect: float = 1.0
) -> Views:
    """Two cameras for photos of 100 x 80, the second with this lens."""
    poses = orbit(2)[:, :3]
    both = np.array([[0.0] * 6, distortion])
    return Views(
        poses,
        np.array([100, focal]),
        np.array([100, focal * aspect]),
        np.array([50, centre]),
        np.full(2, 40),
        *np.array([[100] * 2, [80] * 2]),
        both,
    )


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (lens(focal=4.0), "fl_x of b is 4 for a photo of 100 x 80; expected pixels"),
        (lens(focal=1e6), r"fl_x of b is 1e\+06"),
        (lens(focal=50, aspect=5), "fl_x of b is 50 and fl_y 250; expected nearly the same"),
        (lens(focal=50, aspect=1 / 5), "fl_x of b is 50 and fl_y 10; expected nearly the same"),
        (lens(centre=0.5 + 250), "cx of b is 250.5 for a photo of 100 x 80"),
        (
            lens(distortion=(-50.0, 0, 0, 0, 0, 0)),
            r"distortion of b \(k1=-50\) leaves .*% of the picture without a ray",
        ),
    ],
)
def test_lenses_that_took_no_photo_are_refused(views: Views, words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        checks.check_lenses(views, ["a", "b"], SOURCE)


def test_usual_lenses_pass() -> None:
    barrel = lens(distortion=(-0.3, 0.1, 0, 0, 0.001, -0.002))
    for views in (lens(), barrel, lens(focal=2000.0), lens(centre=-20.0), lens(aspect=2)):
        checks.check_lenses(views, ["a", "b"], SOURCE)
        assert checks.rayless_warning(views, ["a", "b"], SOURCE) is None


def test_corners_without_a_ray_are_said() -> None:
    # r (1 - r^2) turns back at r = 0.577, where it is 0.385; the corner is 0.64 away from the middle.
    warning = checks.rayless_warning(lens(distortion=(-1.0, 0, 0, 0, 0, 0)), ["a", "b"], SOURCE)
    x, y = np.meshgrid(np.linspace(-49.5, 49.5, 33), np.linspace(-39.5, 39.5, 33))
    share = (np.hypot(x, y) / 100 > 2 / 3 / np.sqrt(3)).mean()
    assert warning is not None and f"{share:.1%} of b" in warning


def test_cameras_around_an_object_pass() -> None:
    for arc in (20, 90, 180, 360):
        assert checks.check_viewing_directions(orbit(24, arc), half_fields(24), SOURCE) is None


def test_parallel_and_slightly_diverging_cameras_pass() -> None:
    offsets = np.linspace(-1, 1, 9)
    forward = np.stack([look_at(np.array([x, -4.0, 0.0]), np.array([x, 0.0, 0.0])) for x in offsets])
    assert checks.check_viewing_directions(forward, half_fields(9), SOURCE) is None
    fan = np.stack([look_at(np.array([x, -4.0, 0.0]), np.array([1.5 * x, 0.0, 0.0])) for x in offsets])
    assert checks.check_viewing_directions(fan, half_fields(9), SOURCE) is None


def test_cameras_that_look_away_are_refused() -> None:
    with pytest.raises(CaptureError, match="look away from each other"):
        checks.check_viewing_directions(orbit(24, inward=False), half_fields(24), SOURCE)
    opposite = np.stack([look_at(np.array([s, 0.0, 0.0]), np.array([2 * s, 0.0, 0.0])) for s in (-1.0, 1.0)])
    with pytest.raises(CaptureError, match="look away"):
        checks.check_viewing_directions(opposite, half_fields(2), SOURCE)


def test_poses_in_opencv_axes_are_refused() -> None:
    poses = orbit(24)
    poses[:, :3, 1:3] *= -1
    with pytest.raises(CaptureError, match="x right, y up"):
        checks.check_viewing_directions(poses, half_fields(24), SOURCE)


def test_wide_fan_is_warned_about() -> None:
    warning = checks.check_viewing_directions(orbit(24, arc=120, inward=False), half_fields(24, 1.2), SOURCE)
    assert warning is not None and "fan out" in warning


def test_missing_and_unreadable_images_are_named(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.new("RGB", (8, 6)).save(good)
    assert checks.read_headers([good])[0].stored == (8, 6)
    with pytest.raises(CaptureError, match=r"1 of 2 image files do not exist: .*gone.png"):
        checks.read_headers([good, tmp_path / "gone.png"])
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(CaptureError, match=r"bad.png cannot be read"):
        checks.read_headers([good, bad])


def test_image_of_another_size_is_named() -> None:
    def check(*sizes: tuple[int, int], tag: int = 1) -> None:
        headers = [ImageHeader(size, tag, "PNG", "RGB", False) for size in sizes]
        checks.check_image_sizes([Path("a.png"), Path("b.png")], headers, [(100, 50)] * 2)

    check((100, 50), (101, 50))
    with pytest.raises(CaptureError, match=r"b.png is 50 x 100 pixels, but .* 100 x 50"):
        check((100, 50), (50, 100))
    # Turned a quarter, or as they are stored where only that fits.
    check((50, 100), (100, 50), tag=6)
    with pytest.raises(CaptureError, match=r"b.png is 200 x 80 pixels \(by its EXIF tag 6, which turns it\)"):
        check((50, 100), (80, 200), tag=6)


def test_mask_of_another_size_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    Image.new("L", (40, 30)).save(paths[0])
    Image.new("L", (30, 40)).save(paths[1])
    images = [Path("images/a.jpg"), Path("images/b.jpg")]
    accepted = [[(80, 60), (40, 30)]] * 2
    checks.check_mask_sizes([paths[0], None], images, accepted, "coarse mask")
    with pytest.raises(CaptureError, match=r"coarse mask .*b.png is 30 x 40 pixels, its photo images/b.jpg is 80 x 60"):
        checks.check_mask_sizes([*paths], images, accepted, "coarse mask")


def test_object_masks() -> None:
    good = disc()
    assert checks.object_mask_warnings([]) == []
    assert checks.object_mask_warnings([good] * 3) == []
    assert checks.object_mask_warnings([good, good, np.zeros_like(good)]) == []
    assert "inverted" in checks.object_mask_warnings([1 - good] * 3)[0]
    assert "nearly full" in checks.object_mask_warnings([np.ones_like(good)] * 3)[0]
    assert "empty" in checks.object_mask_warnings([np.zeros_like(good)] * 3)[0]


def test_object_that_touches_the_border_is_fine() -> None:
    tall = np.zeros((90, 60), np.float32)
    tall[10:, 15:45] = 1
    assert checks.object_mask_warnings([tall] * 3) == []


def test_valid_masks() -> None:
    warning = checks.valid_mask_warning([disc()] * 4)
    assert warning is not None and "coarse_mask_path" in warning and "valid" in warning
    person_removed = 1 - disc(radius=15)
    assert checks.valid_mask_warning([person_removed] * 4) is None
    fisheye_circle = disc(radius=44)
    assert checks.valid_mask_warning([fisheye_circle] * 4) is None
    assert checks.valid_mask_warning([np.ones((20, 20), np.float32)]) is None


def test_messages_are_one_line() -> None:
    with pytest.raises(CaptureError) as caught:
        checks.check_frames([], SOURCE)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    json.dumps(str(caught.value))


def test_masks_that_hold_labels_are_told_from_empty_ones() -> None:
    labels = np.zeros((30, 40))
    labels[10:20, 10:20] = 3 / 255
    (said,) = checks.object_mask_warnings([labels, 0 * labels])
    assert "nearly black (brightest pixel: 1.2% of white)" in said and "--instance LABEL" in said
    assert "are empty" in checks.object_mask_warnings([0 * labels])[0]
    assert not checks.object_mask_warnings([labels * 85])


def test_an_opacity_that_is_not_used_is_mentioned() -> None:
    plain, cut_out = (ImageHeader((4, 3), 1, "PNG", mode, mode == "RGBA") for mode in ("RGB", "RGBA"))
    paths = [Path("images/a.png"), Path("images/b.png")]
    assert checks.transparency_warning(paths, [plain, plain]) is None
    said = checks.transparency_warning(paths, [plain, cut_out])
    assert said is not None and said.startswith("1 photos (b.png) have an opacity channel. It is not used")
