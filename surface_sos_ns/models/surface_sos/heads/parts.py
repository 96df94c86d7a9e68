"""Which part of the object a surface belongs to: a head that is learned on a finished run and attached to it."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.fields.parts import PartField
from surface_sos_ns.models.surface_sos.heads.head import Head
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.utils.identity_colours import identity_colours
from surface_sos_ns.utils.metrics import THRESHOLD


class PartHead(Head):
    """Shares of K parts at surface points, and images of them. The identity of part k is k + 1; 0 is no part.

    Parts of one of several objects are learned in a cube about it, so that it may be small in the object sphere.

    Args:
        parts: K.
        ops: back-end of the numeric operations.
        object: name and identity of the one of several objects that the parts are of; None with one.

    Attributes:
        latest: whether this is the result that is also shown without its number of parts in the name.
        latest_of_object: the same of its object, under the object's name.
        place: (4,) centre and half side of the cube that the field fills, object frame; only of one of several objects.
    """

    place: Tensor

    def __init__(self, parts: int, ops: TorchOps, object: tuple[str, int] | None = None):
        super().__init__()
        self.ops = ops
        self.field = PartField(parts, ops)
        self.object = object
        if object is not None:
            self.register_buffer("place", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        self.latest = self.latest_of_object = False

    @property
    def parts(self) -> int:
        """K."""
        return self.field.parts

    @property
    def suffix(self) -> str:
        """What tells this result from the run's others in names of outputs: K, or NAME_K of one of several objects."""
        return str(self.parts) if self.object is None else f"{self.object[0]}_{self.parts}"

    @property
    def name(self) -> str:  # type: ignore[override]
        """See `Head.name`."""
        return f"parts_{self.suffix}"

    @property
    def identities_name(self) -> str:
        """Name of the output of identities."""
        return f"part_ids_{self.suffix}"

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """`parts_K` in colours and `part_ids_K`, or `parts_NAME_K` and `part_ids_NAME_K`; without the K as well where
        it is the latest of its object, and without both where it is the latest of all."""
        names = ["parts", "part_ids"] if self.latest else []
        if self.latest_of_object and self.object is not None:
            names += [f"parts_{self.object[0]}", f"part_ids_{self.object[0]}"]
        return (*names, self.name, self.identities_name)

    def forward(self, points: Tensor) -> Tensor:
        """Shares (P, K), which sum to 1, at canonical points (P, 3)."""
        return self.field(self._in_cube(points)).softmax(-1)

    @torch.no_grad()
    def identities(self, points: Tensor) -> Tensor:
        """(P,) int64 in 1 to K: the part of each canonical point (P, 3) of the surface; on the head's device."""
        return self.identities_in_cube(self._in_cube(points.to(self.field.out.weight)))

    @torch.no_grad()
    def identities_in_cube(self, points: Tensor) -> Tensor:
        """As `identities`, of points (P, 3) of the frame in which the field's cube is [-1, 1]^3."""
        points = points.to(self.field.out.weight)
        return torch.cat([self.field(part).argmax(-1) + 1 for part in points.split(self.ops.chunk_points)])

    def _in_cube(self, points: Tensor) -> Tensor:
        if self.object is None:
            return points
        return ((points - self.place[:3]) / self.place[3]).clamp(-1, 1)  # surfaces of other objects are beyond it

    def outputs(self, rendering: Rendering) -> dict[str, Tensor]:
        """Colours of the parts over black (R, 3), and identities (R, 1), 0 where alpha is 0.5 or less.

        Parts of one of several objects are shown where that is.
        """
        shares, alpha = rendering.head_values[self.name], rendering.alpha
        shown, there = torch.ones_like(alpha), alpha > THRESHOLD
        if self.object is not None and rendering.objects is not None:
            index = self.object[1] - 1
            shown = rendering.objects[:, index] / alpha.clamp(min=1e-6)
            there = there & (rendering.objects.argmax(-1) == index)
        colours = torch.as_tensor(identity_colours(self.parts), device=shares.device)
        found = (shares.argmax(-1, keepdim=True) + 1) * there[:, None]
        images = (shares @ colours * shown[:, None]).clamp(0, 1), found.to(shares.dtype)
        return dict(zip(self.output_names, images * (len(self.output_names) // 2), strict=True))
