"""The panel's own controls in nerfstudio's viewer, while a run trains and in ns-viewer."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer_elements import (
    ViewerCheckbox,
    ViewerControl,
    ViewerDropdown,
    ViewerElement,
    ViewerRGB,
    ViewerSlider,
)

from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.prior_file import PRIOR_FILE, read_prior
from surface_sos_ns.plugin.viewer.display_settings import DisplaySettings, Facing, Show, Slice, of_each_object
from surface_sos_ns.plugin.viewer.nearest_photo import coarse_mask, mask_over_photo, nearest_view
from surface_sos_ns.plugin.viewer.object_boxes import draw_boxes
from surface_sos_ns.utils.encoding import colour_picture, cutout_picture, mask_picture, matte_picture, write_new
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import ImageError
from surface_sos_ns.utils.metrics import THRESHOLD
from surface_sos_ns.utils.pictures import embedded
from surface_sos_ns.utils.text import as_code

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras
    from nerfstudio.viewer.viewer import Viewer
    from viser import CameraHandle, ClientHandle, GuiEvent, GuiMarkdownHandle, SceneNodeHandle, TransformControlsHandle

    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.plugin.dataset import SurfaceSOSDataset
    from surface_sos_ns.plugin.viewer.viewed_model import ViewedModel

SLICES: dict[str, Facing | None] = {"off": None, "facing you": "camera", "x": "x", "y": "y", "z": "z"}
MAX_SIDE = 4096  # pixels, longer side of an exported picture
MIN_SIDE = 16  # the same
SPHERE = "/object_sphere"
SPHERE_COLOUR = (255, 190, 60)
ALL = "all"
"""Of several objects; no object is named so."""


def sphere_options(centre: np.ndarray, radius: float, capture_to_world: np.ndarray) -> str:
    """The options of ns-train that name a sphere (3,) and length of the world frame, in the capture's own units.

    Args:
        capture_to_world: (4, 4), scale included.
    """
    from_world = np.linalg.inv(capture_to_world)
    point = from_world[:3, :3] @ centre + from_world[:3, 3]
    length = radius * np.cbrt(np.linalg.det(from_world[:3, :3]))
    parser = "--pipeline.datamanager.dataparser"
    step = 10.0 ** (np.floor(np.log10(length)) - 4)  # as exact as the radius is, however far away the origin is
    coordinates = " ".join(f"{round(value / step) * step:.14g}" for value in point)
    return f"{parser}.object-point {coordinates} {parser}.object-radius {length:.5g}"


def colour_legend(names: Sequence[str]) -> str:
    """The names of several objects, each behind a dot in its colour, in viser's Markdown, which takes JSX."""
    colours = ["#" + bytes(colour).hex() for colour in identity_bytes(len(names))]
    dots = [f'<span style={{{{ color: "{colour}" }}}}>●</span>' for colour in colours]
    one = '<span style={{{{ whiteSpace: "nowrap" }}}}>{dot} {{"{name}"}}</span>'
    return (
        "<small>"
        + "&ensp; ".join(one.format(dot=dot, name=name) for dot, name in zip(dots, names, strict=True))
        + "</small>"
    )


def picture_size(height: float, aspect: float) -> tuple[int, int]:
    """Height and width in pixels of a picture of a window, as high as asked for if neither gets too large.

    Args:
        aspect: of the window, width over height.
    """
    height = min(max(round(height), MIN_SIDE), MAX_SIDE, MAX_SIDE / aspect)
    return max(1, round(height)), max(1, round(height * aspect))


class ViewerControls(ViewerControl):
    """A folder in the viewer's panel. nerfstudio finds this among the model's attributes and calls `_setup`.

    What changes the picture is read once for each (`settings`). Everything here runs in viser's threads, for all
    browsers at once; nothing runs while none is open.
    """

    _open = False

    def settings(self) -> DisplaySettings:
        """What the panel is set to; the defaults where there is no panel."""
        if not self._open:
            return DisplaySettings()
        facing = SLICES.get(self.slice.value)
        red, green, blue = (min(max(value / 255, 0.0), 1.0) for value in self.colour.value)
        return DisplaySettings(
            show=cast("Show", self.show.value),
            threshold=min(max(float(self.threshold.value), 0.0), 1.0),
            colour=(red, green, blue),
            slice=None if facing is None else Slice(facing, float(self.offset.value)),
            parts=None if self.parts is None else int(self.parts.value),
            object=None if self.object is None or self.object.value == ALL else self.object.value,
        )

    def _setup(self, viewer: Viewer) -> None:
        """Build the folder; nerfstudio calls this for every viewer it starts."""
        super()._setup(viewer)
        self._exporting, self._looking = threading.Lock(), threading.Lock()
        self._gizmo: TransformControlsHandle | None = None
        self._boxes: list[SceneNodeHandle] = []
        self._position: np.ndarray | None = None
        self._shown_view: int | None = None
        self._thumbnails: dict[int, str] = {}
        self._prior: ObjectPrior | None = None
        self._prior_read = False
        gui = viewer.viser_server.gui
        # Above the tabs, so that it is in sight whichever is open.
        with gui.add_folder("Surface-SOS", order=viewer.stats_markdown.order + 0.5):
            self._add_display()
            with gui.add_folder("Object sphere", expand_by_default=False):
                self._add_sphere()
            with gui.add_folder("Nearest photo", expand_by_default=False):
                self._add_nearest()
            with gui.add_folder("Export this view", expand_by_default=False):
                self._add_export()
        self._open = True
        viewer.viser_server.on_client_connect(self._follow)

    def _model(self) -> ViewedModel:
        return cast("ViewedModel", self.viewer.get_model())

    def _install(self, element: ViewerElement) -> None:
        element.install(self.viser_server)

    def _rerender(self, _: Any = None) -> None:
        self.viewer._trigger_rerender()

    # ------------------------------------------------------------------ what is shown

    def _add_display(self) -> None:
        self.object = self._add_object()
        self.show = ViewerDropdown(
            "Show",
            "both",
            ["both", "object", "background"],
            cb_hook=self._rerender,
            hint="What the output rgb shows: the whole view, the object over the cut-out colour, or the clean plate "
            "(of one of several objects, the view without it)",
        )
        self.threshold = ViewerSlider(
            "Mask threshold",
            THRESHOLD,
            0.0,
            1.0,
            0.01,
            cb_hook=self._rerender,
            hint=f"Alpha from which on a pixel is in mask, and half tinted in overlay. In this viewer and in what it "
            f"exports; commands keep {THRESHOLD}. Of several objects alpha of all counts for mask, and which has most",
        )
        self.colour = ViewerRGB(
            "Cut-out colour", (0, 0, 0), cb_hook=self._rerender, hint="Behind the object, in foreground and Show object"
        )
        self.slice = ViewerDropdown(
            "Slice",
            "off",
            list(SLICES),
            cb_hook=self._rerender,
            hint="Cut away what is between you and a plane: one that faces you, or one square to an axis. Where it "
            "cuts the object open, its inside is drawn in one colour",
        )
        self.offset = ViewerSlider(
            "Slice offset",
            0.0,
            -1.0,
            1.0,
            0.01,
            cb_hook=self._rerender,
            hint="Of the plane from the object's centre, in radii of its sphere: away from you, or along the axis",
        )
        for element in (self.show, self.threshold, self.colour, self.slice, self.offset):
            self._install(element)
        self.parts = self._add_parts()

    def _add_object(self) -> ViewerDropdown | None:
        """The choice of one of several objects, and their colours."""
        names = self._model().object_names
        if not names:
            return None
        chosen = ViewerDropdown(
            "Object",
            ALL,
            [ALL, *names],
            cb_hook=self._rerender,
            hint="The object of the outputs mask, alpha, foreground and overlay, of Show, and of the pictures that are "
            "exported. The output objects shows all of them in their colours",
        )
        self._install(chosen)
        self.viser_server.gui.add_markdown(colour_legend(names))
        return chosen

    def _add_parts(self) -> ViewerDropdown | None:
        """The choice of the result of parts, where there are several."""
        numbers = self._model().part_numbers()
        if len(numbers) < 2:
            return None
        chosen = ViewerDropdown(
            "Parts",
            numbers[0],
            numbers,
            cb_hook=self._rerender,
            hint="Which result of surface-sos parts the output parts shows, by number of parts; at first the latest",
        )
        self._install(chosen)
        return chosen

    # ------------------------------------------------------------------ object sphere

    def _add_sphere(self) -> None:
        gui = self.viser_server.gui
        self.sphere = ViewerCheckbox(
            "Draw it",
            False,
            cb_hook=lambda _: self._draw_sphere(),
            hint="The sphere that holds the object. Move it with its arrows: this run keeps the one it has",
        )
        self.sphere_size = ViewerSlider(
            "Size",
            1.0,
            0.1,
            3.0,
            0.01,
            cb_hook=lambda _: self._draw_sphere(),
            hint="Radius of the drawn sphere, relative to the run's",
        )
        self._install(self.sphere)
        self._install(self.sphere_size)
        if self._model().object_names:
            self.boxes = ViewerCheckbox(
                "Draw boxes",
                False,
                cb_hook=lambda _: self._draw_boxes(),
                hint="A box about each object, as it is when this is switched on",
            )
            self._install(self.boxes)
        self.sphere_text = gui.add_text(
            "Options", "", hint="Of ns-train, in the frame of transforms.json: with them the next run uses this sphere"
        )
        self.sphere_back = gui.add_button("Back to the run's sphere")
        self.sphere_back.on_click(lambda _: self._reset_sphere())

    def _run_sphere(self) -> tuple[np.ndarray, float]:
        """Centre (3,) and radius of the run's sphere, world frame."""
        centre, radius = self._model().object_sphere()
        return centre.detach().cpu().double().numpy(), float(radius)

    @staticmethod
    def _scale() -> float:
        """How much larger the viewer's 3D scene is than the world frame."""
        from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

        return VISER_NERFSTUDIO_SCALE_RATIO

    def _draw_sphere(self) -> None:
        """Show, hide or resize the sphere, and say the options for it. It is placed when it is first shown: before
        training has found the object there is none."""
        scene, (centre, radius) = self.viser_server.scene, self._run_sphere()
        if self._gizmo is None:
            if not self.sphere.value:
                return
            self._gizmo = scene.add_transform_controls(
                SPHERE,
                scale=1.2 * radius * self._scale(),
                disable_rotations=True,
                depth_test=False,
                position=centre * self._scale(),
            )
            self._gizmo.on_update(lambda _: self._say_sphere())
        import trimesh

        ball = trimesh.creation.icosphere(subdivisions=2, radius=radius * self.sphere_size.value * self._scale())
        scene.add_mesh_simple(
            f"{SPHERE}/surface", np.asarray(ball.vertices), np.asarray(ball.faces), SPHERE_COLOUR, wireframe=True
        )
        self._gizmo.visible = self.sphere.value
        self._say_sphere()

    def _draw_boxes(self) -> None:
        """Show the box of each object anew, or hide them."""
        model = self._model()
        with self.viewer.train_lock or nullcontext():
            boxes = {name: model.object_box(name) for name in model.object_names} if self.boxes.value else {}
        corners = {name: box.cpu().double().numpy() * self._scale() for name, box in boxes.items()}
        for drawn in self._boxes:
            drawn.remove()
        self._boxes = draw_boxes(self.viser_server.scene, corners)

    def _reset_sphere(self) -> None:
        self.sphere_size.value = 1.0
        if self._gizmo is not None:
            self._gizmo.position = self._run_sphere()[0] * self._scale()
            self._draw_sphere()

    def _say_sphere(self) -> None:
        assert self._gizmo is not None
        centre = np.asarray(self._gizmo.position, dtype=np.float64) / self._scale()
        radius = self._run_sphere()[1] * self.sphere_size.value
        frame = np.asarray(self._dataset().metadata["capture_to_world"], dtype=np.float64)
        self.sphere_text.value = sphere_options(centre, radius, frame)

    def _dataset(self) -> SurfaceSOSDataset:
        """The photos that the run is trained on."""
        return cast("Any", self.viewer.pipeline.datamanager).train_dataset

    # ------------------------------------------------------------------ nearest photo

    def _add_nearest(self) -> None:
        self.nearest = ViewerCheckbox(
            "Show it",
            False,
            cb_hook=lambda _: self._show_nearest(),
            hint="The training photo that was taken from nearest to where you are, with its coarse mask tinted",
        )
        self._install(self.nearest)
        self.nearest_picture: GuiMarkdownHandle = self.viser_server.gui.add_markdown("", image_root=Path(os.devnull))

    def _follow(self, client: ClientHandle) -> None:
        """Keep up with a browser's camera; of several, with the one that moved last."""

        @client.camera.on_update
        def _(camera: CameraHandle) -> None:
            self._position = np.asarray(camera.position, dtype=np.float64) / self._scale()
            self._show_nearest()

    def _show_nearest(self) -> None:
        """Update the picture. Where another thread is doing so, leave it to that one, which checks again."""
        while (view := self._wanted_view()) != self._shown_view and self._looking.acquire(blocking=False):
            try:
                self.nearest_picture.content = self._thumbnail(view) if view is not None else ""
                self._shown_view = view
            finally:
                self._looking.release()

    def _wanted_view(self) -> int | None:
        if not self.nearest.value or self._position is None:
            return None
        positions = self._dataset().cameras.camera_to_worlds[:, :3, 3].cpu().double().numpy()
        return nearest_view(self._position, positions, self._run_sphere()[0])

    def _thumbnail(self, index: int) -> str:
        """Markdown of a training photo with its coarse mask, made once."""
        if index not in self._thumbnails:
            self._thumbnails[index] = self._make_thumbnail(index)
        return self._thumbnails[index]

    def _make_thumbnail(self, index: int) -> str:
        dataset = self._dataset()
        name = as_code(dataset.image_filenames[index].name)
        try:
            mask, identities = coarse_mask(dataset, self._start(), index)
            picture = mask_over_photo(dataset.get_numpy_image(index), mask, identities)
        except ImageError as error:
            return as_code(str(error))
        words = name if mask is not None else f"{name}: no coarse mask"
        return f"{words}\n\n![{index}]({embedded(picture)})"

    def _start(self) -> ObjectPrior | None:
        """What training starts or started from, if it is known."""
        found: ObjectPrior | None = getattr(self.viewer.pipeline.datamanager, "object_prior", None)
        if found is not None:
            return found
        if not self._prior_read:
            self._prior_read = True
            try:
                self._prior = read_prior(self._run_folder() / PRIOR_FILE)
            except ValueError as error:
                say(f"The viewer shows no masks that were found before training: {error}")
        return self._prior

    # ------------------------------------------------------------------ export

    def _add_export(self) -> None:
        gui = self.viser_server.gui
        self.export_height = gui.add_number(
            "Height",
            720,
            min=MIN_SIDE,
            max=MAX_SIDE,
            step=1,
            hint=f"Of the pictures, in pixels; their width follows from the window's. Neither is over {MAX_SIDE}",
        )
        self.export_button = gui.add_button(
            "Write the pictures",
            hint="Mask (at the mask threshold), 16-bit matte, cut-out with transparency and clean plate of what you "
            "look at, without the slice, into the folder exports of the run. Training waits meanwhile",
        )
        self.export_button.on_click(self._export)
        self.export_progress = gui.add_progress_bar(0.0, visible=False)
        self.export_words = gui.add_markdown("")

    def _run_folder(self) -> Path:
        return self.viewer.log_filename.parent

    def _export(self, event: GuiEvent) -> None:
        """Write the pictures of what the browser sees whose button was pressed."""
        client = event.client or next(iter(self.viser_server.get_clients().values()), None)
        if client is None or not self._exporting.acquire(blocking=False):
            return
        try:
            self.export_button.disabled = self.export_progress.visible = True
            self.export_words.content = ""
            words = self.export_view(self._camera(client))
        except OSError as error:
            words = f"Nothing more is written: {error}"
        except (RuntimeError, MemoryError) as error:  # the former is torch's; too large for the memory
            words = f"Could not be rendered, try a smaller height: {error}".splitlines()[0]
        finally:
            self.export_button.disabled = self.export_progress.visible = False
            self._exporting.release()
        self._say_export(words)

    def _say_export(self, words: str) -> None:
        say(words)
        self.export_words.content = as_code(words)

    def _camera(self, client: ClientHandle) -> Cameras:
        """One camera (1,) that sees what a browser does."""
        state = self.viewer.get_camera_state(client)
        if not self.viewer.render_tab_state.preview_render and self.viewer.include_time:
            state.time = self.viewer.control_panel.time
        return get_camera(state, *picture_size(self.export_height.value, state.aspect))

    def export_view(self, camera: Cameras) -> str:
        """Write mask, matte, cut-out and clean plate of a camera (1,), world frame, and say where.

        Raises:
            OSError: they cannot be written.
        """
        model, settings = self._model(), self.settings()
        objects = model.object_names
        of_objects = sorted(of_each_object(objects))
        width, height = int(camera.width[0]), int(camera.height[0])
        done = 0

        def show_progress(rays: int) -> None:
            nonlocal done
            self.export_progress.value = min(99.0, 100.0 * done / (width * height))
            done += rays

        with self.viewer.train_lock or nullcontext():
            names = ["background", "foreground", "alpha", "mask", *of_objects]
            images = settings.of_object(model.images(camera, names, before_chunk=show_progress), objects)
            cutout = model.get_rgba_image(images)
            plate = images["background"] if settings.object is None else model.without(camera, [settings.object])
        alpha = images["alpha"][..., 0].cpu().numpy()
        colours = cutout[..., :3].cpu().numpy()
        files = write_new(
            self._run_folder() / "exports",
            "view" if settings.object is None else f"view_{settings.object}",
            {
                "mask": mask_picture(images["mask"][..., 0].cpu().numpy()),
                "matte": matte_picture(alpha),
                "cutout": cutout_picture(colours, alpha),
                "clean_plate": colour_picture(plate.cpu().numpy()),
            },
        )
        written = ", ".join(path.name for path in files)
        return f"{width} x {height}, mask: alpha over {settings.threshold:.2f}. Written to {files[0].parent}: {written}"
