"""Reading pictures: each kind of file gives the values that were put into it, and what cannot be read a sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.utils.image_io import (
    MAX_MEGAPIXELS,
    ImageError,
    encode_image,
    read_exif,
    read_header,
    read_image,
    read_picture,
    write_image,
)
from tests.helpers.permissions import open_folder, ordinary_user

WIDTH, HEIGHT = 9, 6
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)


def png(values: np.ndarray, bits: int, *chunks: tuple[bytes, bytes], late: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG file made by hand, of values (H, W[, C]), with chunks before and one behind the pixels."""
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = values.astype(">u2" if bits == 16 else "u1").reshape(height, -1)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        *([late] if late else []),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def of_255(deep: np.ndarray) -> np.ndarray:
    """16 bits as 8: the nearest of the 256 values that 65535 is divided into."""
    return np.array([round(int(value) / 257) for value in deep.ravel()], np.uint8).reshape(deep.shape)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


# ------------------------------------------------------------------ values


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_every_kind(tmp_path: Path, channels: int, bits: int) -> None:
    """Grey, grey with opacity, colours, colours with opacity; what is transparent keeps its colours."""
    deep = DEEP[..., :channels] if channels > 1 else DEEP[..., 0]
    values = deep if bits == 16 else (deep >> 8).astype(np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png(values, bits))
    shallow = of_255(values) if bits == 16 else values
    colours = shallow[..., :3] if channels > 2 else np.repeat(shallow.reshape(HEIGHT, WIDTH, -1)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), colours)
    header, alpha = read_header(path), read_picture(path).alpha
    assert header.stored == header.upright == (WIDTH, HEIGHT)
    assert header.transparent == (channels in (2, 4)) == (alpha is not None)
    if alpha is not None:
        np.testing.assert_array_equal(alpha, values[..., -1])
    assert header.deep_grey == (channels == 1 and bits == 16)


def test_tiff_of_sixteen_bits(tmp_path: Path) -> None:
    for name, values in (("grey", DEEP[..., 0]), ("colours", DEEP[..., :3])):
        content = cv2.imencode(".tiff", values if values.ndim == 2 else values[..., ::-1])[1]
        (tmp_path / f"{name}.tiff").write_bytes(content.tobytes())
        expected = of_255(values)
        np.testing.assert_array_equal(
            read_image(tmp_path / f"{name}.tiff"), expected if values.ndim == 3 else np.dstack([expected] * 3)
        )
    # In the same file with 0 as white, values count from the other end.
    content = (tmp_path / "grey.tiff").read_bytes()
    photometric = struct.pack("<HHI", 262, 3, 1)  # number, SHORT, one of them; then its value
    assert content.count(photometric + b"\1\0") == 1
    (tmp_path / "grey.tiff").write_bytes(content.replace(photometric + b"\1\0", photometric + b"\0\0"))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.tiff")[..., 0], 255 - of_255(DEEP[..., 0]))


def test_portable_maps(tmp_path: Path) -> None:
    grey = DEEP[..., 0]
    (tmp_path / "a.pgm").write_bytes(b"P5\n9 6\n65535\n" + grey.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm")[..., 2], of_255(grey))
    (tmp_path / "b.ppm").write_bytes(b"P6\n9 6\n255\n" + COLOURS.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "b.ppm"), COLOURS)


def test_palettes_bits_and_grey(tmp_path: Path) -> None:
    palette = Image.fromarray(np.arange(54, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 4, mode="P")
    colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30], [7, 7, 7]], np.uint8)
    palette.putpalette(colours.ravel().tolist())
    expected = colours[np.arange(54).reshape(HEIGHT, WIDTH) % 4]
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", palette)), expected)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.gif", palette)), expected)
    path = saved(tmp_path / "b.png", palette, transparency=bytes([0, 255, 128, 255]))
    np.testing.assert_array_equal(read_image(path), expected)  # the colours beneath
    alpha = read_picture(path).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha, np.array([0, 255, 128, 255])[np.arange(54).reshape(HEIGHT, WIDTH) % 4])
    bits = COLOURS[..., 0] > 127
    np.testing.assert_array_equal(read_image(saved(tmp_path / "c.png", Image.fromarray(bits)))[..., 1], bits * 255)
    grey = Image.fromarray(COLOURS[..., 0])
    np.testing.assert_array_equal(read_image(saved(tmp_path / "d.tif", grey)), np.dstack([COLOURS[..., 0]] * 3))


def test_cmyk_and_lab(tmp_path: Path) -> None:
    """Adobe stores CMYK in JPEGs inverted. Against OpenCV's decoder, and for Lab against its formula."""
    inks = np.zeros((16, 16, 4), np.uint8) + np.array([10, 200, 30, 5], np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(inks, mode="CMYK"), quality=100)
    expected = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(read_image(path).astype(int) - expected).max() <= 2
    assert expected[0, 0, 1] < 80 < expected[0, 0, 0]
    lab = np.zeros((4, 4, 3), np.uint8) + np.array([160, 20, 236], np.uint8)  # a and b are signed: 20 and -20
    path = saved(tmp_path / "b.tif", Image.fromarray(lab, mode="LAB"))
    tinted = cv2.cvtColor(np.full((1, 1, 3), (160 / 2.55, 20, -20), np.float32), cv2.COLOR_Lab2RGB)[0, 0] * 255
    assert np.abs(read_image(path)[0, 0] - tinted).max() < 6  # white points differ a little


@pytest.mark.parametrize(("kind", "name"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_numbers_without_a_white(tmp_path: Path, kind: type, name: str) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(COLOURS[..., 0].astype(kind)))
    with pytest.raises(ImageError, match=f"a.tif has {name} pixels.*Convert it"):
        read_image(path)


def test_written_pictures_are_read_again(tmp_path: Path) -> None:
    """Through a path whose bytes are no UTF-8, which OpenCV cannot be given."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 [b] 100%\n"))
    folder.mkdir()
    for name, picture in (("a", COLOURS), ("b", COLOURS[..., 0]), ("c", np.dstack([COLOURS, COLOURS[..., 0]]))):
        write_image(folder / f"{name}.png", picture)
        read = read_picture(folder / f"{name}.png")
        whole = read.values if read.alpha is None else np.dstack([read.values, read.alpha])
        np.testing.assert_array_equal(whole, picture)
    write_image(folder / "d.png", DEEP[..., 0])
    np.testing.assert_array_equal(read_picture(folder / "d.png").values, DEEP[..., 0])
    smooth = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    assert encode_image(smooth, ".jpg", 95)[:2] == b"\xff\xd8"
    write_image(folder / "e.jpg", smooth, quality=95)
    assert np.abs(read_image(folder / "e.jpg").astype(int) - smooth).max() < 4
    with pytest.raises(ImageError, match="gone.png does not exist"):
        read_image(folder / "gone.png")


# ------------------------------------------------------------------ orientation

STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF's table of where the first row and column of a file are seen: what is stored of an upright picture."""


def with_tag(path: Path, upright: np.ndarray, orientation: int) -> Path:
    """Stored as a camera would, by OpenCV's and Pillow's encoders."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = orientation, "a camera"
    stored = np.ascontiguousarray(STORED[orientation](upright))
    lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 100, "subsampling": 0}
    return saved(path, Image.fromarray(stored), exif=exif, **(lossless if path.suffix in (".webp", ".jpg") else {}))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_honoured(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = with_tag(tmp_path / f"a{suffix}", COLOURS, orientation)
    header = read_header(path)
    stored = STORED[orientation](COLOURS)
    assert header.orientation == orientation
    assert header.stored == stored.shape[1::-1] and header.upright == (WIDTH, HEIGHT)
    slack = 60 if suffix == ".jpg" else 0  # of noise in small blocks
    assert np.abs(read_image(path).astype(int) - COLOURS).max() <= slack
    assert np.abs(read_image(path, (90, 60)).astype(int) - COLOURS).max() <= slack
    # Cameras of the stored pixels' format: those that were made by programs that ignore the tag.
    as_stored = read_image(path, header.stored)
    if orientation > 4:
        assert np.abs(as_stored.astype(int) - stored).max() <= slack
    else:  # the size does not tell
        assert np.abs(as_stored.astype(int) - COLOURS).max() <= slack
    exif = read_exif(path)
    assert 0x0112 not in exif and exif[0x0110] == "a camera"


def test_the_orientation_of_other_layers(tmp_path: Path) -> None:
    """16 bits, which OpenCV decodes, opacity, labels; and a tag behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    tag = (b"eXIf", exif.tobytes()[6:])
    (tmp_path / "a.png").write_bytes(png(np.rot90(DEEP), 16, tag))
    (tmp_path / "b.png").write_bytes(png(np.rot90(DEEP), 16, late=tag))
    for name in "ab":
        assert read_header(tmp_path / f"{name}.png").orientation == 6
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), of_255(DEEP[..., :3]))
        alpha = read_picture(tmp_path / f"{name}.png").alpha
        assert alpha is not None
        np.testing.assert_array_equal(alpha, DEEP[..., 3])
    mask = np.zeros((4, 6), np.uint8)
    mask[0, :2] = 255
    np.testing.assert_array_equal(read_mask(with_tag(tmp_path / "m.png", mask, 8)), mask / 255)


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_a_tag_that_means_nothing(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = saved(tmp_path / "a.png", Image.fromarray(COLOURS), exif=exif)
    assert read_header(path).orientation == 1
    np.testing.assert_array_equal(read_image(path), COLOURS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_take_the_photo_along(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(COLOURS, 8, (b"eXIf", b"MM\0*\0\0\xff\xff")))
    np.testing.assert_array_equal(read_image(path), COLOURS)
    assert dict(read_exif(path)) == {}


# ------------------------------------------------------------------ what is refused


def test_what_is_no_image_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(COLOURS).save(tmp_path / "print.eps")  # Pillow would start Ghostscript
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, words in (
        ("folder.jpg", "is a folder"),
        ("empty.jpg", "it is empty"),
        ("text.jpg", "expected one of JPEG, PNG"),
        ("print.eps", "expected one of JPEG, PNG"),
        ("pipe.jpg", "is no regular file"),
        ("gone.jpg", "does not exist"),
        ("x" * 300, "File name too long"),
    ):
        for read in (read_header, read_image, read_mask):
            with pytest.raises(ImageError, match=f"{name}.*{words}"):
                read(tmp_path / name)


def test_a_file_without_permission() -> None:
    with open_folder() as folder:
        path = saved(folder / "a.png", Image.fromarray(COLOURS))
        path.chmod(0)
        match = r"a\.png cannot be read as an image \(Permission denied\)"
        with ordinary_user(), pytest.raises(ImageError, match=match):
            read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_files_that_say_they_are_huge(tmp_path: Path) -> None:
    """A kilobyte that would be gigabytes; and what large sensors give is still read."""
    for width, height in ((60000, 60000), (20000, 13000)):
        content = png(np.zeros((1, 1, 3)), 8)
        size = struct.pack(">II", width, height)
        header = b"IHDR" + size + content[24:29]
        bomb = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
        (tmp_path / "bomb.png").write_bytes(bomb)
        for read in (read_header, read_image, read_mask):
            with pytest.raises(ImageError, match="bomb.png has .*; at most 250 megapixels are read"):
                read(tmp_path / "bomb.png")
    assert MAX_MEGAPIXELS > 16320 * 12240 / 1e6  # a phone's
    Image.new("1", (16320, 12240)).save(tmp_path / "phone.png")
    assert read_header(tmp_path / "phone.png").stored == (16320, 12240)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_files_of_several_pictures(tmp_path: Path, suffix: str) -> None:
    path = saved(
        tmp_path / f"a{suffix}",
        Image.fromarray(COLOURS),
        save_all=True,
        append_images=[Image.fromarray(255 - COLOURS), Image.fromarray(COLOURS // 2)],
    )
    for read in (read_header, read_image, read_mask):
        with pytest.raises(ImageError, match=f"a{suffix} holds 3 pictures"):
            read(path)


def test_previews_behind_the_picture_do_not_count(tmp_path: Path) -> None:
    """A reduced copy in a TIFF; the second picture in a JPEG that cameras write (MPO)."""
    small = Image.fromarray(np.ascontiguousarray(255 - COLOURS[:3, :4]))
    path = saved(tmp_path / "a.tif", Image.fromarray(COLOURS), save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(path), COLOURS)
    large = np.kron(COLOURS, np.ones((8, 8, 1), np.uint8))
    other = Image.fromarray(255 - large)
    path = saved(tmp_path / "b.jpg", Image.fromarray(large), format="MPO", save_all=True, append_images=[other])
    assert read_header(path).format == "MPO"
    assert np.abs(read_image(path).astype(int) - large).mean() < 30 < np.abs(255 - 2 * large.astype(int)).mean()


def valid_files() -> dict[str, bytes]:
    smooth = np.kron(COLOURS, np.ones((4, 4, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6

    def content(kind: str, image: Image.Image, **options: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    image = Image.fromarray(smooth)
    return {
        "jpeg": content("JPEG", image, exif=exif),
        "progressive": content("JPEG", image, progressive=True),
        "cmyk": content("JPEG", image.convert("CMYK")),
        "png": content("PNG", image, exif=exif),
        "palette": content("PNG", image.quantize(8)),
        "png16": png(DEEP[..., :3], 16),
        "tiff": content("TIFF", image, exif=exif),
        "lzw": content("TIFF", image, compression="tiff_lzw"),
        "float": content("TIFF", Image.fromarray(smooth[..., 0].astype(np.float32))),
        "webp": content("WEBP", image, exif=exif),
        "gif": content("GIF", image),
        "bmp": content("BMP", image),
    }


FILES = valid_files()


@pytest.mark.seconds(6)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(FILES)),
    cut=st.none() | st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.booleans()), max_size=5),
)
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, cut: float | None, changes: list[tuple[float, int, bool]]
) -> None:
    """Whatever is cut off or overwritten: an image of at most the largest size, or the module's own error."""
    content = bytearray(FILES[kind])
    for place, value, in_header in changes:
        content[int(place * (min(len(content), 200) - 1 if in_header else len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(content if cut is None else content[: int(cut * len(content))]))
    for read in (read_image, read_mask):
        try:
            image = read(path)
        except ImageError as error:
            assert str(path) in str(error)
        else:
            assert image.shape[0] * image.shape[1] <= MAX_MEGAPIXELS * 1_000_000
            assert np.isfinite(image).all()
