"""nerfstudio's viewer of a NeRF-SOS model: every image can be looked at, before and after there are clusters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from nerfstudio.data.scene_box import SceneBox

from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModelConfig
from tests.helpers.viewer_session import Session, remembered_icons, viewer_session

GRID = GridLayout(levels=4, features=2, log2_entries=10, base_resolution=4, max_resolution=32)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    torch.manual_seed(0)
    scene = NerfSOSConfig(grid=GRID, hidden=16, samples=8, render_samples=16, cache_resolution=16)
    config = NerfSOSModelConfig(scene=scene, eval_num_rays_per_chunk=512)
    model = config.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=2)
    model.scene.field.update_cache()
    with remembered_icons(), viewer_session(model, tmp_path_factory.mktemp("viewer")) as opened:
        yield opened


@pytest.mark.seconds(4)
def test_every_output_can_be_looked_at(session: Session) -> None:
    names = list(session.model.output_needs())
    assert {"rgb", "depth", "accumulation", "segmentation", "clusters", "mask", "alpha", "foreground"} <= set(names)
    for name in names:
        assert session.image(name).shape[1] == 64, name
    assert not session.image("mask").any()  # nothing is divided yet


@pytest.mark.seconds(2)
def test_the_mask_is_the_objects_cluster(session: Session) -> None:
    """All codes are the first centre: all that is opaque is that cluster's, and none of the other's."""
    scene = session.model.scene
    with torch.no_grad():
        scene.head.out.weight.zero_()
        scene.head.out.bias.copy_(torch.tensor([1.0, 0.0]))
        scene.field.layer.field.out.bias[0] = 8.0  # opaque everywhere
    scene.field.update_cache()
    scene.clusters.centres.copy_(torch.eye(2))
    scene.clusters.shares.copy_(torch.tensor([0.6, 0.4]))
    for foreground, expected in ((0, 255), (1, 0)):
        scene.clusters.foreground.fill_(foreground)
        assert np.abs(session.image("mask").astype(int) - expected).max() <= 3
        assert session.model.inside_object(session.model.object_sphere()[0][None]).tolist() == [foreground == 0]
