"""Imported masks: every way of coding one object comes back as the same mask, and what cannot be read is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.masks.folder import Folder
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.utils.image_io import ImageError
from tests.helpers.ball_views import ring

WIDTH, HEIGHT, COUNT = 64, 48, 5
NAMES = [f"IMG_{number:04d}" for number in (8, 9, 10, 11, 100)]


def photos(names: list[str] = NAMES, folder: str = "/capture/images") -> Photos:
    files = [Path(folder) / f"{name}.jpg" for name in names]
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    views = ring(len(files), size=(WIDTH, HEIGHT))
    return Photos(files, [blank] * len(files), views, [(WIDTH, HEIGHT)] * len(files))


def blobs(seed: int, objects: int = 1) -> list[np.ndarray]:
    """Random ids (H, W): 0 around, then areas of 1 .. `objects` side by side, all of them in every mask."""
    generator = np.random.default_rng(seed)
    maps = []
    for _ in range(COUNT):
        noise = cv2.GaussianBlur(generator.standard_normal((HEIGHT, WIDTH)), (0, 0), 4)
        inside = noise > np.quantile(noise, 0.6)
        inside[:6] = inside[-6:] = inside[:, :6] = inside[:, -6:] = False
        ids = np.zeros((HEIGHT, WIDTH), np.int32)
        for number, part in enumerate(np.array_split(np.argwhere(inside), objects)):
            ids[part[:, 0], part[:, 1]] = number + 1
        maps.append(ids)
    return maps


def read(folder: Path, shown: Photos | None = None, **options) -> CoarseMasks:
    provider = Folder(folder, **options)
    provider.check()
    return provider.masks(shown or photos(), lambda words: None)


def palette(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 200, 30, 30, 20, 180, 60, 10, 20, 250] + [0] * 756)
    return image


def cut_out(ids: np.ndarray) -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(np.dstack([colours, (ids > 0).astype(np.uint8) * 255]), mode="RGBA")


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


ONE_OBJECT: dict[str, tuple[Callable[[np.ndarray], Image.Image], str]] = {
    "0/255": (lambda ids: grey(255 * (ids > 0)), "png"),
    "0/1": (lambda ids: grey(ids > 0), "png"),
    "0/7": (lambda ids: grey(7 * (ids > 0)), "png"),
    "bool": (lambda ids: Image.fromarray(ids > 0), "png"),
    "16 bit": (lambda ids: Image.fromarray((65535 * (ids > 0)).astype(np.uint16)), "png"),
    "16 bit, 0/1": (lambda ids: Image.fromarray((ids > 0).astype(np.uint16)), "tif"),
    "float": (lambda ids: Image.fromarray((ids > 0).astype(np.float32)), "tiff"),
    "palette": (palette, "png"),
    "alpha": (cut_out, "png"),
    "grey and alpha": (lambda ids: cut_out(ids).convert("LA"), "png"),
    "red on black": (lambda ids: Image.fromarray((ids > 0)[..., None] * np.array([200, 0, 0], np.uint8)), "png"),
    "rgb white": (lambda ids: grey(255 * (ids > 0)).convert("RGB"), "bmp"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("coding", ONE_OBJECT)
def test_one_object_comes_back_equal(tmp_path: Path, coding: str, seed: int) -> None:
    draw, suffix = ONE_OBJECT[coding]
    truth = blobs(seed)
    for name, ids in zip(NAMES, truth, strict=True):
        draw(ids).save(tmp_path / f"{name}.{suffix}")
    found = read(tmp_path)
    for mask, ids in zip(found.masks, truth, strict=True):
        assert mask is not None and mask.dtype == np.float32
        np.testing.assert_array_equal(mask, ids > 0)
    np.testing.assert_array_equal(found.confidence, 1)
    assert len(found.remarks) == 1 and "5 of 5" in found.remarks[0]
    inverted = read(tmp_path, invert=True)
    np.testing.assert_array_equal(inverted.masks[0], truth[0] == 0)


@pytest.mark.parametrize("bits", [8, 16])
def test_soft_masks_keep_their_shades(tmp_path: Path, bits: int) -> None:
    most, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    soft = [cv2.GaussianBlur((ids > 0).astype(np.float64), (0, 0), 2) for ids in blobs(3)]
    for name, mask in zip(NAMES, soft, strict=True):
        Image.fromarray(np.rint(mask * most).astype(kind)).save(tmp_path / f"{name}.png")
    for mask, truth in zip(read(tmp_path).masks, soft, strict=True):
        assert mask is not None
        np.testing.assert_allclose(mask, truth, atol=0.51 / most)


def test_lossy_masks_are_no_ids(tmp_path: Path) -> None:
    truth = blobs(4)
    for name, ids in zip(NAMES, truth, strict=True):
        grey(255 * (ids > 0)).save(tmp_path / f"{name}.jpg", quality=90)
    for mask, ids in zip(read(tmp_path).masks, truth, strict=True):
        assert mask is not None
        assert ((mask >= 0.5) == (ids > 0)).mean() > 0.99


def test_cut_outs_of_nothing_and_black_files_are_empty(tmp_path: Path) -> None:
    """Colours under a transparency of 0 do not count, nor does what JPEG makes of black."""
    truth = blobs(4)
    for name, ids in zip(NAMES, truth, strict=True):
        cut_out(ids if name != NAMES[1] else 0 * ids).save(tmp_path / f"{name}.png")
    speckled = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    (tmp_path / f"{NAMES[2]}.png").unlink()
    grey(speckled).save(tmp_path / f"{NAMES[2]}.jpg", quality=100)
    found = read(tmp_path)
    for index, mask in enumerate(found.masks):
        assert mask is not None
        np.testing.assert_array_equal(mask >= 0.5, truth[index] > 0 if index not in (1, 2) else False)
    assert "2 masks are empty: IMG_0009.jpg, IMG_0010.jpg" in found.remarks


def test_little_noise_among_soft_masks_is_no_object(tmp_path: Path) -> None:
    """A network that finds nothing writes a few low values, in areas, as labels would be."""
    for name, ids in zip(NAMES, blobs(3), strict=True):
        soft = cv2.GaussianBlur(255.0 * (ids > 0), (0, 0), 2)
        grey(np.rint(soft) if name != NAMES[3] else 2 * (ids > 0) + (np.arange(WIDTH) > 30)).save(
            tmp_path / f"{name}.png"
        )
    found = read(tmp_path)
    assert found.masks[3] is not None and found.masks[3].max() == np.float32(3 / 255)
    assert found.masks[2] is not None and found.masks[2].max() > 0.9


IDS = {
    "grey": (lambda ids: grey(10 * ids), (10, 20, 30)),
    "16 bit": (lambda ids: Image.fromarray((1000 * ids).astype(np.uint16)), (1000, 2000, 3000)),
    "palette": (palette, (1, 2, 3)),
    "colour": (
        lambda ids: palette(ids).convert("RGB"),
        tuple(65536 * r + 256 * g + b for r, g, b in ((200, 30, 30), (20, 180, 60), (10, 20, 250))),
    ),
}


@pytest.mark.parametrize("coding", IDS)
def test_instances_are_chosen(tmp_path: Path, coding: str) -> None:
    draw, ids_of = IDS[coding]
    truth = blobs(5, objects=3)
    for name, ids in zip(NAMES, truth, strict=True):
        draw(ids).save(tmp_path / f"{name}.png")
    for chosen in ((1,), (2,), (1, 3)):
        found = read(tmp_path, instance=[ids_of[number - 1] for number in chosen])
        for mask, ids in zip(found.masks, truth, strict=True):
            np.testing.assert_array_equal(mask, np.isin(ids, chosen))
    share = np.mean([(ids == 2).mean() for ids in truth])
    with pytest.raises(MaskError, match="--instance") as refused:
        read(tmp_path)
    assert f"{ids_of[1]} ({share:.1%})" in str(refused.value)
    with pytest.raises(MaskError, match="--instance 77: no mask"):
        read(tmp_path, instance=(77,))


def test_ids_of_which_each_file_has_one(tmp_path: Path) -> None:
    """No file tells that there are several objects, all of them together do."""
    for number, (name, ids) in enumerate(zip(NAMES, blobs(6), strict=True)):
        grey((1 + number % 3) * (ids > 0)).save(tmp_path / f"{name}.png")
    with pytest.raises(MaskError, match="ids of several objects"):
        read(tmp_path)
    found = read(tmp_path, instance=(2,))
    assert [bool(mask.any()) for mask in found.masks if mask is not None] == [False, True, False, False, True]


def test_other_sizes(tmp_path: Path) -> None:
    for name, ids in zip(NAMES, blobs(7), strict=True):
        large = np.kron(ids > 0, np.ones((3, 3)))
        grey(255 * large).save(tmp_path / f"{name}.png")
    found = read(tmp_path)
    assert "5 were of another size" in found.remarks[0]
    grey(np.zeros((HEIGHT, HEIGHT))).save(tmp_path / f"{NAMES[2]}.png")
    with pytest.raises(MaskError, match=r"1 masks have other proportions .*IMG_0010.png is 48 x 48, its photo 64 x 48"):
        read(tmp_path)


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    truth = blobs(8)
    for name, ids in zip(NAMES[:4], truth, strict=False):
        grey(255 * (ids == 0)).save(tmp_path / f"{name}.png")
    grey(np.zeros((HEIGHT, WIDTH))).save(tmp_path / f"{NAMES[1]}.png")
    grey(np.zeros((HEIGHT, WIDTH))).save(tmp_path / "legend.png")
    found = read(tmp_path)
    said = "\n".join(found.remarks)
    assert "4 of 5 photos have a mask" in said
    assert "1 masks are empty: IMG_0009.jpg" in said
    assert "1 photos have no mask: IMG_0100.jpg" in said
    assert "1 files belong to no photo: legend.png" in said
    assert "in 3 of 3 masks most of the border is white; if the object is black, use --invert" in said
    assert found.masks[4] is None and found.confidence[4] == 0


def test_photos_are_no_masks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name in NAMES:
        Image.fromarray(noise).save(tmp_path / f"{name}.jpg")
    with pytest.raises(ImageError, match="looks like a photo"):
        read(tmp_path)


def test_refusals_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="--source"):
        Folder()
    with pytest.raises(MaskError, match="does not exist"):
        Folder(tmp_path / "absent").check()
    with pytest.raises(MaskError, match="has no image file"):
        Folder(tmp_path).check()
    (tmp_path / f"{NAMES[0]}.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="IMG_0008.png cannot be read as an image"):
        read(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(MaskError, match="clip.mp4 cannot be read as a video"):
        read(tmp_path / "clip.mp4")


# ------------------------------------------------------------------------------------------------------- names


def names_that_match(tmp_path: Path, ours: list[str], theirs: list[str], **options) -> tuple[list[int | None], str]:
    """Of each photo the number of the file that it got: the file's mask has that many object pixels, plus one."""
    folder = tmp_path / "masks"
    for number, name in enumerate(theirs):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((HEIGHT, WIDTH))
        mask.ravel()[: number + 1] = 255
        grey(mask).save(path)
    found = read(folder, photos(ours), **options)
    return [None if mask is None else int(mask.sum()) - 1 for mask in found.masks], found.remarks[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected", "words"),
    [
        (["0001", "0002"], ["0002.png", "0001.png"], [1, 0], "by name"),
        (["0001", "0002"], ["0001.jpg.png", "0002.jpg.png"], [0, 1], "by name"),
        (["IMG_1", "IMG_2"], ["img_2.PNG", "img_1.png"], [1, 0], "by name"),
        (["0001", "0002", "0003"], ["mask_0001.png", "mask_0003.png"], [0, None, 1], "'mask_' in front"),
        (["0001", "0002"], ["0001_mask.png", "0002_mask.png", "about.png"], [0, 1], "'_mask' behind"),
        (["1", "2", "11"], ["m1.png", "m11.png", "m2.png"], [0, 2, 1], "'m' in front"),
        (["frame_0001", "frame_0002"], ["0001.png", "0002.png"], [0, 1], "the photos' with 'frame_' in front"),
        (["frame_01", "frame_12"], ["m01_x.png", "m12_x.png"], [0, 1], "'m' in front and '_x' behind"),
        (["left/1", "right/1"], ["right/1.png", "left/1.png"], [1, 0], "by name"),
        (["0001", "0002"], ["deep/er/0001.png", "deep/er/0002.png"], [0, 1], "by name"),
        (["left/1", "right/1"], ["right/1_mask.png", "left/1_mask.png"], [1, 0], "'_mask' behind"),
        (["caf\u00e9 1", "caf\u00e9 2"], ["cafe\u0301 2.png", "cafe\u0301 1.png"], [1, 0], "by name"),
        (["caf\u00e9 1", "caf\u00e9 2"], ["m_cafe\u0301 2.png", "m_cafe\u0301 1.png"], [1, 0], "'m_' in front"),
        (["1", "2"], ["._1.png", "._2.png", "1.png", "@eaDir/1.png", "2.png"], [2, 4], "by name"),
    ],
)
def test_names(tmp_path: Path, ours: list[str], theirs: list[str], expected: list[int | None], words: str) -> None:
    matched, said = names_that_match(tmp_path, ours, theirs)
    assert matched == expected
    assert words in said


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (["0001", "0002"], ["a.png", "b.png"], "No file in .* has the name of a photo.*--by-order"),
        (["1", "2"], ["1_a.png", "2_a.png", "1_b.png", "2_b.png"], "can be read in two ways"),
        (["1", "2"], ["1.png", "1.tif", "2.png"], "1 photos have more than one file .*1.jpg has 1.png, 1.tif"),
        (["left/1", "right/1"], ["1.png"], "has the name of 2 photos"),
        (["left/1", "right/1"], ["m1.png"], "m1.png has the name of 2 photos"),
        (["1", "2"], ["dog/1.png", "cat/1.png"], "1 photos have more than one file .*1.jpg has cat/1.png, dog/1.png"),
        (["left/1", "left/2"], ["1.png", "2.jpg", "2.png"], "left/2.jpg has 2.jpg, 2.png"),
        ([f"{n:04d}" for n in range(10)], [f"x{n:04d}" + ".png" for n in (3, 50, 51, 52, 53, 54)], "Only 1 of 6 files"),
    ],
)
def test_names_that_say_nothing(tmp_path: Path, ours: list[str], theirs: list[str], words: str) -> None:
    with pytest.raises(MaskError, match=words):
        names_that_match(tmp_path, ours, theirs)


def test_order_only_when_asked_for(tmp_path: Path) -> None:
    """2 comes before 10 on both sides."""
    matched, said = names_that_match(tmp_path, ["p10", "p2", "p1"], ["a.png", "b2.png", "b10.png"], by_order=True)
    assert matched == [2, 1, 0]
    assert "by order" in said
    with pytest.raises(MaskError, match="3 image files in .* and 2 photos"):
        names_that_match(tmp_path, ["p10", "p2"], ["a.png"], by_order=True)


def test_frames_of_a_video(tmp_path: Path) -> None:
    """Frame i is the i-th photo by name, whatever the order of the frames in transforms.json."""
    truth = blobs(9)
    with av.open(str(tmp_path / "masks.mkv"), "w") as video:
        stream = video.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for ids in truth:
            frame = av.VideoFrame.from_ndarray(((ids > 0) * 255).astype(np.uint8), format="gray")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    order = [3, 0, 4, 1, 2]
    found = read(tmp_path / "masks.mkv", photos([NAMES[index] for index in order]))
    for mask, index in zip(found.masks, order, strict=True):
        np.testing.assert_array_equal(mask, truth[index] > 0)
    with pytest.raises(MaskError, match="5 frames in .* and 4 photos"):
        read(tmp_path / "masks.mkv", photos(NAMES[:4]))
