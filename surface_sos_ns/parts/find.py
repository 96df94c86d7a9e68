"""Finds the parts of a run's object; the run stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, overload

import numpy as np

from surface_sos_ns.api import RunError
from surface_sos_ns.capture.views import Views
from surface_sos_ns.models.parts.fit import PartFeatures, describe_surface, fit_parts, part_areas
from surface_sos_ns.models.parts.labels import part_labels
from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.models.surface_sos.mesh import MeshError
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.parts.settings import PartsError, PartsSettings
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.part_results import PARTS_FOLDER, PartFacts, parts_file, save_parts
from surface_sos_ns.training.parts import PartObjective
from surface_sos_ns.utils.part_metrics import face_labels, pieces_per_part
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    from surface_sos_ns.api import Run, View
    from surface_sos_ns.masks.features import FeatureChoice

__all__ = ["describe_run", "find_parts", "pieces_of"]


def find_parts(run: Run, settings: PartsSettings, say: Callable[[str], None]) -> PartHead:
    """Find parts and write them beside the run; those that were attached to it are replaced by what is there now.

    Numbers are taken over from the latest result, by overlap.

    Args:
        run: opened.
        settings: checked.
        say: told what is done.

    Raises:
        PartsError: the run has no surface, or a result that is not to be overwritten.
        MaskError: features that were asked for cannot be had.
        WriteError: the result cannot be written.
    """
    from surface_sos_ns.masks.features import FeatureChoice
    from surface_sos_ns.utils.locks import locked_folder

    check_run(run, settings.object)
    file = parts_file(run.config.parent, settings.parts, settings.object)
    if file.exists() and not settings.overwrite:
        raise PartsError(
            f"{file} exists: {settings.parts} parts were found already. Give --overwrite to find them again, or "
            "another --parts: results of several numbers are kept side by side."
        )
    (run.config.parent / PARTS_FOLDER).mkdir(exist_ok=True)
    with locked_folder(run.config.parent / PARTS_FOLDER, "Wait until it is done."):
        features = FeatureChoice(settings.features, settings.model, settings.features_onnx)
        data = describe_run(run, features, say, settings.object)
        earlier = [result.head for result in run.part_results if result.facts.object == settings.object]
        with Stage(f"Finding {settings.parts} parts", 1.0) as stage:
            head = fit_parts(
                run.model.scene,
                data,
                settings.parts,
                PartObjective(),
                settings.seed,
                next(iter(earlier), None),
                stage.reach,
            )
        pieces = pieces_of(run.model.scene, head, data)
        facts = PartFacts(
            checkpoint=run.checkpoint.name,
            features=features.load().name,
            seed=settings.seed,
            areas=tuple(part_areas(head, data).tolist()),
            pieces=tuple(pieces.get(part, 0) for part in range(1, head.parts + 1)),
            order=1 + max((result.facts.order for result in run.part_results), default=0),
            object=settings.object,
        )
        for line in about_parts(facts):
            say(line)
        say(f"written to {save_parts(run.config.parent, head, facts)}")
    run.model.attach_parts(run.config.parent, run.checkpoint.name)
    return head


def check_run(run: Run, object: str | None = None) -> None:
    """
    Raises:
        PartsError: the run's object has no surface that stays in place, or `object` does not name one of several.
    """
    if not isinstance(run.model.scene, SurfaceSOS):
        raise PartsError(f"{run.config} is of a method without an object's surface; expected a run of surface-sos.")
    if run.model.scene.deformation is not None:
        raise PartsError(
            f"The object of {run.config} may deform (scene.deformation); parts are found on objects that do not."
        )
    if run.objects and object is None:
        raise PartsError(
            f"{run.config} has {len(run.objects)} objects: {', '.join(run.objects)}. Name the one whose parts are to "
            f"be found: --object {run.objects[0]}."
        )
    try:
        run.check_objects([] if object is None else [object])
    except RunError as error:
        raise PartsError(f"--object: {error}") from error


def about_parts(facts: PartFacts) -> Iterator[str]:
    """A line for each part, and one about those that are empty."""
    for index, (area, pieces) in enumerate(zip(facts.areas, facts.pieces, strict=True), start=1):
        if area > 0:
            apart = "" if pieces == 1 else f", in {pieces} pieces"
            yield f"part {index}: {area:.1%} of the surface{apart}"
    empty = sum(area == 0 for area in facts.areas)
    if empty:
        yield f"{empty} of {len(facts.areas)} parts are empty: the surface shows no more that can be told apart"


def describe_run(
    run: Run, features: FeatureChoice, say: Callable[[str], None], object: str | None = None
) -> PartFeatures:
    """The surface of a run's object and what its training photos show of it.

    Args:
        run: of surface-sos.
        features: what describes the photos; kept beside the run, in its folder `parts`.
        say: told what is done.
        object: name of one of several objects; None with one.

    Raises:
        PartsError: there is no surface.
        MaskError: features that were asked for cannot be had.
    """
    from surface_sos_ns.masks.feature_cache import cached_features

    provider = features.load()
    say(f"features: {provider.name}, and the shape of the surface")
    shown = [view for view in run.views if not view.held_out]
    kind = hashlib.blake2b(provider.fingerprint().encode(), digest_size=4).hexdigest()  # so that each keeps its own
    folder = run.config.parent / PARTS_FOLDER / f"features_{kind}"
    described = cached_features(provider, _Photos(run, shown), folder, say)
    try:
        grids = [photo.patches for photo in described]
        return describe_surface(run.model.scene, _views(run, shown), grids, object=object)
    except MeshError as error:
        of = "" if object is None else f" {object}:"
        raise PartsError(f"{run.config}:{of} {error}; parts are found on a surface.") from error


def pieces_of(scene: SurfaceSOS, head: PartHead, data: PartFeatures) -> dict[int, int]:
    """Connected pieces of each part on the run's mesh, without specks; see `pieces_per_part`."""
    vertices, faces = np.asarray(data.mesh.vertices), np.asarray(data.mesh.faces)
    return pieces_per_part(vertices, faces, face_labels(faces, part_labels(head, scene.frame, vertices)))


def _views(run: Run, shown: Sequence[View]) -> Views:
    """The cameras of views, world frame, with the poses that they are rendered from."""
    views = views_from_cameras(run.cameras).subset([view.index for view in shown])
    poses = [run.model.as_trained(view.camera.to(run.model.device)).camera_to_worlds[0].cpu().numpy() for view in shown]
    return replace(views, camera_to_world=np.stack(poses).astype(np.float64))


class _Photos(Sequence[np.ndarray]):
    """Photos of views, (H, W, 3) uint8 each, in training's size; one is read when it is asked for, and none is kept."""

    def __init__(self, run: Run, views: Sequence[View]) -> None:
        self._run, self._views = run, views

    def __len__(self) -> int:
        return len(self._views)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(index, slice):
            return _Photos(self._run, self._views[index])
        return self._run.photo(self._views[index], "training")
