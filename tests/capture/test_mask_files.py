"""Reading masks: all ways of coding one object are one mask, noise is no object, and what is no mask is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.utils.image_io import ImageError

WIDTH, HEIGHT = 64, 48


def disc() -> np.ndarray:
    """(H, W) bool."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(x - 30, y - 20) < 14


def photo() -> np.ndarray:
    """(H, W, 3) uint8 of many colours."""
    small = np.random.default_rng(0).random((6, 8, 3), dtype=np.float32)
    return np.rint(cv2.resize(small, (WIDTH, HEIGHT)) * 255).astype(np.uint8)


def tinted(colour: tuple[int, int, int], background: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    return Image.fromarray(np.where(disc()[..., None], np.array(colour), np.array(background)).astype(np.uint8))


def palette(place: int, transparent: bool = False) -> Image.Image:
    image = Image.fromarray(disc().astype(np.uint8) * place, mode="P")
    colours = np.random.default_rng(1).integers(1, 255, (256, 3), dtype=np.uint8)
    colours[0] = 0
    image.putpalette(colours.ravel().tolist())
    return image


def cut_out(opacity: np.ndarray, colours: np.ndarray | None = None) -> Image.Image:
    return Image.fromarray(np.dstack([photo() if colours is None else colours, opacity.astype(np.uint8)]), mode="RGBA")


def palette_cut_out() -> Image.Image:
    """31 colours, and one that is transparent."""
    image = Image.fromarray(photo()).quantize(31)
    coded = Image.fromarray(np.where(disc(), np.asarray(image), 31).astype(np.uint8), mode="P")
    coded.putpalette([*(image.getpalette() or [])[:93], 90, 90, 90])
    coded.info["transparency"] = bytes([255] * 31 + [0])
    return coded


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


ONE_OBJECT: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "0 and 255": (lambda: grey(disc() * 255), "png"),
    "0 and 1": (lambda: grey(disc()), "png"),
    "0 and 38": (lambda: grey(disc() * 38), "png"),
    "1 bit": (lambda: Image.fromarray(disc()), "png"),
    "16 bits": (lambda: Image.fromarray((disc() * 65535).astype(np.uint16)), "png"),
    "16 bits, 0 and 1": (lambda: Image.fromarray(disc().astype(np.uint16)), "tif"),
    "16 bits, 0 and 255": (lambda: Image.fromarray((disc() * 255).astype(np.uint16)), "png"),
    "32 bits": (lambda: Image.fromarray(disc().astype(np.int32) * 7), "tif"),
    "float": (lambda: Image.fromarray(disc().astype(np.float32)), "tif"),
    "colour": (lambda: tinted((255, 255, 255)), "png"),
    "colour, BMP": (lambda: tinted((255, 255, 255)), "bmp"),
    "red on black": (lambda: tinted((128, 0, 0)), "png"),
    "palette": (lambda: palette(5), "png"),
    "palette, GIF": (lambda: palette(5), "gif"),
    "cut-out": (lambda: cut_out(disc() * 255), "png"),
    "cut-out, WebP": (lambda: cut_out(disc() * 255), "webp"),
    "cut-out, grey": (lambda: cut_out(disc() * 255).convert("LA"), "png"),
    "cut-out with a palette": (lambda: palette_cut_out(), "png"),
    "opaque, black and white": (
        lambda: cut_out(disc() * 0 + 255, np.dstack([disc() * 255] * 3).astype(np.uint8)),
        "png",
    ),
}


@pytest.mark.parametrize("coding", ONE_OBJECT)
def test_one_object(tmp_path: Path, coding: str) -> None:
    draw, suffix = ONE_OBJECT[coding]
    draw().save(tmp_path / f"mask.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    mask = read_mask(tmp_path / f"mask.{suffix}")
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, disc())


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_masks(tmp_path: Path, mode: str) -> None:
    grey(disc() * 255).convert(mode).save(tmp_path / "mask.jpg", quality=75)
    mask = read_mask(tmp_path / "mask.jpg")
    assert ((mask > 0) & (mask < 1)).any()  # noise there is
    assert ((mask >= 0.5) == disc()).mean() > 0.99


def test_noise_in_black_is_no_object(tmp_path: Path) -> None:
    """What a lossy format makes of black has the values 0 and 1, as masks of that coding."""
    specks = grey(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3)
    for name in ("a.jpg", "b.jpg", "c.tif"):
        kind = {"quality": 100, **({"compression": "jpeg"} if name == "c.tif" else {})}
        specks.convert("RGB" if name == "b.jpg" else "L").save(tmp_path / name, **kind)
        assert np.asarray(Image.open(tmp_path / name)).max() in (1, 2)
        assert read_mask(tmp_path / name).max() <= np.float32(2 / 255)
    # An opacity has its whole range in any case; so do shades of 16 bits.
    cut_out(disc()).save(tmp_path / "c.png")
    assert read_mask(tmp_path / "c.png").max() == np.float32(1 / 255)
    Image.fromarray((disc() * 100 + (photo()[..., 0] > 128) * 100).astype(np.uint16)).save(tmp_path / "d.png")
    assert read_mask(tmp_path / "d.png").max() == pytest.approx(200 / 65535)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_shades_stay(tmp_path: Path, bits: int) -> None:
    soft = cv2.GaussianBlur(disc().astype(np.float32), (0, 0), 3)
    white = {8: 255, 16: 65535, 32: 1}[bits]
    kind = {8: np.uint8, 16: np.uint16, 32: np.float32}[bits]
    values = (soft if bits == 32 else np.rint(soft * white)).astype(kind)
    Image.fromarray(values).save(tmp_path / "mask.tif")
    np.testing.assert_allclose(read_mask(tmp_path / "mask.tif"), soft, atol=0.51 / white if bits < 32 else 1e-7)
    # A constant: half an object everywhere, none, or all.
    for value, expected in ((0, 0), (white // 2, 0.5), (white, 1)):
        Image.fromarray(np.full_like(values, value)).save(tmp_path / "constant.tif")
        assert np.abs(read_mask(tmp_path / "constant.tif") - expected).max() < (
            1 if bits == 32 and value == 0 else 0.01
        )


def test_soft_opacity_of_sixteen_bits(tmp_path: Path) -> None:
    opacity = np.rint(cv2.GaussianBlur(disc().astype(np.float64), (0, 0), 3) * 65535).astype(np.uint16)
    content = cv2.imencode(".png", np.dstack([photo().astype(np.uint16) * 257, opacity]))[1]
    (tmp_path / "mask.png").write_bytes(content.tobytes())
    np.testing.assert_allclose(read_mask(tmp_path / "mask.png"), opacity / 65535, atol=1e-7)


def test_a_cut_out_of_nothing_is_empty(tmp_path: Path) -> None:
    for name, image in (
        ("colours", cut_out(disc() * 0)),
        ("white", cut_out(disc() * 0, np.full((HEIGHT, WIDTH, 3), 255, np.uint8))),
        ("grey", cut_out(disc() * 0).convert("LA")),
    ):
        image.save(tmp_path / f"{name}.png")
        assert not read_mask(tmp_path / f"{name}.png").any()


def test_what_is_no_mask(tmp_path: Path) -> None:
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[10:14, 10:14] = 200, 10, 10  # hundred pixels of three thousand
    for name, image in (
        ("photo.png", Image.fromarray(photo())),
        ("photo.jpg", Image.fromarray(photo())),
        ("opaque.png", cut_out(disc() * 0 + 255)),
        ("over black.png", Image.fromarray(photo() * disc()[..., None])),
        ("few colours.gif", Image.fromarray(photo()).quantize(200)),
        ("red.jpg", Image.fromarray(cv2.GaussianBlur(red, (0, 0), 2))),
    ):
        image.save(tmp_path / name, **({"quality": 90} if name.endswith("jpg") else {}))
        with pytest.raises(ImageError, match=f"{name} looks like a photo, not like a mask: it has many colours"):
            read_mask(tmp_path / name)
    Image.fromarray(np.where(disc(), np.nan, 0).astype(np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ImageError, match="nan.tif holds values that are no numbers"):
        read_mask(tmp_path / "nan.tif")


def test_labels_of_several_objects(tmp_path: Path) -> None:
    two = disc().astype(np.uint8)
    two[:, 32:] *= 2
    image = palette(1)
    image.putdata(two.ravel().tolist())
    image.save(tmp_path / "palette.png")
    share = (two == 2).mean()
    with pytest.raises(ImageError, match=rf"palette.png holds labels.*, 2 \({share:.1%}\).*--instance LABEL"):
        read_mask(tmp_path / "palette.png")
    image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(ImageError, match="colours.png holds labels of several objects"):
        read_mask(tmp_path / "colours.png")


def test_a_cut_out_in_which_a_program_found_nothing(tmp_path: Path) -> None:
    """Transparent all over, with the photo's colours kept: no object, and not the photo's brightness."""
    cut_out(disc() * 0).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()
