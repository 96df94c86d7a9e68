"""Masks of photos without cameras, from a provider to the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.names import listed
from surface_sos_ns.masks.contact_sheet import contact_sheet, spaced_views
from surface_sos_ns.masks.output_folder import SHEET, mask_folder
from surface_sos_ns.masks.plain_photos import groups, mask_files, read_photos
from surface_sos_ns.masks.provider import PlainMaskProvider, PlainPhotos, Progress
from surface_sos_ns.masks.summary import given_options

__all__ = ["make_masks"]


def make_masks(
    provider: PlainMaskProvider,
    source: Path,
    photos: Sequence[Path],
    output: Path,
    options: Mapping[str, Any],
    say: Progress,
) -> None:
    """Makes the masks of photos, group after group, and writes them with a contact sheet and about.json.

    Args:
        provider: that makes them.
        source, photos: see `plain_photos.find_photos`.
        output: the folder, see `output_folder.mask_folder`.
        options: of the command, for about.json.
        say: called with lines for the user.

    Raises:
        MaskError: no masks can be made.
        ImageError: a photo cannot be read.
        WriteError: a file cannot be written. After all three `output` is as it was.
    """
    say(f"{len(photos)} photos of {source}: masks by {provider.name}")
    names = mask_files(source, photos)
    on_sheet = set(spaced_views(len(photos)))
    shown: list[tuple[Path, np.ndarray, tuple[int, int], np.ndarray | None]] = []
    lines, remarks, missing = [], [], []
    parts = groups(len(photos))
    with mask_folder(output) as folder:
        for number, part in enumerate(parts, 1):
            if len(parts) > 1:
                say(f"group {number} of {len(parts)}: {names[part[0]]} to {names[part[-1]]}")
            group = read_photos([photos[index] for index in part])
            found = provider.plain_masks(group, say)
            remarks += list(found.remarks)
            for index, image, size, mask, confidence in zip(
                part, group.images, group.sizes, found.masks, found.confidence, strict=True
            ):
                folder.write_mask(names[index], mask, size)
                lines.append(
                    {
                        "photo": photos[index].name,
                        "mask": names[index],
                        "found": mask is not None,
                        "confidence": round(float(confidence), 4),
                    }
                )
                if mask is None:
                    missing.append(names[index])
                if index in on_sheet:
                    shown.append((photos[index], image, size, mask))
        files, images, sizes, masks = zip(*shown, strict=True)
        folder.write_sheet(contact_sheet(PlainPhotos(files, images, sizes), masks))
        folder.write_about(
            {
                "method": provider.name,
                "labels": provider.labels,
                "options": given_options(options),
                "remarks": remarks,
                "photos": lines,
            }
        )
    if missing:
        say(f"Nothing was found in {len(missing)} photos, whose masks are black: {listed(missing)}")
    say(f"{len(photos)} masks in {output}; look at {output / SHEET}")
