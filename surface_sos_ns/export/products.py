"""What is written for each view: which files, what has to be rendered for them, and their content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from surface_sos_ns.export.clean_plates import completed_photo
from surface_sos_ns.export.command import Export, Kind
from surface_sos_ns.export.cutouts import cutout_of_photo, cutout_of_rendering
from surface_sos_ns.export.frames import Frame

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["MASKS", "Pictures", "Product", "image_file", "products", "writes_photos"]

MASKS, MATTES, CUTOUTS, PLATES, CONFIDENCE, IMAGES = (
    *("masks", "mattes", "cutouts", "clean_plates", "background_confidence", "images"),
)
THRESHOLD = 0.5  # as of the output `mask`


@dataclass(frozen=True)
class Pictures:
    """All that is known of one view when its files are made.

    Attributes:
        rendered: images (H, W, C) float32, 0 to 1, by name.
        photo: returns (H, W, 3) float32, 0 to 1; None on a path.
    """

    rendered: dict[str, np.ndarray]
    photo: Callable[[], np.ndarray] | None

    @property
    def alpha(self) -> np.ndarray:
        """(H, W)."""
        return self.rendered["alpha"][..., 0]


@dataclass(frozen=True)
class Product:
    """A kind of file that each view gets.

    Attributes:
        folder: in the export.
        kind: what it is made for.
        needs: outputs that are rendered for it.
        suffix: of its files.
        encode: makes the file's content.
    """

    folder: str
    kind: Kind
    needs: tuple[str, ...]
    encode: Callable[[Pictures], bytes]
    suffix: str = ".png"

    def file(self, output: Path, frame: Frame) -> Path:
        """Where it is written."""
        return output / self.folder / f"{frame.name}{self.suffix}"


def products(run: Run, settings: Export) -> list[Product]:
    """All that the settings ask for, per view."""
    photos = settings.path is None
    found = [
        Product(MASKS, "masks", ("alpha",), _mask),
        Product(MATTES, "mattes", ("alpha",), _matte),
        Product(CUTOUTS, "cutouts", ("alpha",) if photos else ("alpha", "foreground"), _cutout),
    ]
    if photos and settings.plates == "composited":
        found.append(Product(PLATES, "clean-plates", ("background", "alpha"), _completed))
    else:
        found.append(Product(PLATES, "clean-plates", ("background",), _plate))
    found.append(Product(CONFIDENCE, "clean-plates", ("background_confidence",), _confidence))
    found = [product for product in found if product.kind in settings.kinds]
    if writes_photos(run, settings):
        found.append(Product(IMAGES, "masks", (), _photo, ".jpg"))
    elif not photos and "video" in settings.kinds:
        found.append(Product(IMAGES, "video", ("rgb",), _rgb))
    return found


def writes_photos(run: Run, settings: Export) -> bool:
    """Whether the photos are written too, since those of the capture do not fit the masks."""
    other_size = settings.size == "training" and run.factor > 1
    per_view = {"masks", "mattes", "cutouts", "clean-plates"} & set(settings.kinds)
    return settings.path is None and bool(per_view) and (settings.lens == "undistorted" or other_size)


def _mask(pictures: Pictures) -> bytes:
    return image_file((pictures.alpha > THRESHOLD).astype(np.uint8) * 255)


def _matte(pictures: Pictures) -> bytes:
    return image_file(np.rint(pictures.alpha * 65535).astype(np.uint16))


def _cutout(pictures: Pictures) -> bytes:
    if pictures.photo is None:
        return image_file(_eight_bit(cutout_of_rendering(pictures.rendered["foreground"], pictures.alpha)))
    return image_file(_eight_bit(cutout_of_photo(pictures.photo(), pictures.alpha)))


def _completed(pictures: Pictures) -> bytes:
    assert pictures.photo is not None
    return image_file(_eight_bit(completed_photo(pictures.photo(), pictures.rendered["background"], pictures.alpha)))


def _plate(pictures: Pictures) -> bytes:
    return image_file(_eight_bit(pictures.rendered["background"]))


def _confidence(pictures: Pictures) -> bytes:
    return image_file(_eight_bit(pictures.rendered["background_confidence"][..., 0]))


def _rgb(pictures: Pictures) -> bytes:
    return image_file(_eight_bit(pictures.rendered["rgb"]))


def _photo(pictures: Pictures) -> bytes:
    assert pictures.photo is not None
    return image_file(_eight_bit(pictures.photo()), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 97])


def _eight_bit(image: np.ndarray) -> np.ndarray:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def image_file(image: np.ndarray, suffix: str = ".png", options: list[int] | None = None) -> bytes:
    """The content of an image file: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4), uint8 or uint16."""
    if image.ndim == 3:
        order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
        image = cv2.cvtColor(image, order)
    encoded, content = cv2.imencode(suffix, image, options or [])
    if not encoded:
        raise OSError(f"an image of shape {image.shape} cannot be written as {suffix}")
    return content.tobytes()
