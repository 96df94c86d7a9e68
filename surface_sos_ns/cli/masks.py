"""The command `surface-sos masks`: its options, and what it does with a provider's masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surface_sos_ns.utils.text import printable

if TYPE_CHECKING:  # torch and more, which `surface-sos --help` does not need
    from surface_sos_ns.masks.object_votes import ObjectVotes
    from surface_sos_ns.masks.provider import CoarseMasks, MaskProvider
    from surface_sos_ns.masks.vote import Vote
    from surface_sos_ns.plugin.photos_for_masks import Scene

__all__ = ["Masks"]

OPTIONS = (
    "allow_labels",
    "features",
    "model",
    "features_onnx",
    "variant",
    "category",
    "prompt",
    "device",
    "program",
    "source",
    "instance",
    "invert",
    "by_order",
    "objects",
    "names",
    "host",
    "port",
)
"""The fields of `Masks` that belong to methods (see `masks/methods.py`)."""


NEED_POSES = ("vote", "object_point", "object_radius")
"""Options that say something about space."""


@dataclass
class Masks:
    """Make coarse masks of a capture's photos, or bring them, and see how far they agree; or masks of photos without
    poses (--images)."""

    data: Path | None = None
    """The capture: its folder, or its transforms.json."""
    images: Path | None = None
    """Instead of a capture: a folder of photos without poses, or one photo. Selfment, maskrcnn and rembg can do
    without."""
    output: Path | None = None
    """With images: the folder for the masks, which must not exist or be empty."""
    load_config: Path | None = None
    """Click: the config.yml of a run whose result is to be corrected. Its own masks are shown, the least certain photos
    first; corrections are carried to all photos, and the last line says how to go on from the run."""
    method: Literal[
        "auto", "prior", "selfment", "cosegment", "maskrcnn", "sam2", "text", "rembg", "folder", "click"
    ] = "auto"
    """Where the masks come from. Auto: the better of prior and selfment, judged by sparse points; without poses
    selfment. Prior: geometry and colour. Selfment, cosegment: self-supervised features. Maskrcnn, sam2, rembg:
    detectors trained with labels. Text: a detector of what words name. Folder: masks that exist already. Click: a few
    clicks in the browser."""
    vote: bool = False
    """Vote the masks in space, and write what the vote says instead of them."""
    overwrite: bool = False
    """Replace coarse masks that the capture has, or what is in output; it is kept in coarse_masks_old, or in a folder
    beside output."""
    object_point: tuple[float, float, float] | None = None
    """A point of the object, in the coordinates of transforms.json, when several objects could be meant."""
    object_radius: float | None = None
    """Radius of a sphere around object_point that holds the object, in the units of transforms.json."""
    allow_labels: bool = False
    """Auto: whether detectors that were trained with labels may be taken."""
    features: Literal["auto", "network", "descriptor"] | None = None
    """Selfment, cosegment, auto: features of a self-supervised network, or a descriptor of colour and texture, which
    needs no weights. Auto: the network where its weights can be had; --method auto then tries both."""
    model: str | None = None
    """Selfment, cosegment, auto: another checkpoint of the network (DINO, DINOv2, DINOv3), by name or folder. Text:
    another one of the detector (OWL-ViT, OWLv2)."""
    features_onnx: Path | None = None
    """Selfment, cosegment, auto: an ONNX file of the network, such as DINOv2's, instead of a checkpoint."""
    variant: Literal["capture", "published"] | None = None
    """Selfment: its steps in the form that did best on captures (default), or in the published one."""
    category: str | None = None
    """Maskrcnn: what the object is, such as cat."""
    prompt: tuple[str, ...] = ()
    """Text: what the object is, in English, such as cup; or what each of several objects is, such as cup "wine
    glass"."""
    device: str | None = None
    """Maskrcnn, sam2, text: where the detector runs, such as cuda."""
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
    objects: tuple[int, ...] | None = None
    """Several objects, and how many. Auto, prior, cosegment, sam2: the most salient things on the plane that carries
    them. Maskrcnn: those that are found most surely. Click: as many are clicked. Folder: the masks hold a number or a
    colour for each object, or lie in a folder for each; how many there are need not be said."""
    names: tuple[str, ...] = ()
    """Names of several objects: letters, digits and _. Folder: in the order of their numbers. Auto, prior, cosegment,
    sam2: the most salient first. Click: what is clicked."""
    host: str | None = None
    """Click: the address to listen at."""
    port: int | None = None
    """Click: the port to listen at."""

    def main(self) -> None:
        """Runs the command.

        Raises:
            UserError: the capture, the photos, the options or the masks are not usable, or a file cannot be written;
                the message says what to do. Then all is as it was.
        """
        from surface_sos_ns.masks.provider import MaskError

        if self.data is not None and self.images is not None:
            raise MaskError("--data and --images exclude each other: a capture, or photos without poses.")
        if self.load_config is not None:
            self._of_result(self.load_config)
        elif self.data is not None:
            if self.output is not None:
                raise MaskError("--output goes with --images; masks of a capture are written into it.")
            self._of_capture(self.data)
        elif self.images is not None:
            if self.output is None:
                raise MaskError("--images needs --output, the folder for the masks.")
            self._without_poses(self.images, self.output)
        else:
            raise MaskError("Name a capture with --data, or photos without poses with --images.")

    def _of_result(self, config: Path) -> None:
        """Corrects the masks of a run's result."""
        from surface_sos_ns.cli.correction import correct_result
        from surface_sos_ns.masks.click import Click
        from surface_sos_ns.masks.methods import make_provider
        from surface_sos_ns.masks.provider import MaskError

        if self.method != "click":
            raise MaskError("--load-config goes with --method click, which corrects a run's result.")
        for name in ("images", "output", "objects", "names", *NEED_POSES):
            if getattr(self, name) not in (None, (), False):
                raise MaskError(f"--{name.replace('_', '-')} does not go with --load-config; leave it out.")
        provider = make_provider(self.method, self._given(OPTIONS))
        assert isinstance(provider, Click)
        correct_result(config, provider, self.data, self.overwrite, _say)

    def _without_poses(self, images: Path, output: Path) -> None:
        """Makes masks of photos without cameras."""
        from surface_sos_ns.masks.methods import make_provider_without_poses
        from surface_sos_ns.masks.output_folder import check_output
        from surface_sos_ns.masks.plain_photos import check_readable, find_photos
        from surface_sos_ns.masks.provider import MaskError
        from surface_sos_ns.masks.without_poses import make_masks

        options = self._given(OPTIONS)
        for name in NEED_POSES:
            if getattr(self, name) not in (None, False):
                raise MaskError(f"--{name.replace('_', '-')} needs poses, which --images has not; leave it out.")
        provider = make_provider_without_poses(self.method, options)
        photos = find_photos(images)
        check_output(output, images, self.overwrite)
        provider.check()
        check_readable(photos)
        make_masks(provider, images, photos, output, options, _say)

    def _of_capture(self, data: Path) -> None:
        """Makes masks of a capture."""
        from surface_sos_ns.capture.transforms import capture_source
        from surface_sos_ns.masks.methods import make_provider
        from surface_sos_ns.masks.write import capture_to_write

        provider = make_provider(self.method, self._given(OPTIONS))
        with capture_to_write(capture_source(data), self.overwrite, _say) as source:
            provider.check()
            self._make(provider, data, source)

    def _make(self, provider: MaskProvider, data: Path, source: Path) -> None:
        """Has the provider make masks, says how far they agree, and writes them."""
        from surface_sos_ns.masks.object_votes import in_order_of, vote_found
        from surface_sos_ns.masks.provider import MaskError
        from surface_sos_ns.masks.summary import agreement_lines
        from surface_sos_ns.masks.write import named_objects, truth_remark
        from surface_sos_ns.plugin.photos_for_masks import read_scene

        scene = read_scene(data, self.object_point, self.object_radius)
        _say(f"{len(scene.photos)} photos of {source.parent.resolve().name}: masks by {provider.name}")
        found = in_order_of(named_objects(source), provider.masks(scene.photos, _say))
        if all(mask is None for mask in found.masks):
            raise MaskError(f"{provider.name} found the object in no photo. Try another --method, or --object-point.")
        for remark in found.remarks:
            _say(remark)
        voted = vote_found(scene.photos, found)
        for line in agreement_lines(scene.file_paths, found, voted):
            _say(line)
        warning = truth_remark(source, found.names)
        if warning is not None:
            _say(f"Warning: {warning}")
        self._write(scene, provider, found, voted)

    def _write(
        self, scene: Scene, provider: MaskProvider, found: CoarseMasks, voted: Vote | ObjectVotes | None
    ) -> None:
        """Writes masks and contact sheet, and says what to do next."""
        from surface_sos_ns.masks.contact_sheet import contact_sheet
        from surface_sos_ns.masks.object_votes import ObjectVotes, voted_identities
        from surface_sos_ns.masks.provider import MaskError
        from surface_sos_ns.masks.summary import about
        from surface_sos_ns.masks.vote import voted_masks
        from surface_sos_ns.masks.write import say_written, write_masks
        from surface_sos_ns.utils.progress import Stage

        photos = scene.photos
        silhouettes = projected = None
        if voted is not None:
            with Stage("projecting the voted hull", len(photos)) as stage:
                if isinstance(voted, ObjectVotes):
                    silhouettes, projected = voted.projected(photos, lambda: stage.advance(1))
                else:
                    silhouettes = voted.silhouettes(photos, lambda: stage.advance(1))
        masks = found
        if self.vote:
            if voted is None or silhouettes is None:
                raise MaskError("--vote needs masks with object pixels in two photos at least. Leave it out.")
            if isinstance(voted, ObjectVotes):
                assert projected is not None
                masks = voted_identities(found, voted, silhouettes, projected)
            else:
                masks = voted_masks(photos, found, voted, silhouettes)
        options = self._given((*OPTIONS, "object_point", "object_radius"))
        written = write_masks(
            scene.source,
            scene.file_paths,
            masks.masks,
            photos.sizes,
            about(scene.file_paths, provider, options, masks, voted, self.vote),
            contact_sheet(
                photos,
                masks.masks,
                voted,
                silhouettes,
                () if voted is None else voted.disagreeing,
                self.vote,
                masks.identities,
                masks.names,
            ),
            self.overwrite,
            masks.identities,
            masks.names,
        )
        say_written(written, scene.source, _say)
        _say(f"Next: ns-train surface-sos-lite --data {self.data}")

    def _given(self, names: Sequence[str]) -> dict[str, Any]:
        """Values of the options by name; `objects` as one number, 0 for as many as there are."""
        from surface_sos_ns.masks.provider import MaskError

        given = {name: getattr(self, name) for name in names}
        if self.objects is not None:
            if len(self.objects) > 1 or any(count < 1 for count in self.objects):
                raise MaskError(
                    f"--objects {' '.join(map(str, self.objects))}: expected how many objects there are, one number."
                )
            given["objects"] = self.objects[0] if self.objects else 0
        return given


def _say(words: str) -> None:
    print(printable(words), flush=True)
