"""The command `surface-sos masks`: its options, and what it does with a provider's masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surface_sos_ns.utils.text import printable

if TYPE_CHECKING:  # torch and more, which `surface-sos --help` does not need
    from surface_sos_ns.masks.photos import Scene
    from surface_sos_ns.masks.provider import CoarseMasks, MaskProvider
    from surface_sos_ns.masks.vote import Vote

__all__ = ["Masks"]

OPTIONS = (
    "allow_labels",
    "features",
    "model",
    "category",
    "device",
    "program",
    "source",
    "instance",
    "invert",
    "by_order",
    "host",
    "port",
)
"""The fields of `Masks` that belong to methods (see `masks/methods.py`)."""


@dataclass
class Masks:
    """Make coarse masks of a capture's photos, or bring them, and see how far they agree."""

    data: Path
    """The capture: its folder, or its transforms.json."""
    method: Literal["auto", "prior", "selfment", "cosegment", "maskrcnn", "sam2", "rembg", "folder", "click"] = "auto"
    """Where the masks come from. Auto: the better of prior and selfment, judged by sparse points. Prior: geometry
    and colour. Selfment, cosegment: self-supervised features. Maskrcnn, sam2, rembg: detectors trained with labels.
    Folder: masks that exist already. Click: a few clicks in the browser."""
    vote: bool = False
    """Vote the masks in space, and write what the vote says instead of them."""
    overwrite: bool = False
    """Replace coarse masks that the capture has; they are kept in coarse_masks_old."""
    object_point: tuple[float, float, float] | None = None
    """A point of the object, in the coordinates of transforms.json, when several objects could be meant."""
    object_radius: float | None = None
    """Radius of a sphere around object_point that holds the object, in the units of transforms.json."""
    allow_labels: bool = False
    """Auto: whether detectors that were trained with labels may be taken."""
    features: Literal["auto", "network", "descriptor"] | None = None
    """Selfment, cosegment, auto: features of a self-supervised network, or a descriptor of colour and texture, which
    needs no weights. Auto: the network where its weights can be had."""
    model: str | None = None
    """Selfment, cosegment, auto: another checkpoint of the network (DINO, DINOv2, DINOv3), by name or folder."""
    category: str | None = None
    """Maskrcnn: what the object is, such as cat."""
    device: str | None = None
    """Maskrcnn, sam2: where the detector runs, such as cuda."""
    program: str | None = None
    """Rembg: the command that makes a mask, such as "rembg i {input} {output}"."""
    source: Path | None = None
    """Folder: the folder of masks, or a video of them."""
    instance: tuple[int, ...] = ()
    """Folder: ids of the object, where the masks hold ids of several."""
    invert: bool = False
    """Folder: the object is black."""
    by_order: bool = False
    """Folder: match masks and photos by their sorted names, where the names say nothing."""
    host: str | None = None
    """Click: the address to listen at."""
    port: int | None = None
    """Click: the port to listen at."""

    def main(self) -> None:
        """Runs the command.

        Raises:
            UserError: the capture, the options or the masks are not usable, or a file cannot be written; the message
                says what to do. Then all is as it was.
        """
        from surface_sos_ns.capture.transforms import transforms_file
        from surface_sos_ns.masks.methods import make_provider
        from surface_sos_ns.masks.write import check_free, finish_interrupted
        from surface_sos_ns.utils.files import check_writable
        from surface_sos_ns.utils.locks import locked_folder

        provider = make_provider(self.method, {name: getattr(self, name) for name in OPTIONS})
        source = transforms_file(self.data)
        with locked_folder(source.parent, "Wait until it is done."):
            check_writable(source.parent)
            finish_interrupted(source.parent)
            check_free(source, self.overwrite)
            provider.check()
            self._make(provider, source)

    def _make(self, provider: MaskProvider, source: Path) -> None:
        """Has the provider make masks, and sees how far they agree."""
        from surface_sos_ns.masks.photos import read_scene
        from surface_sos_ns.masks.provider import MaskError
        from surface_sos_ns.masks.vote import vote

        scene = read_scene(self.data, self.object_point, self.object_radius)
        _say(f"{len(scene.photos)} photos of {source.parent.resolve().name}: masks by {provider.name}")
        found = provider.masks(scene.photos, _say)
        if all(mask is None for mask in found.masks):
            raise MaskError(f"{provider.name} found the object in no photo. Try another --method, or --object-point.")
        for remark in found.remarks:
            _say(remark)
        voted = vote(scene.photos, found.masks)
        _say_agreement(scene, found, voted)
        self._finish(scene, provider, found, voted)

    def _finish(self, scene: Scene, provider: MaskProvider, found: CoarseMasks, voted: Vote | None) -> None:
        """Writes masks and contact sheet, and says what to do next."""
        from surface_sos_ns.masks.provider import MaskError
        from surface_sos_ns.masks.sheet import mask_sheet
        from surface_sos_ns.masks.vote import voted_masks
        from surface_sos_ns.masks.write import SHEET, write_masks
        from surface_sos_ns.utils.progress import Stage

        photos = scene.photos
        silhouettes = None
        if voted is not None:
            with Stage("projecting the voted hull", len(photos)) as stage:
                silhouettes = voted.silhouettes(photos, lambda: stage.advance(1))
        masks = found
        if self.vote:
            if voted is None or silhouettes is None:
                raise MaskError("--vote needs masks with object pixels in two photos at least. Leave it out.")
            masks = voted_masks(photos, found, voted, silhouettes)
        written = write_masks(
            scene.source,
            scene.file_paths,
            masks.masks,
            photos.sizes,
            self._about(scene, provider, masks, voted),
            mask_sheet(photos, masks.masks, voted, silhouettes, () if voted is None else voted.disagreeing, self.vote),
            self.overwrite,
        )
        if written.kept is not None:
            _say(f"what was there is kept in {written.kept}, with the {scene.source.name} that named it")
        _say(f"{written.count} masks in {written.folder}; look at {scene.source.parent / SHEET}")
        _say(f"Next: ns-train surface-sos-lite --data {self.data}")

    def _about(self, scene: Scene, provider: MaskProvider, masks: CoarseMasks, voted: Vote | None) -> dict[str, Any]:
        """What a reader of the masks may want to know."""
        chosen = getattr(provider, "chosen", provider)
        given = {name: getattr(self, name) for name in (*OPTIONS, "object_point", "object_radius")}
        disagreeing = set() if voted is None else set(voted.disagreeing)
        return {
            "method": chosen.name,
            "labels": chosen.labels,
            "options": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in given.items()
                if value not in (None, (), False)
            },
            "voted": self.vote,
            "agreement": None if voted is None else round(voted.mean, 4),
            "remarks": list(masks.remarks),
            "views": [
                {
                    "file_path": file_path,
                    "mask": masks.masks[view] is not None,
                    "confidence": round(float(masks.confidence[view]), 4),
                    "agreement": None if voted is None else _number(voted.agreement[view]),
                    "disagrees": view in disagreeing,
                }
                for view, file_path in enumerate(scene.file_paths)
            ],
        }


def _number(value: float) -> float | None:
    """The value for a json file, which knows no nan."""
    return round(float(value), 4) if value == value else None


def _say_agreement(scene: Scene, found: CoarseMasks, voted: Vote | None) -> None:
    from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
    from surface_sos_ns.masks.vote import DISAGREES

    if voted is None:
        _say("Fewer than two masks have object pixels, so nothing can be said about how far they agree.")
        return
    _say(
        f"In 3D the views agree at IoU {voted.mean:.2f} (mean of masks and projected hull; 1 is best"
        + (
            f", under {LOW_CONFIDENCE} something else was found or the poses are wrong)."
            if voted.mean < LOW_CONFIDENCE
            else ")."
        )
    )
    if voted.disagreeing:
        names = [f"{scene.file_paths[view]} ({voted.agreement[view]:.2f})" for view in voted.disagreeing]
        _say(
            f"{len(names)} views disagree with the others (IoU under {DISAGREES} of a good view's): {', '.join(names)}"
        )
    missing = sum(mask is None for mask in found.masks)
    if missing:
        _say(f"{missing} photos have no mask; --vote makes one for them from the others.")


def _say(words: str) -> None:
    print(printable(words), flush=True)
