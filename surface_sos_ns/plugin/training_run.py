"""What happens in a training run, in order and in one place.

1. `prepare`: find the object in the capture: its sphere, the voted hull, the masks to start from.
2. `initialise`: fit the fields to that, or take over what a resumed run has.
3. Of each step: `before_step` (schedules, self-training, m^P, cached fields); the trainer takes the step; `after_step`
   (mean of the weights, common motion of refined poses).
4. `finish`: the mean becomes the result; cached fields once more; what no photo shows of the background.

The trainer counts steps, saves, resumes and stops; the data manager gives photos, rays and what is known of the object;
the model renders. None of them calls another but through here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from surface_sos_ns.fields.room import Room
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.initialisation import camera_distance, sight_lines
from surface_sos_ns.plugin.console import say, warn
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager
from surface_sos_ns.plugin.model import SurfaceSOSModel
from surface_sos_ns.plugin.photo_agreement import photo_errors, photos_remark
from surface_sos_ns.plugin.run_schedule import AVERAGE_EVERY, RunSchedule
from surface_sos_ns.plugin.self_training import SelfTraining
from surface_sos_ns.training.weight_average import WeightAverage

if TYPE_CHECKING:  # it brings scipy and more, which only training needs
    from surface_sos_ns.capture.object_prior import ObjectPrior

__all__ = ["RunStory", "TrainingRun"]


FEWEST_CELLS = 3.0
"""Cells of the cached foreground across one of several objects, below which its outline gets rough."""


def small_objects_remark(diameters: Mapping[str, float], cell: float) -> str | None:
    """What to say of objects that are small beside the sphere that holds all of them; None where none is.

    Args:
        diameters: of the objects, object radii, by name.
        cell: of the cached foreground, object radii.
    """
    small = [f"{name} ({size / cell:.1f})" for name, size in diameters.items() if size < FEWEST_CELLS * cell]
    if not small:
        return None
    return (
        f"these objects are few cells across, of the grid that guides sampling, because all objects share one sphere: "
        f"{', '.join(small)}; expected {FEWEST_CELLS:.0f} at least. Their outlines will be rough. Leave out objects "
        "that are far from the others, or raise --pipeline.model.scene.cache-resolution, which takes longer."
    )


class RunStory(ABC):
    """Interface of a training run, for any method."""

    @abstractmethod
    def prepare(self) -> None:
        """Find out what the run starts from."""

    @abstractmethod
    def initialise(self) -> None:
        """Start the model from what `prepare` found, or go on with what a checkpoint has."""

    @abstractmethod
    def before_step(self, step: int) -> None:
        """Bring up to date what a step starts from."""

    @abstractmethod
    def after_step(self, step: int) -> None:
        """Use what a step has changed; after the last one, finish."""

    def callbacks(self) -> list[TrainingCallback]:
        """`before_step` and `after_step` as nerfstudio's trainer calls them."""
        before, after = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION
        return [
            TrainingCallback([before], self.before_step, update_every_num_iters=1),
            TrainingCallback([after], self.after_step, update_every_num_iters=1),
        ]


class TrainingRun(RunStory):
    """One training run, new or resumed.

    Args:
        model: what is trained; of a resumed run, with its checkpoint's weights.
        datamanager: of the capture.
        average: of the model's weights; of a resumed run, as its checkpoint has it.
        schedule: at which steps what happens.
        folder: of the run; what it starts from is kept there.
        first_step: 0, or the step that the run is resumed at.
    """

    def __init__(
        self,
        model: SurfaceSOSModel,
        datamanager: SurfaceSOSDataManager,
        average: WeightAverage,
        schedule: RunSchedule,
        folder: Path,
        first_step: int,
    ) -> None:
        self.model, self.datamanager, self.average = model, datamanager, average
        self.schedule, self.folder, self.first_step = schedule, folder, first_step
        self.cameras = datamanager.train_dataset.cameras
        self.prior: ObjectPrior | None = None
        self.self_training: SelfTraining | None = None

    # ------------------------------------------------------------------ before the first step

    def prepare(self) -> None:
        """Find the object.

        Raises:
            UserError: nothing can be found, or the capture cannot be used; the message says what to do.
        """
        # Adam's moments of table entries that are rarely hit decay into denormals, which are slow on CPUs.
        torch.set_flush_denormal(True)
        frame, sphere = self.model.scene.frame, None
        if bool(self.model.scene.ready):
            from surface_sos_ns.capture.sphere import ObjectSphere

            sphere = ObjectSphere(frame.centre.cpu().numpy(), float(frame.radius), "the run's that is gone on with")
        self.prior = self.datamanager.prepare(self.folder, sphere)

    def initialise(self) -> None:
        """Start the model from what `prepare` found, unless a checkpoint says more.

        Raises:
            UserError: masks that a resumed run had made for itself cannot be read.
        """
        prior, scene = self.prior, self.model.scene
        assert prior is not None, "prepare() first"
        if self.model.object_names:
            remark = small_objects_remark(prior.diameters(), scene.cache.cell)
            if remark is not None:
                warn(remark)
        frame = ObjectFrame(prior.sphere.centre, prior.sphere.radius)
        cameras = frame.points(self._camera_centres())
        lines = None if prior.points is None else sight_lines(prior.points, cameras, frame, self.model.device)
        renewed = bool(scene.ready) and self.datamanager.prior_renewed
        if renewed:
            self._take_new_masks(prior)
        elif not bool(scene.ready):
            hull = prior.initial_hull(self.model.config.hull_slack)
            scene.initialise(
                frame,
                camera_distance(cameras),
                torch.as_tensor(hull.probability),
                torch.as_tensor(hull.signed_distance()),
                lines,
                self.model.config.initial_fit_steps,
                None if prior.hull_identity is None else torch.as_tensor(prior.hull_identity),
            )
            if scene.room is not None:
                self._start_room(scene.room)
        if lines is not None:
            self.model.set_sparse_points(lines.points)
        if self.model.training_views is not None:
            self.model.training_views.set(self.cameras)
        self.self_training = SelfTraining(self.datamanager.train_cache, self.cameras, self.folder, prior.masks_given)
        done = self.schedule.last_mask_refresh(self.first_step)
        if done is not None and renewed:
            self.self_training.keep_given(done)
        elif done is not None:
            self.self_training.restore(self.model, done)

    def _take_new_masks(self, prior: ObjectPrior) -> None:
        """Go on with other masks: the fields are kept, the object grid and the reliability of the masks start anew."""
        scene = self.model.scene
        identity = None if prior.hull_identity is None else torch.as_tensor(prior.hull_identity)
        hull = torch.as_tensor(prior.initial_hull(self.model.config.hull_slack).probability)
        scene.object_grid.start(hull.to(self.model.device), None if identity is None else identity.to(hull.device))
        scene.reliability.forget(range(self.cameras.camera_to_worlds.shape[0]))
        say("the coarse masks are others than when this run was started: it goes on with the new ones")

    def _start_room(self, room: Room) -> None:
        """Start a room that stands still before the camera from what the photos show of it."""
        found = self.datamanager.room(self.folder)
        assert found is not None, "it was found before, see SurfaceSOSPipeline.adapt"
        axes = self.cameras.camera_to_worlds[:, :3, :3]
        picture, known, extent = (torch.from_numpy(each).float() for each in (found.picture, found.known, found.extent))
        room.take(picture, known, extent, axes)

    # ------------------------------------------------------------------ steps

    def before_step(self, step: int) -> None:
        """Bring everything up to date that a step starts from."""
        scene, config = self.model.scene, self.model.config
        scene.set_progress(step / self.schedule.total_steps)
        if step in self.schedule.mask_refreshes:
            self._refresh_masks(self.schedule.mask_refreshes[step])
        if step in self.schedule.probability_refreshes:
            scene.object_grid.refresh_probability(config.probability_dilation)
        if step % self.schedule.cache_interval == 0:
            scene.update_cache(config.cache_share)

    def after_step(self, step: int) -> None:
        """Take the new weights into their mean where they belong to one; after the last step, finish."""
        steps_done = step + 1
        self._average_weights(steps_done)
        if self.model.training_views is not None:
            self.model.training_views.remove_common_motion()
        if steps_done == self.schedule.total_steps:
            self.finish()

    def _refresh_masks(self, number: int) -> None:
        """Self-training: the object's mattes take the place of masks that differ from them."""
        assert self.self_training is not None, "initialise() first"
        # The mean of the weights: outlines of single steps jitter, and the new masks would keep that error.
        with self.average.in_place():
            self.self_training.refresh(self.model, number, say)

    def _average_weights(self, steps_done: int) -> None:
        if not self.schedule.averages(steps_done):
            self.average.clear()  # of another length of the run, if there is any
        elif steps_done % AVERAGE_EVERY == 0:
            self.average.add()
        if steps_done == self.schedule.total_steps:
            self.average.apply()

    # ------------------------------------------------------------------ after the last step

    def finish(self) -> None:
        """Bring the cached fields up to date for rendering, and settle what no photo shows of the background."""
        self.model.scene.set_progress(1.0)
        self.model.scene.update_cache()
        if self.model.config.scene.background != "directional":
            self._complete_background()
        remark = photos_remark(self._photo_names(), photo_errors(self.model, self.datamanager))
        if remark is not None:
            warn(remark)

    def _complete_background(self) -> None:
        """Find out what the object hides in all views, map what it stands on, and say so."""
        started, scene, centres = monotonic(), self.model.scene, self._camera_centres()
        scene.discount_hidden(centres)
        if not self.model.config.support_map:
            return
        found = scene.map_support(centres)
        what = "mapped" if found else "none found: clean plates are completed view by view, with the object's shadow"
        say(f"what the object stands on: {what} ({monotonic() - started:.0f} s)")

    def _photo_names(self) -> list[str]:
        return [str(name) for name in self.datamanager.train_dataset.metadata["file_paths"]]

    def _camera_centres(self) -> torch.Tensor:
        """(V, 3) of the training views, world frame."""
        return self.cameras.camera_to_worlds[:, :3, 3]
