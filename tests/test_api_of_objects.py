"""A run with several objects, opened from Python: a ball in three slices along x."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surface_sos_ns.api import Run, RunError
from tests.helpers.sliced_scene_run import CENTRE, HEIGHT, NAMES, RADIUS, TO_WORLD, WIDTH, sliced_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sliced_run(tmp_path_factory.mktemp("several"))


def seen(run: Run, view: int) -> np.ndarray:
    """(H, W) the slice that each pixel's middle sees, 0 for none: by the geometry alone."""
    rays = run.views[view].camera.generate_rays(0, keep_shape=True)
    origins, directions = rays.origins.double().numpy(), rays.directions.double().numpy()
    along = ((CENTRE - origins) * directions).sum(-1, keepdims=True)
    missed = np.square(origins + along * directions - CENTRE).sum(-1, keepdims=True)
    points = origins + (along - np.sqrt(np.maximum(RADIUS**2 - missed, 0))) * directions
    slices = np.floor((points[..., :1] - CENTRE[0] + RADIUS) / (2 * RADIUS) * 3).clip(0, 2) + 1
    return np.where(missed < RADIUS**2, slices, 0)[..., 0].astype(int)


@pytest.mark.seconds(5)
def test_pictures_of_each_object(run: Run) -> None:
    assert run.objects == NAMES
    for view in (1, 3):
        truth, identities = seen(run, view), run.identities(view)
        assert identities.dtype == np.uint8 and identities.shape == (HEIGHT, WIDTH)
        assert (identities == truth).mean() > 0.97 and len(np.unique(truth)) >= 3
        mattes = [run.matte(view, object=name) for name in NAMES]
        for identity, (name, matte) in enumerate(zip(NAMES, mattes, strict=True), start=1):
            mask = run.mask(view, object=name)
            assert mask.dtype == bool and (mask == (identities == identity)).all()
            assert matte.dtype == np.float32 and np.abs(matte - (truth == identity)).mean() < 0.03
            assert np.allclose(run.cutout(view, object=name)[..., 3], matte, atol=1e-6)
        assert np.abs(sum(mattes) - run.matte(view)).max() < 1e-4, "without a name it is all of them"
        assert (run.mask(view) == (run.matte(view) > 0.5)).all()


@pytest.mark.seconds(5)
def test_meshes_and_points_of_one_or_all(run: Run) -> None:
    low = (CENTRE - RADIUS)[0]
    for identity, name in enumerate(NAMES):
        mesh = run.mesh(name, 40)
        across = (TO_WORLD[:3, :3] @ mesh.vertices.T + TO_WORLD[:3, 3:])[0]
        wanted = [low + 2 * RADIUS * k / 3 for k in (identity, identity + 1)]
        assert [across.min(), across.max()] == pytest.approx(wanted, abs=0.15)
        assert (run.mesh(object=name, resolution=40).vertices == mesh.vertices).all()
    together = run.mesh(40)
    assert set(together.vertex_attributes["object"]) == {1, 2, 3}
    points, colours, objects = run.points(count=500, resolution=40)
    assert points.shape == colours.shape == (500, 3) and objects is not None and set(objects) == {1, 2, 3}
    world = points @ TO_WORLD[:3, :3].T + TO_WORLD[:3, 3]
    slices = np.floor((world[:, 0] - low) / (2 * RADIUS) * 3).clip(0, 2) + 1
    outside = np.linalg.norm(world - CENTRE, axis=1) > 0.93 * RADIUS  # not on the cuts, where two of them touch
    assert outside.sum() > 200 and (slices == objects)[outside].mean() > 0.9
    assert run.points("left", 100, 40).objects is None


@pytest.mark.seconds(5)
def test_a_view_without_one_object(run: Run) -> None:
    view = 1  # the slices are side by side
    truth, whole, empty = seen(run, view), run.render(view, ["rgb"])["rgb"], run.clean_plate(view)
    images = run.images_without(view, "left")
    picture = run.without(view, "left")
    assert picture.dtype == np.float32 and (picture == images["background"]).all()
    assert images["background_confidence"].shape == images["shadow"].shape == (HEIGHT, WIDTH, 1)

    def apart(other: np.ndarray, identities: list[int]) -> float:
        return float(np.median(np.abs(picture - other)[np.isin(truth, identities)]))

    assert apart(whole, [2, 3]) < 0.1 * apart(empty, [2, 3]), "the others are there"
    assert apart(empty, [1]) < 0.1 * apart(whole, [1]), "what is behind it as well"
    for everything in (run.without(view), run.without(view, NAMES)):
        assert np.allclose(everything, empty)


def test_names_that_there_are_not(run: Run) -> None:
    for ask in (run.matte, run.mask, run.cutout, run.without):
        with pytest.raises(RunError, match=r"config.yml has no object 'cup'; its objects are left, middle, right"):
            ask(0, "cup")
    for of_space in (run.mesh, run.points):
        with pytest.raises(RunError, match="no object 'cup'"):
            of_space("cup")


@pytest.mark.seconds(4)
def test_a_run_with_one_object_has_no_names(tmp_path: Path) -> None:
    run = sliced_run(tmp_path, ())
    assert run.objects == ()
    assert (run.identities(0) == run.mask(0)).all()
    with pytest.raises(RunError, match="has one object, without a name; leave 'cup' out"):
        run.matte(0, object="cup")
    assert torch.allclose(torch.as_tensor(run.without(0)), torch.as_tensor(run.clean_plate(0)))
    assert "object" not in run.mesh(32).vertex_attributes
