"""What is written for each view: which files, what has to be rendered for them, and their content.

Of one of several objects, files are in a folder of its name within that of their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.export.clean_plates import completed_photo
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.frames import Frame
from surface_sos_ns.export.objects import Subject, subjects
from surface_sos_ns.export.parts import parts_of
from surface_sos_ns.export.settings import ExportSettings, Kind
from surface_sos_ns.plugin.outputs import OBJECT_IDENTITIES
from surface_sos_ns.utils.cutouts import cutout_of_photo, cutout_of_rendering
from surface_sos_ns.utils.encoding import colour_picture, identity_file, mask_picture, matte_picture
from surface_sos_ns.utils.identity_images import filled_identities
from surface_sos_ns.utils.image_io import ImageError, encode_image, read_header, read_picture
from surface_sos_ns.utils.metrics import THRESHOLD

if TYPE_CHECKING:
    from surface_sos_ns.api import Run, View
    from surface_sos_ns.plugin.part_results import PartResult

__all__ = ["IDENTITIES", "MASKS", "PARTS", "Pictures", "Product", "products", "writes_photos"]

MASKS, IDENTITIES, MATTES, CUTOUTS, PLATES, CONFIDENCE, PARTS, IMAGES = (
    *("masks", "identities", "mattes", "cutouts", "clean_plates", "background_confidence", "parts", "images"),
)


@dataclass(frozen=True)
class Pictures:
    """All that is known of one view when its files are made.

    Attributes:
        rendered: images (H, W, C) float32, 0 to 1, by name.
        photo: returns (H, W, 3) float32, 0 to 1; None on a path.
        plate: returns background, background_confidence and shadow by name: those of `rendered`; of a clean plate
            without some of several objects those of `Run.images_without`.
    """

    rendered: dict[str, np.ndarray]
    photo: Callable[[], np.ndarray] | None
    plate: Callable[[], dict[str, np.ndarray]]

    def grey(self, name: str) -> np.ndarray:
        """(H, W), the first channel of an image."""
        return self.rendered[name][..., 0]


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

    def read(self, output: Path, frame: Frame) -> np.ndarray:
        """(H, W, 3) RGB or (H, W, 4) RGBA uint8 of a file that was written.

        Raises:
            ExportError: it cannot be read.
        """
        try:
            picture = read_picture(self.file(output, frame))
        except ImageError as error:
            raise ExportError(f"{error} Or remove it, and run the same command again: it is made anew.") from error
        if picture.alpha is not None:
            return np.dstack([picture.values, picture.alpha])
        return np.repeat(picture.values[..., None], 3, axis=2) if picture.values.ndim == 2 else picture.values


def products(run: Run, settings: ExportSettings) -> list[Product]:
    """All that the settings ask for, per view; of parts the result that they name."""
    found = [product for subject in subjects(settings) for product in _of_object(subject, settings)]
    found += [
        Product(subject.folder(PARTS), "parts", (subject.mask, result.identities), partial(_parts, subject, result))
        for subject, result in parts_of(run, settings)
    ]
    if settings.objects:
        numbers = [run.objects.index(name) + 1 for name in settings.objects]
        encode = partial(_identities, numbers, len(run.objects))
        found.append(Product(IDENTITIES, "masks", (OBJECT_IDENTITIES,), encode))
    found += _plates(run, settings)
    found = [product for product in found if product.kind in settings.kinds]
    if writes_photos(run, settings):
        found.append(Product(IMAGES, None, (), _photo, ".jpg"))
    elif settings.path is not None and "video" in settings.kinds:
        found.append(Product(IMAGES, "video", ("rgb",), _rgb))
    return found


def _of_object(subject: Subject, settings: ExportSettings) -> list[Product]:
    """What there is of one object."""
    alpha, foreground = subject.output("alpha"), subject.output("foreground")
    from_photos = settings.path is None
    cutout = partial(_cutout, alpha) if from_photos else partial(_rendered_cutout, alpha, foreground)
    return [
        Product(subject.folder(MASKS), "masks", (subject.mask,), partial(_mask, subject.mask)),
        Product(subject.folder(MATTES), "mattes", (alpha,), partial(_matte, alpha)),
        Product(subject.folder(CUTOUTS), "cutouts", (alpha,) if from_photos else (alpha, foreground), cutout),
    ]


def _plates(run: Run, settings: ExportSettings) -> list[Product]:
    """Clean plates, and how sure they are; see `Pictures.plate`."""
    everything = settings.remove == run.objects
    mattes = ("alpha",) if everything else tuple(Subject(name).output("alpha") for name in settings.remove)

    def rendered(*outputs: str) -> tuple[str, ...]:
        return outputs if everything else ()

    composited = Product(
        PLATES, "clean-plates", (*rendered("background", "shadow"), *mattes), partial(_completed, mattes)
    )
    whole = Product(PLATES, "clean-plates", rendered("background"), _plate)
    return [
        composited if settings.path is None and settings.plates == "composited" else whole,
        Product(CONFIDENCE, "clean-plates", rendered("background_confidence"), _confidence),
    ]


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


def _mask(mask: str, pictures: Pictures) -> bytes:
    return encode_image(mask_picture(pictures.grey(mask)))


def _identities(shown: Sequence[int], count: int, pictures: Pictures) -> bytes:
    """Those of the exported objects, by the run's numbers, of `count` in all."""
    found = pictures.grey(OBJECT_IDENTITIES)
    return identity_file(np.where(np.isin(found, shown), found, 0), count)


def _matte(alpha: str, pictures: Pictures) -> bytes:
    return encode_image(matte_picture(pictures.grey(alpha)))


def _cutout(alpha: str, pictures: Pictures) -> bytes:
    assert pictures.photo is not None
    return _colours(cutout_of_photo(pictures.photo(), pictures.grey(alpha)))


def _rendered_cutout(alpha: str, foreground: str, pictures: Pictures) -> bytes:
    return _colours(cutout_of_rendering(pictures.rendered[foreground], pictures.grey(alpha)))


def _completed(mattes: Sequence[str], pictures: Pictures) -> bytes:
    """The photo, completed where the objects of these mattes stand."""
    assert pictures.photo is not None
    alpha = np.sum([pictures.grey(matte) for matte in mattes], axis=0).clip(max=1)
    plate = pictures.plate()
    return _colours(completed_photo(pictures.photo(), plate["background"], alpha, plate["shadow"][..., 0]))


def _plate(pictures: Pictures) -> bytes:
    return _colours(pictures.plate()["background"])


def _confidence(pictures: Pictures) -> bytes:
    return _colours(pictures.plate()["background_confidence"][..., 0])


def _parts(subject: Subject, result: PartResult, pictures: Pictures) -> bytes:
    """As `Run.parts`."""
    return encode_image(filled_identities(pictures.grey(result.identities), pictures.grey(subject.mask) > THRESHOLD))


def _rgb(pictures: Pictures) -> bytes:
    return _colours(pictures.rendered["rgb"])


def _photo(pictures: Pictures) -> bytes:
    assert pictures.photo is not None
    return encode_image(colour_picture(pictures.photo()), ".jpg", 97)


def _colours(image: np.ndarray) -> bytes:
    return encode_image(colour_picture(image))
