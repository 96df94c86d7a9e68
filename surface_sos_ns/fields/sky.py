"""The sky: the colour of rays that hit nothing. It has no position in space, and differs from photo to photo."""

from __future__ import annotations

from torch import Tensor, nn

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class Sky(nn.Module):
    """Colour of the sky by viewing direction and the latent code of a photo's light.

    A density would have to place the sky somewhere. Fog in front of each camera fits the training photos as well as a
    far surface does, but hides the object in other views.

    Args:
        hidden: width of the hidden layers.
        light: length L of the latent codes.
        ops: back-end of the numeric operations.
    """

    def __init__(self, hidden: int = 64, light: int = 0, ops: TorchOps = TORCH):
        super().__init__()
        self.colour = ColourNet(0, hidden, ops=ops, light=light)

    def forward(self, directions: Tensor, light: Tensor | None = None) -> Tensor:
        """Colours (R, 3) in (0, 1), display space, of unit directions (R, 3), object frame.

        Args:
            directions: from the camera.
            light: (R, L) latent codes; None takes the mean of the training photos', 0.
        """
        return self.colour(directions.new_zeros(directions.shape[0], 0), directions, light)[0]
