"""Views rendered in chunks: the same picture however many rays fit, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from surface_sos_ns.models.surface_sos.gpu_memory import MIN_RAYS_AT_ONCE
from surface_sos_ns.plugin import view_rendering
from surface_sos_ns.plugin.outputs import Need
from surface_sos_ns.plugin.view_rendering import ViewRenderer, render_rays
from surface_sos_ns.utils.errors import UserError
from tests.helpers.small_scene import TINY, rays_at, start

HEIGHT, WIDTH = 30, 150


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], tuple[Tensor, list[int], list[str]]]:
    """Renders rays that show their own origins, for a GPU that starts with some number of rays and can do another."""

    def render(start: int, possible: int) -> tuple[Tensor, list[int], list[str]]:
        chunks: list[int] = []
        said: list[str] = []

        def render_rays(scene: Any, rays: RayBundle, need: Need, shown: None, code: None) -> dict[str, Tensor]:
            if len(rays) > possible:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            chunks.append(len(rays))
            return {"alpha": rays.origins[:, :1]}

        monkeypatch.setattr(view_rendering, "render_rays", render_rays)
        monkeypatch.setattr(view_rendering, "rays_at_once", lambda *_: start)
        monkeypatch.setattr(view_rendering, "_say_once", said.append)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        scene: Any = SimpleNamespace(config=None, objects=(), frame=SimpleNamespace(centre=torch.zeros(3)))
        origins = torch.arange(HEIGHT * WIDTH * 3.0).reshape(HEIGHT, WIDTH, 3)
        rays = RayBundle(origins=origins, directions=origins, pixel_area=origins[..., :1])
        found = ViewRenderer(scene, 4096).view(rays, Need.MATTE)["alpha"]
        assert torch.equal(found, origins[..., :1])
        return found, chunks, said

    return render


def test_as_many_rays_as_fit(picture: Callable[..., Any]) -> None:
    assert picture(4096, 10**6)[1:] == ([4096, 404], [])
    _, chunks, said = picture(8192, 10**6)
    assert chunks == [4500] and said == ["Rendering 8192 rays at a time, as the GPU's memory allows."]


def test_memory_that_runs_out_halves_them(picture: Callable[..., Any]) -> None:
    _, chunks, said = picture(4096, 1500)
    assert chunks == [1024] * 4 + [404]
    assert said == [f"Rendering {n} rays at a time: {2 * n} do not fit into the GPU's memory." for n in (2048, 1024)]


def test_a_full_gpu_is_one_sentence(picture: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=f"^The GPU's memory is full: {MIN_RAYS_AT_ONCE} rays cannot be rendered"):
        picture(4096, 100)


@pytest.mark.parametrize("objects", [(), ("left", "right")])
def test_the_objects_colours_alone_are_those_of_the_whole_view(objects: tuple[str, ...]) -> None:
    scene = start(TINY, steps=60, objects=objects).eval()
    axis = torch.linspace(-1.4, 1.4, 24)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    origins, directions = rays_at(points)
    origins = scene.frame.to_world(origins)
    rays = RayBundle(origins=origins, directions=directions, pixel_area=torch.ones_like(origins[:, :1]))
    with torch.no_grad():
        whole, alone = (render_rays(scene, rays, need) for need in (Need.LAYERS, Need.OBJECT))
    assert "rgb" not in alone and 0.02 < float((alone["alpha"] > 0).float().mean()) < 0.9
    for name in ("foreground", *(f"foreground_{one}" for one in objects)):
        assert torch.allclose(alone[name], whole[name], atol=1e-5)
