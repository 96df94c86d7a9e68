"""Baselines: hash grids differentiated by autograd (double backward), and nerfstudio's neus-facto.

They run as their authors wrote them. Where a package has to be patched to run here, a comment says so.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import io
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.bench.scene_data import Batch
from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.ops import hash_grid
from surface_sos_ns.ops.choose import tcnn_problem
from surface_sos_ns.ops.layout import PRIMES, GridLayout
from surface_sos_ns.ops.networks import SOFTPLUS_BETA

NERFSTUDIO_GRID = "nerfstudio HashEncoding"
TWIN_GRID = "our torch twin by autograd"
TCNN_GRID = "tiny-cuda-nn"
NEUS_FACTO = "neus-facto"
NEUS_FACTO_OUR_SIZES = "neus-facto with our sizes"


def nerfstudio_problem() -> str | None:
    """Why nerfstudio cannot be measured here; None if it can."""
    if importlib.util.find_spec("nerfstudio") is None:
        return "the package nerfstudio is not installed"
    try:
        with _quietly():
            import nerfstudio.field_components.encodings  # noqa: F401
    except (ImportError, OSError) as error:
        return f"the package nerfstudio does not load: {error}"
    return None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Context manager: suppresses warnings and output of other packages, which would mix with the tables."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# --- grids -------------------------------------------------------------------------------------------------------
class BaselineGrid(nn.Module):
    """A hash grid whose derivatives with respect to the points come from autograd."""

    table: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (P, 3) in the unit cube. Returns: features (P, C)."""
        raise NotImplementedError

    def share_entries(self, grid: HashGrid) -> None:
        """Gives our grid and this one the same entries, so that their results can be compared.

        Raises:
            NotImplementedError: the layouts of the two grids differ.
        """
        raise NotImplementedError("the entries of this grid cannot be compared with ours one by one")

    def converted_gradient(self, gradient: Tensor, layout: GridLayout) -> Tensor:
        """The gradient of our table, converted to the layout of this grid's table.

        Raises:
            NotImplementedError: the layouts of the two grids differ.
        """
        raise NotImplementedError("the entries of this grid cannot be compared with ours one by one")


class TorchGrid(BaselineGrid):
    """Our own torch implementation on the same table, differentiated by autograd."""

    def __init__(self, layout: GridLayout):
        super().__init__()
        self.layout = layout
        self.table = nn.Parameter(torch.empty(int(layout.entries.sum()), layout.features))

    def forward(self, x: Tensor) -> Tensor:
        """See `BaselineGrid.forward`."""
        return hash_grid.encode(x, self.table, self.layout)[0]

    def share_entries(self, grid: HashGrid) -> None:
        """See `BaselineGrid.share_entries`."""
        with torch.no_grad():
            self.table.copy_(grid.table)

    def converted_gradient(self, gradient: Tensor, layout: GridLayout) -> Tensor:
        """See `BaselineGrid.converted_gradient`."""
        return gradient


class NerfstudioGrid(BaselineGrid):
    """nerfstudio's `HashEncoding(implementation="torch")`.

    It hashes all levels, even those whose vertices fit into the table, with the same primes as ours. To share entries,
    the dense levels of our table get the entries that it hashes their vertices to; vertices that collide in its table
    get equal entries in ours.
    """

    def __init__(self, layout: GridLayout):
        super().__init__()
        from nerfstudio.field_components.encodings import HashEncoding

        with _quietly():
            self.encoding = HashEncoding(
                num_levels=layout.levels,
                min_res=layout.base_resolution,
                max_res=layout.max_resolution,
                log2_hashmap_size=layout.log2_entries,
                features_per_level=layout.features,
                implementation="torch",
            )
        # It rounds the resolution of the last level to 2047 instead of 2048; use our resolutions.
        self.encoding.scalings = torch.as_tensor(layout.resolutions, dtype=torch.float32)
        self.table = self.encoding.hash_table  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """See `BaselineGrid.forward`."""
        return self.encoding(x)

    def share_entries(self, grid: HashGrid) -> None:
        """See `BaselineGrid.share_entries`: copies this grid's entries to ours."""
        with torch.no_grad():
            grid.table.copy_(self.table[self._entry_indices(grid.layout).to(self.table.device)])

    def converted_gradient(self, gradient: Tensor, layout: GridLayout) -> Tensor:
        """See `BaselineGrid.converted_gradient`: gradients of colliding entries add up."""
        return torch.zeros_like(self.table).index_add_(0, self._entry_indices(layout).to(gradient.device), gradient)

    @staticmethod
    def _entry_indices(layout: GridLayout) -> Tensor:
        """(E,) index in its flat table of each of our E entries."""
        size = 2**layout.log2_entries
        places = []
        for level, (resolution, entries, hashed) in enumerate(
            zip(layout.resolutions, layout.entries, layout.hashed, strict=True)
        ):
            if hashed:
                place = np.arange(entries)
            else:
                z, y, x = np.unravel_index(np.arange(entries), (resolution + 1,) * 3)
                place = (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % size
            places.append(place + level * size)
        return torch.as_tensor(np.concatenate(places))


class TcnnGrid(BaselineGrid):
    """tiny-cuda-nn's multi-resolution hash grid in single precision, for CUDA.

    The sizes of its levels differ slightly from ours: the amount of work is the same, the results are not.
    """

    def __init__(self, layout: GridLayout):
        super().__init__()
        import tinycudann

        growth = 1.0
        if layout.levels > 1:
            growth = math.exp(math.log(layout.max_resolution / layout.base_resolution) / (layout.levels - 1))
        config = {
            "otype": "HashGrid",
            "n_levels": layout.levels,
            "n_features_per_level": layout.features,
            "log2_hashmap_size": layout.log2_entries,
            "base_resolution": layout.base_resolution,
            "per_level_scale": growth,
        }
        self.encoding = tinycudann.Encoding(3, config, dtype=torch.float32)
        self.table = self.encoding.params

    def forward(self, x: Tensor) -> Tensor:
        """See `BaselineGrid.forward`."""
        return self.encoding(x)


def baseline_grids(device: torch.device) -> tuple[dict[str, Callable[[GridLayout], BaselineGrid]], dict[str, str]]:
    """Baseline grids that run on this device, by name, and for the others why they do not."""
    grids: dict[str, Callable[[GridLayout], BaselineGrid]] = {}
    missing = {}
    problem = nerfstudio_problem()
    if problem is None:
        grids[NERFSTUDIO_GRID] = NerfstudioGrid
    else:
        missing[NERFSTUDIO_GRID] = problem
        grids[TWIN_GRID] = TorchGrid
    problem = "it needs CUDA" if device.type != "cuda" else tcnn_problem()
    if problem is None:
        grids[TCNN_GRID] = TcnnGrid
    else:
        missing[TCNN_GRID] = problem
    return grids, missing


def features_and_gradient(grid: BaselineGrid, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Features, and the gradient of their weighted sum with respect to the points, by autograd with a graph.

    Args:
        grid: the grid.
        x: (P, 3) points in the unit cube.
        along: (P, C) weights of the features.

    Returns:
        features (P, C) and gradient (P, 3).
    """
    x = x.detach().requires_grad_()
    features = grid(x)
    (slope,) = torch.autograd.grad(features, x, along, create_graph=True)
    return features, slope


class BaselineSDF(nn.Module):
    """The network of our `SDFField` on a baseline grid, with normals by autograd."""

    def __init__(self, grid: BaselineGrid, field: SDFField):
        super().__init__()
        self.grid, self.extent = grid, field.extent
        self.hidden = nn.Linear(field.hidden.in_features, field.hidden.out_features)
        self.out = nn.Linear(field.out.in_features, field.out.out_features)
        self.hidden.load_state_dict(field.hidden.state_dict())
        self.out.load_state_dict(field.out.state_dict())

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `ours.sdf_normal`."""
        points = points.detach().requires_grad_()
        features = self.grid((points / self.extent + 1) * 0.5)
        value = self.out(F.softplus(self.hidden(torch.cat([points, features], -1)), beta=SOFTPLUS_BETA))
        sdf = value[:, 0]
        (normal,) = torch.autograd.grad(sdf, points, torch.ones_like(sdf), create_graph=True)
        return sdf, normal, value[:, 1:]


# --- neus-facto --------------------------------------------------------------------------------------------------
class _TorchEncoding(nn.Module):
    """Replaces `tinycudann.Encoding`, which nerfstudio's SDF field requires, by nerfstudio's torch grid.

    The torch grid only has linear interpolation, which is cheaper than smoothstep.
    """

    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any]):
        super().__init__()
        from nerfstudio.field_components.encodings import HashEncoding

        base, levels = encoding_config["base_resolution"], encoding_config["n_levels"]
        self.encoding = HashEncoding(
            num_levels=levels,
            min_res=base,
            max_res=round(base * encoding_config["per_level_scale"] ** (levels - 1)),
            log2_hashmap_size=encoding_config["log2_hashmap_size"],
            features_per_level=encoding_config["n_features_per_level"],
            implementation="torch",
        )
        self.n_output_dims = self.encoding.get_out_dim()

    def forward(self, x: Tensor) -> Tensor:
        return self.encoding(x)


@contextlib.contextmanager
def _patched_nerfstudio(torch_grids: bool) -> Iterator[None]:
    """Context manager: nerfstudio models are built without LPIPS, and with torch grids if ``torch_grids``.

    LPIPS is an evaluation metric that a training step does not use, and its weights would be downloaded.
    """
    import nerfstudio.fields.sdf_field as sdf_field
    import torchmetrics.image.lpip as lpip

    class TorchGrids:
        Encoding = _TorchEncoding

    before: tuple[Any, Any] = (sdf_field.tcnn, lpip.LearnedPerceptualImagePatchSimilarity)
    if torch_grids:
        sdf_field.tcnn = TorchGrids
    vars(lpip)["LearnedPerceptualImagePatchSimilarity"] = nn.Identity
    try:
        yield
    finally:
        sdf_field.tcnn = before[0]
        vars(lpip)["LearnedPerceptualImagePatchSimilarity"] = before[1]


class NeusFacto:
    """nerfstudio's neus-facto with its own model, losses and optimisers.

    As configured in nerfstudio: two proposal networks (256 and 96 samples per ray), then ``samples`` samples of the SDF
    field, no background. Without learning-rate schedules and logging.

    Args:
        samples: final samples per ray.
        views: number of training views.
        device: to train on. The grids are tiny-cuda-nn's if it can run, else torch's.
        sizes: grid layout and hidden width of our foreground, for its SDF field; None keeps its own.
    """

    def __init__(self, samples: int, views: int, device: torch.device, sizes: tuple[GridLayout, int] | None = None):
        with _quietly():
            from nerfstudio.configs.method_configs import method_configs
            from nerfstudio.data.scene_box import SceneBox
            from nerfstudio.engine.optimizers import Optimizers

        method: Any = method_configs["neus-facto"]
        torch_grids = device.type != "cuda" or tcnn_problem() is not None
        config = _copied(method.pipeline.model, num_neus_samples_per_ray=samples)
        if torch_grids:
            config.proposal_net_args_list = [
                {**arguments, "implementation": "torch"} for arguments in config.proposal_net_args_list
            ]
        if sizes is not None:
            layout, hidden = sizes
            config.sdf_field = _copied(
                config.sdf_field,
                num_levels=layout.levels,
                base_res=layout.base_resolution,
                max_res=layout.max_resolution,
                log2_hashmap_size=layout.log2_entries,
                features_per_level=layout.features,
                hidden_dim=hidden,
                hidden_dim_color=hidden,
                num_layers=1,
                geo_feat_dim=12,
            )
        box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        with _quietly(), _patched_nerfstudio(torch_grids):
            self.model: Any = config.setup(scene_box=box, num_train_data=views, metadata={}).to(device)
        self.optimisers = Optimizers(
            {name: {"optimizer": entry["optimizer"], "scheduler": None} for name, entry in method.optimizers.items()},
            self.model.get_param_groups(),
        )

    def use_samples(self, samples: int) -> None:
        """Sets the number of final samples per ray."""
        self.model.proposal_sampler.num_nerf_samples_per_ray = samples

    def step(self, batch: Batch) -> Tensor:
        """Does a training step; returns its loss."""
        from nerfstudio.cameras.rays import RayBundle

        self.model.train()
        ones = torch.ones_like(batch.origins[:, :1])
        bundle = RayBundle(
            origins=batch.origins,
            directions=batch.directions,
            pixel_area=ones * 1e-6,
            camera_indices=batch.view[:, None],
            metadata={"directions_norm": ones},
        )
        self.optimisers.zero_grad_all()
        outputs = self.model(bundle)
        losses = self.model.get_loss_dict(outputs, {"image": batch.photo})
        loss = torch.stack([value.reshape(()) for value in losses.values()]).sum()
        loss.backward()
        self.optimisers.optimizer_step_all()
        return loss.detach()


def _copied(config: Any, **changes: Any) -> Any:
    """`dataclasses.replace` on a deep copy, since nerfstudio's configs share mutable lists."""
    return dataclasses.replace(copy.deepcopy(config), **changes)
