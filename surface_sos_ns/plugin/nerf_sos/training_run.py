"""What happens in a run of nerf-sos, in order and in one place.

1. `prepare`: the sphere that the cameras look at, sparse points.
2. `initialise`: fit the density to the points, or take over what a resumed run has.
3. First stage: the radiance field learns colours; its cached density is refreshed now and then. It is skipped where the
   surfaces of a surface-sos run are loaded.
4. At a share of the steps it is frozen: each pixel of a grid is rendered once, features of the photos are computed.
5. Second stage: the segmentation head alone learns from contrasts.
6. `finish`: clusters over the codes of all photos, and which of them is the object.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from surface_sos_ns.models.nerf_sos.clusters import Clusters, fit_clusters
from surface_sos_ns.models.nerf_sos.foreground import foreground_by_place, foreground_by_token, places
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.initialisation import camera_distance, sight_lines
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.nerf_sos.datamanager import NerfSOSDataManager
from surface_sos_ns.plugin.nerf_sos.loaded_run import scene_weights
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModel
from surface_sos_ns.plugin.training_run import RunStory
from surface_sos_ns.training.nerf_sos import SegmentationData, with_measured_biases
from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:
    from surface_sos_ns.capture.points import SparsePoints
    from surface_sos_ns.capture.sphere import ObjectSphere
    from surface_sos_ns.masks.features import PhotoFeatures

CLUSTER_SEED = 0
"""Of K-means."""


class NerfSOSTrainingRun(RunStory):
    """One training run, new or resumed.

    Args:
        model: what is trained; of a resumed run, with its checkpoint's weights.
        datamanager: of the capture.
        folder: of the run; points and features are kept there.
        first_step: 0, or the step that the run is resumed at.
    """

    def __init__(self, model: NerfSOSModel, datamanager: NerfSOSDataManager, folder: Path, first_step: int) -> None:
        total = model.config.total_steps
        assert total is not None, "SurfaceSOSTrainerConfig sets it"
        self.model, self.datamanager, self.folder, self.first_step = model, datamanager, folder, first_step
        share = 0.0 if model.config.surfaces is not None else model.config.radiance_share
        self.total_steps, self.segmentation_from = total, round(share * total)
        self.features: list[PhotoFeatures] = []
        self._found: tuple[ObjectSphere, SparsePoints | None] | None = None

    def prepare(self) -> None:
        """Find what the cameras look at, or take over the run that is loaded; unless a checkpoint has either.

        Raises:
            UserError: the capture cannot be used; the message says what to do.
        """
        torch.set_flush_denormal(True)
        self.datamanager.check_photos()
        if bool(self.model.scene.ready):
            return
        if self.model.config.load_run is not None:
            outputs = self.datamanager.train_dataparser_outputs
            self.model.scene.take_surfaces(scene_weights(self.model.config.load_run, outputs))
        else:
            self._found = self.datamanager.find_scene(self.folder)

    def initialise(self) -> None:
        """Start the model from what `prepare` found; of a run resumed in its second stage, prepare that again."""
        scene = self.model.scene
        if self._found is not None:
            sphere, points = self._found
            frame = ObjectFrame(sphere.centre, sphere.radius)
            cameras = frame.points(self.datamanager.train_dataset.cameras.camera_to_worlds[:, :3, 3])
            lines = None if points is None else sight_lines(points, cameras, frame, self.model.device)
            scene.initialise(frame, camera_distance(cameras), lines, self.model.config.initial_fit_steps)
        if self.first_step > self.segmentation_from:
            self._begin_segmentation(resumed=True)

    def before_step(self, step: int) -> None:
        """Refresh cached density in the first stage, and begin the second."""
        config = self.model.config
        if step == self.segmentation_from:
            self._begin_segmentation()
        elif step < self.segmentation_from and step % config.cache_interval == 0:
            self.model.scene.field.update_cache(config.cache_share)

    def after_step(self, step: int) -> None:
        """After the last step, finish."""
        if step + 1 == self.total_steps:
            self.finish()

    def finish(self) -> None:
        """Divide the codes of all photos into clusters, and choose the object's.

        Raises:
            UserError: the segmentation has collapsed.
        """
        data = self.model.segmentation_data
        if data is None:  # no step was left for the second stage
            return
        scene = self.model.scene
        codes = data.surfaces.all_codes(scene.head)
        try:
            found = fit_clusters(codes, data.surfaces.weights.sum(-1), self.model.config.clusters, CLUSTER_SEED)
        except ValueError as error:
            raise UserError(f"The segmentation could not be divided into clusters: {error}") from error
        found = found.to(codes.device)
        found.foreground.fill_(self._foreground(found, codes, data))
        scene.clusters.load_state_dict(found.state_dict())
        shares = ", ".join(f"{share:.0%}" for share in found.shares.tolist())
        say(f"clusters: {shares} of the pixels; the object is the {_ordinal(int(found.foreground))}")

    def _begin_segmentation(self, resumed: bool = False) -> None:
        """Freeze the radiance field, and make what the second stage learns from."""
        scene, grids = self.model.scene, self.datamanager.pixel_grids()
        if not resumed:
            scene.field.update_cache()
        for module in (scene.field, scene.appearance):
            for parameter in module.parameters():
                parameter.grad = None
        self.features = self.datamanager.photo_features(self.folder)
        say(f"the radiance field is frozen; the segmentation learns from {len(grids.origins)} pixels")
        training = scene.training
        scene.eval()
        self.model.segmentation_data = SegmentationData.of(
            scene,
            grids.sizes,
            *scene.frame.rays(grids.origins, grids.directions),
            [photo.patches for photo in self.features],
            np.stack([photo.whole for photo in self.features]),
        )
        scene.train(training)
        side, stride = self.model.segmentation_data.patch(self.model.config.objective)
        say(f"patches: {side} x {side} pixels at a stride of {stride}, of grids of {_sizes(grids.sizes)}")
        if not self._has_tokens:
            measured = with_measured_biases(self.model.config.objective, self.model.segmentation_data)
            self.model.segmentation_objective = measured
            biases = measured.contrast.appearance_biases
            say(f"biases of the appearance loss, from the features: {biases.identity:.2f}, {biases.negative:.2f}")

    @property
    def _has_tokens(self) -> bool:
        """Whether the features are those of a network with a class token."""
        return all(photo.has_token for photo in self.features)

    def _foreground(self, clusters: Clusters, codes: Tensor, data: SegmentationData) -> int:
        """The object's cluster: by the class tokens of the photos' features, or by place where there are none."""
        labels = clusters.labels(codes)
        starts = data.starts.tolist()
        maps = [labels[first:end] for first, end in itertools.pairwise(starts)]
        count = len(clusters.shares)
        if not self._has_tokens:
            found = places([label.reshape(size) for label, size in zip(maps, data.sizes, strict=True)], count)
            return foreground_by_place(found)
        means, pixels = _cluster_means(data, maps, count)
        return foreground_by_token(means, data.descriptors, pixels)


def _cluster_means(data: SegmentationData, labels: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Of V photos the mean feature (V, K, D) of each cluster, and its number of pixels (V, K)."""
    means, pixels = [], []
    for photo, label in enumerate(labels):
        values = data.features_at(photo, data.pixels_of(photo))
        member = torch.nn.functional.one_hot(label, count).to(values.dtype)
        size = member.sum(0)
        means.append(member.T @ values / size.clamp(min=1)[:, None])
        pixels.append(size)
    return torch.stack(means), torch.stack(pixels)


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    """Of grids (height, width): width x height of the first, and whether there are others."""
    height, width = sizes[0]
    return f"{width} x {height}" + (" and others" if len(set(sizes)) > 1 else "")


def _ordinal(index: int) -> str:
    return ("largest", "second largest", "third largest")[index] if index < 3 else f"{index + 1}th largest"
