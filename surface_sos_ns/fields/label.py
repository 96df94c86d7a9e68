"""The label field: whether a surface point belongs to the object, or to which of several, from any direction alike.

It takes the place of the paper's predicted alpha (eq. 3), which depends on the view. Its grid is coarse on purpose: the
outline of one wrong mask must not be reproduced in it. Sharp edges come from the surfaces on which it is evaluated.
"""

from __future__ import annotations

from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps

LABEL_LAYOUT = GridLayout(levels=8, features=2, log2_entries=16, base_resolution=8, max_resolution=128)
"""Default sizes of its hash grid."""
LABEL_HIDDEN = 32
"""Default width of its hidden layer."""


class LabelField(nn.Module):
    """Logits of K objects over the cube [-1, 1]^3 of the object frame; that of the background is 0.

    So a softmax over the K + 1 gives the probabilities, and with one object it is a sigmoid.

    Args:
        layout: of the hash grid.
        hidden: width of the hidden layer.
        ops: back-end of the numeric operations.
        objects: K.
    """

    def __init__(
        self, layout: GridLayout = LABEL_LAYOUT, hidden: int = LABEL_HIDDEN, ops: TorchOps = TORCH, objects: int = 1
    ):
        super().__init__()
        self.grid = HashGrid(layout, ops)
        self.ops = ops
        self.hidden = nn.Linear(layout.width, hidden)
        self.out = nn.Linear(hidden, objects)

    @property
    def objects(self) -> int:
        """K."""
        return self.out.out_features

    def forward(self, points: Tensor) -> Tensor:
        """Logits (P, K) at points (P, 3) of the object frame."""
        layers = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        return self.ops.relu_network((points + 1) * 0.5, self.grid.table, self.grid.layout, *layers)


def any_object(logits: Tensor) -> Tensor:
    """Logit (P,) of 'belongs to some object', of logits (P, K) against the background: log sum_k exp(logit_k)."""
    return logits[:, 0] if logits.shape[1] == 1 else logits.logsumexp(-1)
