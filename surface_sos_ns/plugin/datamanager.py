"""Feeds training: rays from all photos, half of them near the object's outline, and the masks to start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.capture_datamanager import CaptureDataManager, CaptureDataManagerConfig
from surface_sos_ns.plugin.dataset import joined_positions
from surface_sos_ns.plugin.pixel_sampler import OutlineSampler
from surface_sos_ns.plugin.prior_file import PRIOR_FILE, fingerprint_of, load_prior, save_prior
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.light import LightEvidence
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.capture.room import StandingRoom
    from surface_sos_ns.capture.sphere import ObjectSphere
    from surface_sos_ns.capture.views import Views

__all__ = ["SurfaceSOSDataManager", "SurfaceSOSDataManagerConfig"]


@dataclass
class SurfaceSOSDataManagerConfig(CaptureDataManagerConfig):
    """Data manager that draws rays near the object's outline and adds coarse masks to the batch."""

    _target: type = field(default_factory=lambda: SurfaceSOSDataManager)
    """Target class to instantiate."""
    band_fraction: float = 0.5
    """Fraction of the rays drawn in and around the projected hull; the others come from everywhere."""
    band_width: float = 0.03
    """How far outside the hull's outline a pixel still counts as near: a fraction of the longer image side."""


class SurfaceSOSDataManager(CaptureDataManager):
    """The data manager of surface-sos: it finds the object, and draws half of the rays near its outline.

    Before :meth:`prepare` rays come from everywhere, and masks are the capture's own.

    Attributes:
        object_prior: what :meth:`prepare` found; None before.
        prior_renewed: whether the run's folder has another one: masks or photos have changed since it was found.
    """

    config: SurfaceSOSDataManagerConfig

    def __init__(self, config: SurfaceSOSDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        self.object_prior: ObjectPrior | None = None
        self.prior_renewed = False
        self._room: tuple[StandingRoom | None] | None = None  # None until it was looked for
        super().__init__(config, *args, **kwargs)

    def make_sampler(self, rays: int) -> OutlineSampler:
        """See `CaptureDataManager.make_sampler`."""
        return OutlineSampler(self.sampler_config(), self.config.band_fraction, num_rays_per_batch=rays)

    def read_in_a_step(self) -> Iterator[Tensor]:
        """See `CaptureDataManager.read_in_a_step`."""
        yield from super().read_in_a_step()
        band = getattr(self.train_pixel_sampler, "band", None)
        if band is not None:
            yield band

    def prepare(self, folder: Path | None = None, sphere: ObjectSphere | None = None) -> ObjectPrior:
        """Find the object, once, before training: its sphere, the voted hull and the masks to start from.

        Installs the masks and how far each is trusted into the training batches, and the band around the outline of the
        projected hull into the sampler.

        Args:
            folder: of the run, where ``object_prior.npz`` is kept, so that a resumed run starts from the same prior;
                None keeps nothing. A kept prior is used only if photos, masks, cameras, points and hints are the same.
            sphere: that the object is looked for in, world frame: of a run that is gone on with. None finds one.

        Returns:
            What training starts from, world frame.

        Raises:
            ImageError: a photo or a mask cannot be read.
            UserError: nothing can be found; the message says what to do.
        """
        if self.object_prior is not None:
            return self.object_prior
        views = views_from_cameras(self.train_dataset.cameras)
        fingerprint = fingerprint_of(
            self.train_dataset, self.train_cache, views, self.config.prior_image_size, self.config.repair_masks
        )
        path = None if folder is None else Path(folder) / PRIOR_FILE
        prior = None if path is None else load_prior(path, fingerprint)
        if prior is None:
            self.prior_renewed = path is not None and path.is_file()
            prior = self._find_object(views, folder, sphere)
            if path is not None:
                prior = save_prior(prior, path, fingerprint)
        if prior.masks_at_hand:
            for view in prior.repaired:
                self._take_repair(view, prior)
            self.train_cache.set_weights(prior.hull.view_weights)  # the masks at hand are the finer ones
            for view, identity in enumerate(prior.identities):
                if identity is not None:
                    self.train_cache.renumber(view, identity)
        else:
            self.train_cache.set_masks(list(prior.masks), prior.hull.view_weights, list(prior.identities) or None)
        if isinstance(self.train_pixel_sampler, OutlineSampler):
            self.train_pixel_sampler.band = self._band(prior, views).to(self.train_cache.images.device)
        self.object_prior = prior
        return prior

    def light(self, folder: Path | None = None) -> LightEvidence:
        """Whether the light changes from photo to photo; arguments and errors as for `prepare`, which it calls."""
        return self.object_search().light(views_from_cameras(self.train_dataset.cameras), self.prepare(folder).points)

    def room(self, folder: Path | None = None) -> StandingRoom | None:
        """The room, if it stands still before the camera, as behind a turntable; see `prepare`, which it calls."""
        if self._room is None:
            views = views_from_cameras(self.train_dataset.cameras)
            self._room = (self.object_search().room(views, self.prepare(folder)),)
        return self._room[0]

    def pixels_per_radius(self, folder: Path | None = None) -> float:
        """How large the object sphere's radius is in the training photos, pixels, median; see `prepare`."""
        sphere = self.prepare(folder).sphere
        views = views_from_cameras(self.train_dataset.cameras)
        distance = np.linalg.norm(views.centres() - sphere.centre, axis=1)
        return float(np.round(np.median(sphere.radius * views.fx / np.maximum(distance, sphere.radius))))

    def _take_repair(self, view: int, prior: ObjectPrior) -> None:
        """Take over from the repaired mask of a view, which may be smaller, the pixels that no longer vote."""
        from surface_sos_ns.capture.piece_repair import transfer_repair

        mask, repaired = self.train_cache.mask(view), prior.masks[view]
        if mask is not None and repaired is not None:
            self.train_cache.set_mask(view, transfer_repair(mask, repaired))

    def _find_object(self, views: Views, folder: Path | None, sphere: ObjectSphere | None) -> ObjectPrior:
        return self.object_search().find(views, folder, sphere)

    def _band(self, prior: ObjectPrior, views: Views) -> Tensor:
        """(B,) positions of the valid pixels near the projected hull's outline, in all training views.

        See `joined_positions`.
        """
        cache = self.train_cache
        allowed = None
        if cache.valid is not None:
            allowed = np.zeros(cache.pixel_count, dtype=bool)
            allowed[cache.valid.cpu().numpy()] = True
        bands = (np.flatnonzero(band) + int(cache.starts[view]) for view, band in self._bands(prior, views))
        return joined_positions(
            (positions if allowed is None else positions[allowed[positions]] for positions in bands), cache.pixel_count
        )

    def _bands(self, prior: ObjectPrior, views: Views) -> Iterator[tuple[int, np.ndarray]]:
        """Of each view (H, W) bool, whether a pixel is near the projected hull's outline, in the order of sizes."""
        from surface_sos_ns.capture.hull_projection import outline_band, project_hull

        sizes = np.stack([views.width, views.height], axis=1)
        for size in np.unique(sizes, axis=0):
            members = np.flatnonzero((sizes == size).all(axis=1))
            width, height = int(size[0]), int(size[1])
            # The band is many pixels wide; a finer projection of the hull would only take longer.
            factor = min(1.0, 240 / max(width, height))
            small = (max(1, round(width * factor)), max(1, round(height * factor)))
            silhouettes = project_hull(prior.hull, prior.sphere, views.subset(members), (small[1], small[0]))
            for view, silhouette in zip(members, silhouettes, strict=True):
                band = outline_band(np.asarray(silhouette) > 0.5, self.config.band_width * max(small))
                yield int(view), resized(band.astype(np.uint8), width, height) > 0
