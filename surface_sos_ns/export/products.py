"""What is written for each view: which files, what has to be rendered for them, and their content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.export.clean_plates import completed_photo
from surface_sos_ns.export.frames import Frame
from surface_sos_ns.export.settings import ExportSettings, Kind
from surface_sos_ns.utils.cutouts import cutout_of_photo, cutout_of_rendering
from surface_sos_ns.utils.encoding import colour_picture, mask_picture, matte_picture
from surface_sos_ns.utils.identity_images import filled_identities
from surface_sos_ns.utils.image_io import encode_image, read_header
from surface_sos_ns.utils.metrics import THRESHOLD

if TYPE_CHECKING:
    from surface_sos_ns.api import Run, View

__all__ = ["MASKS", "PARTS", "Pictures", "Product", "products", "writes_photos"]

MASKS, MATTES, CUTOUTS, PLATES, CONFIDENCE, PARTS, IMAGES = (
    *("masks", "mattes", "cutouts", "clean_plates", "background_confidence", "parts", "images"),
)


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
        kind: what it is made for; None for what goes with any kind.
        needs: outputs that are rendered for it.
        suffix: of its files.
        encode: makes the file's content.
    """

    folder: str
    kind: Kind | None
    needs: tuple[str, ...]
    encode: Callable[[Pictures], bytes]
    suffix: str = ".png"

    def file(self, output: Path, frame: Frame) -> Path:
        """Where it is written."""
        return output / self.folder / f"{frame.name}{self.suffix}"


def products(run: Run, settings: ExportSettings) -> list[Product]:
    """All that the settings ask for, per view; of parts the result that they name."""
    photos = settings.path is None
    found = [
        Product(MASKS, "masks", ("alpha",), _mask),
        Product(MATTES, "mattes", ("alpha",), _matte),
        Product(CUTOUTS, "cutouts", ("alpha",) if photos else ("alpha", "foreground"), _cutout),
    ]
    if photos and settings.plates == "composited":
        found.append(Product(PLATES, "clean-plates", ("background", "shadow", "alpha"), _completed))
    else:
        found.append(Product(PLATES, "clean-plates", ("background",), _plate))
    found.append(Product(CONFIDENCE, "clean-plates", ("background_confidence",), _confidence))
    identities = f"part_ids_{settings.parts}"
    found.append(Product(PARTS, "parts", ("alpha", identities), partial(_parts, identities)))
    found = [product for product in found if product.kind in settings.kinds]
    if writes_photos(run, settings):
        found.append(Product(IMAGES, None, (), _photo, ".jpg"))
    elif not photos and "video" in settings.kinds:
        found.append(Product(IMAGES, "video", ("rgb",), _rgb))
    return found


def writes_photos(run: Run, settings: ExportSettings) -> bool:
    """Whether the photos are written too: the capture's do not fit the masks, or not every program sees them so."""
    other_size = settings.size == "training" and run.factor > 1
    per_view = {"masks", "mattes", "cutouts", "clean-plates", "parts"} & set(settings.kinds)
    if settings.path is not None or not per_view:
        return False
    return settings.lens == "undistorted" or other_size or not all(_seen_alike(view) for view in run.views)


def _seen_alike(view: View) -> bool:
    """Whether nerfstudio and others, which ignore orientation tags and palettes, see a photo as this package does."""
    header = read_header(view.path)
    return header.orientation_for(view.size) == 1 and header.mode in ("RGB", "RGBA", "L")


def _mask(pictures: Pictures) -> bytes:
    return encode_image(mask_picture(pictures.alpha))


def _matte(pictures: Pictures) -> bytes:
    return encode_image(matte_picture(pictures.alpha))


def _cutout(pictures: Pictures) -> bytes:
    if pictures.photo is None:
        return _colours(cutout_of_rendering(pictures.rendered["foreground"], pictures.alpha))
    return _colours(cutout_of_photo(pictures.photo(), pictures.alpha))


def _completed(pictures: Pictures) -> bytes:
    assert pictures.photo is not None
    plate, shadow = pictures.rendered["background"], pictures.rendered["shadow"][..., 0]
    return _colours(completed_photo(pictures.photo(), plate, pictures.alpha, shadow))


def _plate(pictures: Pictures) -> bytes:
    return _colours(pictures.rendered["background"])


def _confidence(pictures: Pictures) -> bytes:
    return _colours(pictures.rendered["background_confidence"][..., 0])


def _parts(identities: str, pictures: Pictures) -> bytes:
    """As `Run.parts`."""
    return encode_image(filled_identities(pictures.rendered[identities][..., 0], pictures.alpha > THRESHOLD))


def _rgb(pictures: Pictures) -> bytes:
    return _colours(pictures.rendered["rgb"])


def _photo(pictures: Pictures) -> bytes:
    assert pictures.photo is not None
    return encode_image(colour_picture(pictures.photo()), ".jpg", 97)


def _colours(image: np.ndarray) -> bytes:
    return encode_image(colour_picture(image))
