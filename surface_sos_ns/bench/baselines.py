"""The other sides: grids whose Jacobian comes from autograd's double backward, and nerfstudio's neus-facto.

None of this is ours to make fast, and none of it is made slower than its authors left it. Where another package lacks
something that is needed to run it here, that is said at the place.
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
    """Why nerfstudio cannot be measured here, or None where it can."""
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
    """Without the advice and the deprecation warnings of other packages, which would stand among the figures."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# --- grids -------------------------------------------------------------------------------------------------------
class OtherGrid(nn.Module):
    """A hash grid that gives features, and leaves derivatives by the points to autograd."""

    table: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (P, 3) in the unit cube. Returns: features (P, C)."""
        raise NotImplementedError

    def share_entries(self, grid: HashGrid) -> None:
        """Make our grid and this one hold the same entries, so that both compute the same numbers.

        Raises:
            NotImplementedError: the two are laid out differently.
        """
        raise NotImplementedError("the entries of this grid cannot be compared with ours one by one")

    def our_gradient(self, gradient: Tensor, layout: GridLayout) -> Tensor:
        """A gradient to our table, as one to this grid's table."""
        raise NotImplementedError("the entries of this grid cannot be compared with ours one by one")


class TwinGrid(OtherGrid):
    """Our own torch implementation on the same table, differentiated by autograd."""

    def __init__(self, layout: GridLayout):
        super().__init__()
        self.layout = layout
        self.table = nn.Parameter(torch.empty(int(layout.entries.sum()), layout.features))

    def forward(self, x: Tensor) -> Tensor:
        """See `OtherGrid.forward`."""
        return hash_grid.encode(x, self.table, self.layout)[0]

    def share_entries(self, grid: HashGrid) -> None:
        """See `OtherGrid.share_entries`."""
        with torch.no_grad():
            self.table.copy_(grid.table)

    def our_gradient(self, gradient: Tensor, layout: GridLayout) -> Tensor:
        """See `OtherGrid.our_gradient`."""
        return gradient


class NerfstudioGrid(OtherGrid):
    """nerfstudio's `HashEncoding(implementation="torch")`.

    It hashes every level, also those whose vertices would fit into the table, with the same primes as ours. Our dense
    entries are therefore read from its table where it looks for them: where several vertices share an entry of its
    table, ours hold the same number.
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
        # Its own rounding makes the last level 2047 cells wide instead of 2048. Equal work, equal cells.
        self.encoding.scalings = torch.as_tensor(layout.resolutions, dtype=torch.float32)
        self.table = self.encoding.hash_table  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """See `OtherGrid.forward`."""
        return self.encoding(x)

    def share_entries(self, grid: HashGrid) -> None:
        """See `OtherGrid.share_entries`: ours takes over this one's."""
        with torch.no_grad():
            grid.table.copy_(self.table[self._places(grid.layout).to(self.table.device)])

    def our_gradient(self, gradient: Tensor, layout: GridLayout) -> Tensor:
        """See `OtherGrid.our_gradient`: entries that share a place add up."""
        return torch.zeros_like(self.table).index_add_(0, self._places(layout).to(gradient.device), gradient)

    @staticmethod
    def _places(layout: GridLayout) -> Tensor:
        """(E,) the entry of its flat table that stands for each entry of ours."""
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


class TcnnGrid(OtherGrid):
    """tiny-cuda-nn's own multi-resolution hash grid in single precision, for CUDA.

    Its levels are sized and padded a little differently, so the work is of the same kind and amount, and the numbers
    are not ours.
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
        """See `OtherGrid.forward`."""
        return self.encoding(x)


def other_grids(device: torch.device) -> tuple[dict[str, Callable[[GridLayout], OtherGrid]], dict[str, str]]:
    """Grids to measure against on this device by name, best known first, and why others are missing."""
    grids: dict[str, Callable[[GridLayout], OtherGrid]] = {}
    missing = {}
    problem = nerfstudio_problem()
    if problem is None:
        grids[NERFSTUDIO_GRID] = NerfstudioGrid
    else:
        missing[NERFSTUDIO_GRID] = problem
        grids[TWIN_GRID] = TwinGrid
    problem = "it needs CUDA" if device.type != "cuda" else tcnn_problem()
    if problem is None:
        grids[TCNN_GRID] = TcnnGrid
    else:
        missing[TCNN_GRID] = problem
    return grids, missing


def grid_slope(grid: OtherGrid, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Features (P, C) at x (P, 3) of the unit cube, and the derivative (P, 3) of their sum weighted by along (P, C).

    That derivative is autograd's, with a graph to train through.
    """
    x = x.detach().requires_grad_()
    features = grid(x)
    (slope,) = torch.autograd.grad(features, x, along, create_graph=True)
    return features, slope


class OtherSDF(nn.Module):
    """The same net as our `SDFField` on another grid, its normal by autograd."""

    def __init__(self, grid: OtherGrid, field: SDFField):
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
    """Stands in for `tinycudann.Encoding` in nerfstudio's SDF field, which knows no other: its own torch grid.

    That one interpolates linearly only, which is the cheaper way.
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
def _without_extras(torch_grids: bool) -> Iterator[None]:
    """nerfstudio built with its torch grids where asked for, and without LPIPS.

    LPIPS is a metric of evaluation whose weights would be downloaded; a training step does not use it.
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
    """nerfstudio's neus-facto with its own model, loss and optimisers, fed with rays.

    Its method as nerfstudio defines it: two proposal networks (256 and 96 samples a ray), then the SDF field at
    `samples`, no background. Learning-rate schedules and logging are left out.

    Args:
        samples: final samples a ray.
        views: number of training views.
        device: where it trains. Its grids are tiny-cuda-nn's where that can run, else torch's.
        sizes: grid and width of our foreground for its SDF field; None keeps its own.
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
        with _quietly(), _without_extras(torch_grids):
            self.model: Any = config.setup(scene_box=box, num_train_data=views, metadata={}).to(device)
        self.optimisers = Optimizers(
            {name: {"optimizer": entry["optimizer"], "scheduler": None} for name, entry in method.optimizers.items()},
            self.model.get_param_groups(),
        )

    def use_samples(self, samples: int) -> None:
        """Draw this many final samples a ray from now on."""
        self.model.proposal_sampler.num_nerf_samples_per_ray = samples

    def step(self, batch: Batch) -> Tensor:
        """One training step; returns its loss."""
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
    """`dataclasses.replace` on a deep copy: nerfstudio's configs hold lists that must stay as they are."""
    return dataclasses.replace(copy.deepcopy(config), **changes)
