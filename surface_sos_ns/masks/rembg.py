"""`rembg`: any program of the command line that turns a picture into a mask or a cut-out."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from surface_sos_ns.masks.provider import (
    CoarseMasks,
    MaskError,
    MaskProvider,
    Photos,
    PlainMaskProvider,
    PlainPhotos,
    Progress,
)

__all__ = ["Rembg"]

TIME_LIMIT = 600.0
"""Seconds for one photo; the first may download weights."""


class Rembg(MaskProvider, PlainMaskProvider):
    """Masks by another program, run once for each photo.

    Args:
        program: its command, with ``{input}`` where the picture's file goes (a PNG) and ``{output}`` where that of the
            mask or cut-out does (a PNG as well). It is not run by a shell: no pipes, no variables.

    Raises:
        MaskError: the command cannot be understood.
    """

    name: ClassVar[str] = "rembg"
    labels: ClassVar[str] = "those the program was trained with (rembg's own: masks of salient objects)"

    def __init__(self, program: str = "rembg i {input} {output}") -> None:
        try:
            self.words = shlex.split(program)
        except ValueError as error:
            raise MaskError(f"The program {program!r} cannot be understood ({error}).") from error
        for place in ("{input}", "{output}"):
            if not any(place in word for word in self.words[1:]):
                raise MaskError(
                    f"The program {program!r} has no {place}; expected one like 'rembg i {{input}} {{output}}'."
                )

    def check(self) -> None:
        if shutil.which(self.words[0]) is None:
            hint = (
                " `pip install 'rembg[cpu,cli]'` (it downloads its weights once)," if self.words[0] == "rembg" else ""
            )
            raise MaskError(
                f"The program {self.words[0]} is not there; install it,{hint} or name another by its full path."
            )

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        found = self.plain_masks(PlainPhotos(photos.files, photos.images, photos.sizes), progress)
        if all(mask is None for mask in found.masks):
            raise MaskError(f"{self.words[0]} found nothing in any photo; try another method (prior, click).")
        return found

    def plain_masks(self, photos: PlainPhotos, progress: Progress) -> CoarseMasks:
        self.check()
        masks: list[np.ndarray | None] = []
        confidence = np.zeros(len(photos))
        with tempfile.TemporaryDirectory() as folder:
            for index, image in enumerate(photos.images):
                if index % max(1, len(photos) // 10) == 0:
                    progress(f"{Path(self.words[0]).name}: photo {index + 1} of {len(photos)}")
                mask = self._run(image, Path(folder), photos.files[index])
                masks.append(mask)
                if mask is not None:
                    # Opacities near 1/2 lower the confidence.
                    confidence[index] = np.abs(2 * mask - 1)[mask > 0.05].mean()
        missing = [photos.files[index].name for index, mask in enumerate(masks) if mask is None]
        return CoarseMasks(masks, confidence, [f"nothing found in {', '.join(missing)}"] if missing else [])

    def _run(self, image: np.ndarray, folder: Path, photo: Path) -> np.ndarray | None:
        from surface_sos_ns.capture.mask_files import read_mask
        from surface_sos_ns.utils.image_io import ImageError, read_picture, write_image

        source, target = folder / "photo.png", folder / "mask.png"
        target.unlink(missing_ok=True)  # of the photo before
        write_image(source, image)
        command = [word.replace("{input}", str(source)).replace("{output}", str(target)) for word in self.words]
        try:
            ended = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT, check=False
            )
        except OSError as error:
            raise MaskError(f"{self.words[0]} cannot be run ({error}).") from error
        except subprocess.TimeoutExpired:
            raise MaskError(f"{self.words[0]} did not end within {TIME_LIMIT:.0f} s on {photo}.") from None
        words = (ended.stderr or ended.stdout).decode(errors="replace").strip().splitlines()[-5:]
        last = f" Its last words: {' / '.join(words)}" if words else ""
        if ended.returncode:
            raise MaskError(f"{self.words[0]} failed on {photo} (exit status {ended.returncode}).{last}")
        if not target.is_file():
            raise MaskError(f"{self.words[0]} wrote no {{output}} for {photo}; expected a PNG there.{last}")
        try:
            opacity = read_picture(target).alpha
            if opacity is not None and opacity.min() == opacity.max():  # nothing was cut out, or all of it
                return None
            mask = read_mask(target)
        except ImageError as error:
            raise MaskError(f"What {self.words[0]} wrote for {photo} is no picture ({error}).{last}") from error
        height, width = image.shape[:2]
        if abs(mask.shape[1] * height - mask.shape[0] * width) > 0.02 * mask.shape[0] * width + mask.shape[1]:
            raise MaskError(
                f"What {self.words[0]} wrote for {photo} has {mask.shape[1]} x {mask.shape[0]} pixels; "
                f"expected the proportions of the photo, {width} x {height}."
            )
        return mask if (mask >= 0.5).any() else None
