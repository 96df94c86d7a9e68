"""A trained run, opened from Python: the views of its capture, and all that can be rendered of them.

    from surface_sos_ns import load_run

    run = load_run("outputs/SCENE/surface-sos-lite/TIME/config.yml")
    matte = run.matte("frame_00001.jpg")  # (H, W) float32, 0 to 1
    for view in run.views:
        plate = run.clean_plate(view)  # (H, W, 3) float32, 0 to 1

Frames: cameras are nerfstudio's, in its world frame. `Run.pose`, `Run.mesh` and `Run.placed` speak of the capture's own
frame, that of its transforms.json; `Run.capture_to_world` leads from there to the world frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from surface_sos_ns.capture.lens import pinhole, undistorted
from surface_sos_ns.capture.names import find_photos, listed, similar_names
from surface_sos_ns.models.parts.labels import part_labels, set_parts
from surface_sos_ns.models.surface_sos.mesh import MeshError, object_mesh
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.capture_datamanager import CaptureDataManager, CaptureDataManagerConfig
from surface_sos_ns.plugin.checkpoints import CheckpointError, find_checkpoint, list_checkpoints
from surface_sos_ns.plugin.config_file import ConfigFileError, method_of, read_config_file
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParser
from surface_sos_ns.plugin.mesh_texture import PosedPhoto, with_texture
from surface_sos_ns.plugin.model import SurfaceSOSModel
from surface_sos_ns.plugin.outputs import OBJECT_IDENTITIES, output_of
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.run_paths import find_capture
from surface_sos_ns.plugin.trainer import SurfaceSOSTrainerConfig
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.identity_images import filled_identities
from surface_sos_ns.utils.image_io import read_image, resized
from surface_sos_ns.utils.mesh_points import SurfacePoints, points_on
from surface_sos_ns.utils.metrics import THRESHOLD

if TYPE_CHECKING:
    import trimesh

    from surface_sos_ns.plugin.part_results import PartResult

__all__ = ["Lens", "MeshError", "Run", "RunError", "Size", "View", "load_run"]

Size = Literal["original", "training"]
Lens = Literal["original", "undistorted"]


class RunError(UserError):
    """A run cannot be opened, or has no such view; the message names it, and says what to do."""


@dataclass(frozen=True, eq=False)
class View:
    """A photo of a run's capture.

    Attributes:
        index: its place in `Run.views`.
        name: its file_path in transforms.json.
        path: its file, at original size.
        held_out: whether training has not seen it.
        camera: one camera (1,), world frame, of the photo's original size and lens; its pose is the capture's.
    """

    index: int
    name: str
    path: Path
    held_out: bool
    camera: Cameras

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo in pixels."""
        return int(self.camera.width[0]), int(self.camera.height[0])

    def photo(self) -> np.ndarray:
        """(H, W, 3) uint8, as the file has it, upright.

        Raises:
            ImageError: the file is missing or no image.
        """
        return read_image(self.path, self.size)


@dataclass(eq=False)
class Run:
    """A trained model with its capture; made by `load_run`.

    Wherever a method takes a camera, it may be a `View`, its index, its name (or as much of the path's end as is
    unique, with or without suffix: "frame_00001"), or any single nerfstudio camera in the world frame. A view stands
    for its photo's original size and lens; `camera` gives others. Images are float32 numpy arrays, 0 to 1.

    Attributes:
        config: the run's config.yml.
        checkpoint: the file that was loaded.
        model: in evaluation mode, on a GPU where one works.
        data: how the capture was read for training.
        source: the capture's transforms.json, or the folder of its COLMAP model.
        views: all photos, in the order of their names.
        factor: how many times smaller than the originals training used the photos.
        capture_to_world: (4, 4) float64, points of transforms.json's frame to the world frame, scale included.
    """

    config: Path
    checkpoint: Path
    model: SurfaceSOSModel
    data: CaptureDataManagerConfig
    source: Path
    views: tuple[View, ...]
    factor: int
    capture_to_world: np.ndarray

    @property
    def capture(self) -> Path:
        """The folder that the names of the views are relative to."""
        from surface_sos_ns.capture.transforms import capture_folder

        return capture_folder(self.source)

    # ------------------------------------------------------------------ cameras

    @cached_property
    def cameras(self) -> Cameras:
        """All views' cameras (N,), world frame, original sizes and lenses."""
        joined: dict[str, Any] = {}
        cameras = [view.camera for view in self.views]
        for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "distortion_params", "camera_type"):
            parts = [getattr(camera, name) for camera in cameras]
            joined[name] = None if parts[0] is None else torch.cat(parts)
        times = [camera.times for camera in cameras]
        return Cameras(**joined, times=None if times[0] is None else torch.cat(cast("list[torch.Tensor]", times)))

    def view(self, which: View | str | int) -> View:
        """A view by index or name.

        Raises:
            RunError: there is none, or several that the name could mean.
        """
        if isinstance(which, View):
            return which
        if isinstance(which, int):
            if not -len(self.views) <= which < len(self.views):
                raise RunError(f"The run has {len(self.views)} views; there is no view {which}.")
            return self.views[which]
        names = [view.name for view in self.views]
        (found,) = find_photos([str(which)], names)
        if len(found) == 1:
            return self.views[found[0]]
        if found:
            raise RunError(f"'{which}' could be {listed([names[index] for index in found], 4)}; give more of the path.")
        near = similar_names(str(which), names) or names[:3]
        raise RunError(f"No photo of the capture is called '{which}'; there is, for example, {listed(near)}.")

    def camera(self, which: View | str | int, size: Size = "original", lens: Lens = "original") -> Cameras:
        """The camera (1,) of a view, world frame.

        Args:
            which: the view.
            size: of the photo itself, or as training used it (smaller by `factor`).
            lens: the photo's, or a pinhole camera's of the same pose, see `capture.lens.pinhole`.
        """
        camera = replace(self.view(which).camera)
        if lens == "undistorted":
            target = pinhole(views_from_cameras(camera))
            intrinsics: dict[str, Any] = {
                name: torch.tensor(getattr(target, name), dtype=torch.float32)[:, None]
                for name in ("fx", "fy", "cx", "cy")
            }
            plain = torch.full_like(camera.camera_type, CameraType.PERSPECTIVE.value)
            camera = replace(camera, **intrinsics, distortion_params=None, camera_type=plain)
        if size == "training" and self.factor > 1:
            camera.rescale_output_resolution(1.0 / self.factor)
        return camera

    def photo(self, which: View | str | int, size: Size = "original", lens: Lens = "original") -> np.ndarray:
        """(H, W, 3) uint8: the photo of a view, as `camera` of the same arguments sees it.

        Raises:
            ImageError: its file is missing, or no image.
        """
        view = self.view(which)
        image = view.photo()
        if lens == "undistorted":
            seen, target = (views_from_cameras(self.camera(view, lens=kind)) for kind in ("original", "undistorted"))
            image = undistorted(resized(image, *view.size), seen, target, 0)
        camera = self.camera(view, size, lens)
        width, height = int(camera.width[0]), int(camera.height[0])
        if size == "training" and self.factor > 1:  # as training's own were made: whole blocks, a remainder is cut off
            image = image[: height * self.factor, : width * self.factor]
        return resized(image, width, height)

    def pose(self, camera: View | str | int | Cameras) -> np.ndarray:
        """(4, 4) camera-to-world of a camera in the capture's frame, as transform_matrix in transforms.json.

        Of a training view whose pose was refined, the refined one: that which it is rendered from.
        """
        posed = self.model.as_trained(self._one(camera).to(self.model.device))
        world = posed.camera_to_worlds[0].detach().cpu().double().numpy()
        from_world = np.linalg.inv(self.capture_to_world)
        scale = np.cbrt(np.linalg.det(from_world[:3, :3]))
        pose = np.eye(4)
        pose[:3, :3] = from_world[:3, :3] / scale @ world[:, :3]
        pose[:3, 3] = from_world[:3, :3] @ world[:, 3] + from_world[:3, 3]
        return pose

    def placed(self, camera: View | str | int | Cameras, pose: np.ndarray | Sequence[Sequence[float]]) -> Cameras:
        """A camera (1,), world frame, with the size and lens of another one, at a pose of one's own.

        Args:
            camera: whose intrinsics to take.
            pose: (4, 4) or (3, 4) camera-to-world in the capture's frame; x right, y up, looking along -z.
        """
        given = np.asarray(pose, dtype=np.float64)
        scale = np.cbrt(np.linalg.det(self.capture_to_world[:3, :3]))
        turned = self.capture_to_world[:3, :3] / scale @ given[:3, :3]
        moved = self.capture_to_world[:3, :3] @ given[:3, 3] + self.capture_to_world[:3, 3]
        world = torch.tensor(np.concatenate([turned, moved[:, None]], axis=1), dtype=torch.float32)
        return replace(self._one(camera), camera_to_worlds=world[None])

    # ------------------------------------------------------------------ pictures

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the images that `render` makes."""
        return tuple(self.model.output_needs())

    def render(self, camera: View | str | int | Cameras, outputs: Iterable[str] = ("rgb",)) -> dict[str, np.ndarray]:
        """Images (H, W, C) of a camera by name; only what they need is computed.

        Args:
            camera: any.
            outputs: of `Run.outputs`, as in the viewer: rgb, mask, alpha, foreground (over black), background,
                background_confidence, overlay, depth (along the ray, world units), normals, accumulation ...

        Raises:
            RunError: an output that there is not.
        """
        names = list(outputs)
        unknown = [name for name in names if name not in self.outputs]
        if unknown:
            raise RunError(f"There is no output {', '.join(unknown)}; there are {', '.join(self.outputs)}.")
        images = self.model.images(self._one(camera), names)
        return {name: image.cpu().numpy() for name, image in images.items()}

    @contextmanager
    def in_the_light_of(self, which: View | str | int) -> Iterator[None]:
        """Inside, everything is rendered with the exposure, white balance and light of a photo.

        Otherwise these are the mean of the training photos', so that frames of a path do not flicker. The appearance is
        fitted to all of the photo, whether training has seen it or not: where the light differs from photo to photo
        that takes seconds.

        Args:
            which: the view.
        """
        view = self.view(which)
        if view.index not in self._codes:
            photo = torch.from_numpy(self.photo(view, "training") / np.float32(255))
            self._codes[view.index] = self.model.code_of_photo(self.camera(view, "training"), photo)
        with self.model.appearance(self._codes[view.index]):
            yield

    @cached_property
    def _codes(self) -> dict[int, torch.Tensor]:
        """Appearance codes of photos, as far as they were fitted, by index of the view."""
        return {}

    @property
    def light_changes(self) -> bool:
        """Whether the run has learned that the light differs from photo to photo."""
        return self.model.scene.config.light_codes > 0

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of several objects, in the order of their identities, which are 1 to K; empty for a run with one."""
        return self.model.object_names

    def check_objects(self, names: Iterable[str]) -> tuple[str, ...]:
        """The objects of these names, in the run's order.

        Raises:
            RunError: there is none of such a name, or the run has one object only.
        """
        asked = list(names)
        unknown = [name for name in asked if name not in self.objects]
        if unknown and not self.objects:
            raise RunError(f"{self.config} has one object, without a name; leave '{unknown[0]}' out.")
        if unknown:
            wrong = ", ".join(f"'{name}'" for name in unknown)
            raise RunError(f"{self.config} has no object {wrong}; its objects are {', '.join(self.objects)}.")
        return tuple(name for name in self.objects if name in asked)

    def matte(self, camera: View | str | int | Cameras, object: str | None = None) -> np.ndarray:
        """(H, W) float32: how much of each pixel is the object, 0 to 1.

        Args:
            camera: any.
            object: one of several by its name; None for all of them together.

        Raises:
            RunError: there is no such object.
        """
        name = self._output("alpha", object)
        return self.render(camera, [name])[name][..., 0]

    def mask(self, camera: View | str | int | Cameras, object: str | None = None) -> np.ndarray:
        """(H, W) bool: the pixels that are more object than not; arguments as of `matte`.

        A pixel of several objects is in the mask of the one that it shows most of alone.
        """
        name = self._output("mask", object)
        return self.render(camera, [name])[name][..., 0] > 0.5

    def identities(self, camera: View | str | int | Cameras) -> np.ndarray:
        """(H, W) uint8: which object each pixel is of, 1 to K in the order of `Run.objects`; 0 for none."""
        if not self.objects:
            return self.mask(camera).astype(np.uint8)
        return self.render(camera, [OBJECT_IDENTITIES])[OBJECT_IDENTITIES][..., 0].astype(np.uint8)

    def clean_plate(self, camera: View | str | int | Cameras) -> np.ndarray:
        """(H, W, 3) float32: the view without the object, or without any of several; all of it rendered."""
        return self.render(camera, ["background"])["background"]

    def without(self, camera: View | str | int | Cameras, objects: str | Iterable[str] = ()) -> np.ndarray:
        """(H, W, 3) float32: the view without some of several objects, all of it rendered.

        What remains of the others is in it, also where a removed one hid it, and the completed background behind.

        Args:
            camera: any.
            objects: a name, or several; none for all of them.

        Raises:
            RunError: there is no such object.
        """
        return self.images_without(camera, objects)["background"]

    def images_without(
        self, camera: View | str | int | Cameras, objects: str | Iterable[str] = ()
    ) -> dict[str, np.ndarray]:
        """The picture of `without`, and what is known about it; arguments as there.

        Returns:
            background (H, W, 3), the picture; background_confidence (H, W, 1), how sure it is; shadow (H, W, 1), share
            of the light that the removed objects keep away.
        """
        removed = self.check_objects([objects] if isinstance(objects, str) else objects) or self.objects
        images = self.model.images_without(self._one(camera), removed)
        return {name: image.cpu().numpy() for name, image in images.items()}

    def cutout(self, camera: View | str | int | Cameras, object: str | None = None) -> np.ndarray:
        """(H, W, 4) float32: the object's own colours, not premultiplied, and its matte; arguments as of `matte`.

        Of a view, the photo's colours, without those of the background that shine through at the outline; of another
        camera, rendered ones.
        """
        from surface_sos_ns.utils.cutouts import cutout_of_photo, cutout_of_rendering

        if isinstance(camera, Cameras):
            alpha, foreground = (self._output(output, object) for output in ("alpha", "foreground"))
            images = self.render(camera, [alpha, foreground])
            return cutout_of_rendering(images[foreground], images[alpha][..., 0])
        return cutout_of_photo(self.photo(camera) / np.float32(255), self.matte(camera, object))

    def mesh(
        self,
        object: str | int | None = None,
        resolution: int = 192,
        parts: bool | int = False,
        faces: int | None = None,
    ) -> trimesh.Trimesh:
        """The object's surface, closed, with its colours at the vertices, in the capture's frame and scale.

        Args:
            object: one of several by its name. None: all of them in one mesh, whose vertices have identities
                (`mesh.vertex_attributes["object"]`, 1 to K). A number in this place is the resolution.
            resolution: cells per axis of the grid over the object sphere's cube; over the object's own of one of
                several.
            parts: give each vertex the identity of its part (`mesh.vertex_attributes["part"]`, from 1) and the part's
                colour instead of its own. True: of the latest result; a number: of that of so many parts. Parts are of
                one object: without `object`, the mesh is that of the one that the result is of.
            faces: at most so many triangles, of each object; None for as many as the grid gives.

        Raises:
            MeshError: nothing is object in this run, or it has no surface.
            RunError: parts that were not found, or an object that there is not.
        """
        if isinstance(object, int):
            return self.mesh(None, object, parts, faces)
        result = self.part_result(None if parts is True else int(parts), object) if parts else None
        identity = self._identity(object if result is None else result.facts.object)
        mesh = object_mesh(self.model.scene, resolution, result is None, identity, faces)
        if result is not None:
            set_parts(mesh, part_labels(result.head, self.model.scene.frame, mesh.vertices), result.parts)
        mesh.apply_transform(np.linalg.inv(self.capture_to_world))
        return mesh

    def textured_mesh(
        self, object: str | None = None, resolution: int = 192, faces: int = 50_000, size: int | None = None
    ) -> trimesh.Trimesh:
        """The object's surface, closed, with a texture from the training photos, in the capture's frame and scale.

        Args:
            object: one of several by its name; needed where there are several.
            resolution: as of `mesh`.
            faces: at most so many triangles.
            size: texels along each side of the texture; None: about as many as the photos have pixels.

        Raises:
            MeshError, RunError: as `mesh`.
            ImageError: a photo is missing, or no image.
        """
        if object is None and self.objects:
            raise RunError(f"Each object has a texture of its own; name one of {', '.join(self.objects)}.")
        mesh = object_mesh(self.model.scene, resolution, identity=self._identity(object), faces=faces)
        photos = [
            PosedPhoto(view.camera, index, partial(self.photo, view), self.camera(view, "training"))
            for index, view in enumerate(view for view in self.views if not view.held_out)
        ]
        found = with_texture(self.model, mesh, photos, self._output("alpha", object), size)
        found.apply_transform(np.linalg.inv(self.capture_to_world))
        return found

    def points(self, object: str | None = None, count: int = 50_000, resolution: int = 192) -> SurfacePoints:
        """Points drawn evenly on the mesh, with its colours, and of several objects their identities.

        Args:
            object, resolution: as of `mesh`.
            count: of the points.

        Raises:
            MeshError, RunError: as `mesh`.
        """
        return points_on(self.mesh(object, resolution), count)

    def _identity(self, object: str | None) -> int | None:
        """The identity of one of several objects; None for all, or for the run's only one."""
        if object is None:
            return None
        (name,) = self.check_objects([object])
        return self.objects.index(name) + 1

    def _output(self, output: str, object: str | None) -> str:
        """Name of an output of one of several objects, or of all."""
        return output if object is None else output_of(output, *self.check_objects([object]))

    # ------------------------------------------------------------------ parts

    @property
    def part_results(self) -> tuple[PartResult, ...]:
        """Parts that `surface-sos parts` has found on this run, the latest result first."""
        return tuple(self.model.part_results)

    def part_result(self, parts: int | None = None, object: str | None = None) -> PartResult:
        """The result of so many parts; None: the latest.

        Args:
            parts: their number.
            object: of one of several objects; None: of any.

        Raises:
            RunError: there is none.
        """
        names = (None, *self.objects) if object is None else self.check_objects([object])
        results = [result for result in self.part_results if result.facts.object in names]
        for result in results:
            if parts in (None, result.parts):
                return result
        there = ", ".join(str(result.parts) for result in results)
        wanted = "no parts" if parts is None else f"no result of {parts} parts"
        of, option = ("", "") if object is None else (f" of {object}", f" --object {object}")
        raise RunError(
            f"{self.config} has {wanted}{of}{f'; there are {there}' if there else ''}. Find them first: surface-sos "
            f"parts --load-config {self.config}{option}{'' if parts is None else f' --parts {parts}'}."
        )

    def parts(
        self, camera: View | str | int | Cameras, parts: int | None = None, object: str | None = None
    ) -> np.ndarray:
        """(H, W) uint8: the identity of the part at each pixel, from 1; 0 outside the mask of the object.

        Args:
            camera: any.
            parts: of the result of so many parts; None: of the latest.
            object: of one of several objects; None: of that of the latest result.

        Raises:
            RunError: there is no such result.
        """
        result = self.part_result(parts, object)
        whose = result.facts.object
        mask = "alpha" if whose is None else self._output("mask", whose)
        images = self.render(camera, [mask, result.identities])
        return filled_identities(images[result.identities][..., 0], images[mask][..., 0] > THRESHOLD)

    def _one(self, camera: View | str | int | Cameras) -> Cameras:
        """A single camera (1,)."""
        if not isinstance(camera, Cameras):
            return self.camera(camera)
        if camera.size != 1:
            raise RunError(f"One camera at a time is rendered; these are {camera.size}. Take cameras[i : i + 1].")
        return camera if camera.shape else camera.reshape((1,))


def load_run(config: str | Path, data: str | Path | None = None) -> Run:
    """Opens a trained run.

    Args:
        config: its config.yml, or the folder of it.
        data: the capture's folder, where it is no longer where training found it.

    Raises:
        RunError: there is no such run, it is another method's, or its capture is not there.
        CheckpointError: it has no complete checkpoint.
        CaptureError: the capture is there but cannot be read.
    """
    path = Path(config)
    path = path / "config.yml" if path.is_dir() else path
    trainer = read_config(path)
    folder = path.parent / trainer.relative_model_dir
    if not list_checkpoints(folder):
        raise CheckpointError(
            f"No checkpoint in {folder}: this run was stopped before it saved one, or its files were moved. "
            "Train it again, or put them there."
        )
    manager = cast("CaptureDataManagerConfig", trainer.pipeline.datamanager)
    manager.data = manager.dataparser.data = _capture(path, trainer, data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = trainer.pipeline.setup(device=device, test_mode="test")
    pipeline.eval()
    checkpoint, state = find_checkpoint(folder, None, say)
    try:
        pipeline.load_pipeline(state["pipeline"], state["step"])
    except RuntimeError as error:
        raise RunError(
            f"{checkpoint} does not fit its own config.yml or the capture {manager.data}, which may have other photos "
            f"than in training ({str(error).splitlines()[-1].strip()})."
        ) from error
    model = cast("SurfaceSOSModel", pipeline.model)
    model.attach_parts(path.parent, checkpoint.name)
    say(f"Loaded {checkpoint}, trained on {manager.data}")
    say(f"{pipeline.device} | {model.describe()}")
    return _with_views(path, checkpoint, model, cast("CaptureDataManager", pipeline.datamanager))


def read_config(path: Path) -> SurfaceSOSTrainerConfig:
    """A run's configuration, if it is one of this package's methods."""
    if not path.is_file():
        raise RunError(
            f"{path} does not exist; expected the config.yml of a run, outputs/CAPTURE/METHOD/TIME/config.yml."
        )
    known: dict[str, Any] = dict(all_methods)  # some are no more than a hint how to install them
    ours = [name for name in known if isinstance(getattr(known[name], "pipeline", None), SurfaceSOSPipelineConfig)]
    expected = f"expected a run of {', '.join(sorted(ours))}"
    try:
        trainer = read_config_file(path)
    except ConfigFileError as error:
        method = method_of(path)
        if method is not None and method not in ours:
            raise RunError(f"{path} is of the method {method}; {expected}.") from error
        raise RunError(str(error)) from error
    if not isinstance(trainer, SurfaceSOSTrainerConfig):
        raise RunError(f"{path} is not the configuration of a training run; {expected}.")
    return trainer


def _capture(config: Path, trainer: SurfaceSOSTrainerConfig, data: str | Path | None) -> Path:
    """Where the run's capture is."""
    if data is not None:
        if not Path(data).exists():
            raise RunError(f"{data} does not exist; expected the folder of the capture that {config} was trained on.")
        return Path(data)
    known = find_capture(config, trainer)
    if not known.exists():
        raise RunError(f"The capture {known} of {config} is not there: it was moved. Say where it is: --data FOLDER.")
    return known


def _with_views(path: Path, checkpoint: Path, model: SurfaceSOSModel, read: CaptureDataManager) -> Run:
    """The run with all photos of its capture, held out or not."""

    def originals(split: str, **options: Any) -> DataparserOutputs:
        parser = cast("SurfaceSOSDataParser", replace(read.config.dataparser, **options).setup())
        parser.downscale_factor = 1  # and its files are not looked at again
        return parser.get_dataparser_outputs(split)

    parser = cast("SurfaceSOSDataParser", read.dataparser)
    source, folder = parser.capture.source, parser.capture.folder
    trained_on = set(originals("train").image_filenames)
    everything = originals("test", eval_mode="all")
    views = [
        View(
            index,
            Path(os.path.relpath(file, folder)).as_posix(),
            file,
            file not in trained_on,
            everything.cameras[index : index + 1],
        )
        for index, file in enumerate(everything.image_filenames)
    ]
    frame = np.asarray(everything.metadata["capture_to_world"], dtype=np.float64)
    factor = int(parser.downscale_factor or 1)
    return Run(path, checkpoint, model, read.config, source, tuple(views), factor, frame)
