"""NeRF-SOS on two boxes in a room: learned without labels, against the exact identities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from surface_sos_ns.models.nerf_sos.clusters import fit_clusters
from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.models.nerf_sos.scene import NerfSOS
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.training.contrastive import ContrastiveConfig
from surface_sos_ns.training.nerf_sos import NerfSOSObjective, SegmentationData, radiance_losses, segmentation_losses
from surface_sos_ns.training.optimizer import SparseAdam
from tests.helpers.two_boxes import BoxPhotos, two_boxes

CONFIG = NerfSOSConfig(
    grid=GridLayout(levels=8, features=2, log2_entries=14, base_resolution=16, max_resolution=256),
    hidden=32,
    samples=24,
    render_samples=32,
    candidates=(12, 40, 12),
    cache_resolution=64,
)
OBJECTIVE = NerfSOSObjective(patch_side=24)


def flat(values: Tensor) -> Tensor:
    return values.reshape(-1, *values.shape[3:])


@pytest.fixture(scope="module")
def photos() -> BoxPhotos:
    return two_boxes(views=12, size=48)


@pytest.fixture(scope="module")
def trained(photos: BoxPhotos) -> NerfSOS:
    """A scene whose radiance field has learned the photos."""
    torch.manual_seed(0)
    views, height, width = photos.labels.shape
    scene = NerfSOS(CONFIG, views)
    scene.field.layer.set_contraction_radius(3.0)
    view = torch.arange(views).repeat_interleave(height * width)
    origins, directions, colours = (flat(values) for values in photos[:3])
    named = list(scene.field.named_parameters())
    optimizers = [
        SparseAdam([value for name, value in named if name.endswith("table")], 1e-2, ops=scene.ops),
        torch.optim.Adam([value for name, value in named if not name.endswith("table")], 5e-3, eps=1e-15),
    ]
    schedules = [torch.optim.lr_scheduler.ExponentialLR(each, 0.1 ** (1 / 600)) for each in optimizers]
    for step in range(600):
        if step % 20 == 0:
            scene.field.update_cache(1.0 if step == 0 else 0.5)
        chosen = torch.randint(len(origins), (512,))
        found, rgb = scene.train_radiance(origins[chosen], directions[chosen], view[chosen])
        losses = radiance_losses(scene, found, rgb, colours[chosen], OBJECTIVE)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
    scene.field.update_cache()
    return scene.eval()


@pytest.fixture(scope="module")
def data(trained: NerfSOS, photos: BoxPhotos) -> SegmentationData:
    features = photos.features
    descriptors = np.stack([patches.reshape(-1, 3).mean(0) for patches in features])
    sizes = [(label.shape[0], label.shape[1]) for label in photos.labels]
    return SegmentationData.of(trained, sizes, flat(photos.origins), flat(photos.directions), features, descriptors)


def segment(scene: NerfSOS, data: SegmentationData, objective: NerfSOSObjective, count: int) -> Tensor:
    """(P,) clusters of all pixels, after the second stage from a fresh head."""
    torch.manual_seed(1)
    for layer in (scene.head.hidden, scene.head.out):
        layer.reset_parameters()
    optimizer = torch.optim.Adam(scene.head.parameters(), 2e-3)
    for _ in range(250):
        losses = segmentation_losses(scene, data, objective)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        codes = data.surfaces.codes(scene.head)
    clusters = fit_clusters(codes, None, count, seed=0)
    clusters.foreground.fill_(count - 1)
    scene.clusters.load_state_dict(clusters.state_dict()) if count == 2 else None
    return clusters.labels(codes)


def mean_iou(found: Tensor, truth: Tensor) -> float:
    """Over the truth's classes, each with the cluster that overlaps it most."""
    ious = []
    for label in truth.unique():
        inside = truth == label
        best = max(
            ((found == cluster) & inside).sum() / ((found == cluster) | inside).sum() for cluster in found.unique()
        )
        ious.append(float(best))
    return sum(ious) / len(ious)


@pytest.mark.seconds(16)
def test_the_radiance_field_shows_the_photos(trained: NerfSOS, photos: BoxPhotos) -> None:
    with torch.no_grad():
        found = trained.render(photos.origins[3].reshape(-1, 3), photos.directions[3].reshape(-1, 3))
    error = (found.rgb - photos.colours[3].reshape(-1, 3)).square().mean()
    assert -10 * torch.log10(error) > 24
    assert not found.alpha.any(), "nothing is segmented yet"


@pytest.mark.seconds(8)
def test_boxes_and_room_are_told_apart(trained: NerfSOS, data: SegmentationData, photos: BoxPhotos) -> None:
    before = {name: value.clone() for name, value in trained.field.state_dict().items()}
    truth = flat(photos.labels)
    # Three clusters have more outlines, as blurred at 48 pixels as the radiance field: 0.950 for three seeds.
    assert mean_iou(segment(trained, data, OBJECTIVE, 3), truth) > 0.93
    assert mean_iou(segment(trained, data, OBJECTIVE, 2), (truth > 0).long()) > 0.95
    for name, value in trained.field.state_dict().items():
        assert torch.equal(value, before[name]), "the radiance field is frozen"
    with torch.no_grad():
        found = trained.render(photos.origins[3].reshape(-1, 3), photos.directions[3].reshape(-1, 3))
    boxes = photos.labels[3].reshape(-1) > 0
    assert mean_iou((found.alpha > 0.5).long(), boxes.long()) > 0.93
    images = trained.painted_heads[0].outputs(found)
    assert images["clusters"][:, 0].unique().tolist() == [0.0, 1.0] and images["segmentation"].shape == (len(boxes), 3)
    points = torch.tensor([[-0.4, 0.0, 0.29], [0.4, 0.1, 0.29], [0.0, 0.0, 0.8], [0.0, 0.9, 0.0]])
    assert trained.object_grid.inside(points).tolist()[2:] == [False, False]
    low, high = trained.object_grid.bounds()
    assert low[0] < -0.6 and high[0] > 0.6 and (high - low).max() < 1.9


@pytest.mark.seconds(4)
def test_geometry_alone_is_not_enough(trained: NerfSOS, data: SegmentationData, photos: BoxPhotos) -> None:
    truth = flat(photos.labels)
    geometry = replace(OBJECTIVE, contrast=replace(ContrastiveConfig(), appearance=0.0, geometry=1.0))
    assert mean_iou(segment(trained, data, geometry, 3), truth) < 0.9


def test_the_sum_of_the_losses_is_eq_10(trained: NerfSOS, data: SegmentationData) -> None:
    """Weights are factors; a generator draws the same patches again, each of another photo."""

    def losses(appearance: float, geometry: float, seed: int = 0) -> tuple[float, float]:
        contrast = replace(OBJECTIVE.contrast, appearance=appearance, geometry=geometry)
        generator = torch.Generator().manual_seed(seed)
        found = segmentation_losses(trained, data, replace(OBJECTIVE, contrast=contrast), generator)
        assert list(found) == ["appearance", "geometry"]
        return float(found["appearance"]), float(found["geometry"])

    appearance, geometry = losses(1.0, 1.0)
    assert losses(2.0, 0.01) == pytest.approx((2.0 * appearance, 0.01 * geometry))
    assert losses(1.0, 1.0, seed=1) != (appearance, geometry)
    photos, pixels = data.draw(OBJECTIVE)
    assert len(photos.unique()) == len(photos) and pixels.shape == (len(photos), OBJECTIVE.contrast.points)


def test_codes_of_kept_samples_are_those_of_all(trained: NerfSOS, data: SegmentationData, photos: BoxPhotos) -> None:
    rays = flat(photos.origins)[:1600], flat(photos.directions)[:1600]
    with torch.no_grad():
        whole = trained.render(*rays).head_values["segmentation"]
        kept = data.surfaces.at(torch.arange(1600)).codes(trained.head)
    cosine = torch.nn.functional.cosine_similarity(whole, kept, dim=-1)
    assert (cosine > 0.98).float().mean() > 0.9


def test_features_at_pixels_are_those_of_a_resized_grid(data: SegmentationData, photos: BoxPhotos) -> None:
    grid = torch.from_numpy(photos.features[4]).permute(2, 0, 1)[None]
    height, width = photos.labels.shape[1:]
    whole = torch.nn.functional.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)[0]
    expected = torch.nn.functional.normalize(whole.flatten(1).T, dim=-1)
    pixels = data.pixels_of(4)
    assert pixels[0] == 4 * height * width and len(pixels) == height * width
    assert torch.allclose(data.features_at(4, pixels), expected, atol=1e-5)
