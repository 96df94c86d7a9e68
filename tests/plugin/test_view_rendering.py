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
from surface_sos_ns.plugin.view_rendering import ViewRenderer
from surface_sos_ns.utils.errors import UserError

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
