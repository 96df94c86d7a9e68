"""The segmentation head: a code per surface point, learned by contrastive losses on features of the photos.

Two layers on the radiance field's geometry feature and the encoded position, as in the official code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.layers import relu_layer


class SegmentationHead(nn.Module):
    """Codes s(x) (P, C) of points of contracted space.

    Args:
        feature_width: length G of the radiance field's geometry feature.
        channels: C.
        hidden: width of the hidden layer.
        frequencies: octaves of the encoded position, the first with a period of the whole contracted space.
    """

    octaves: Tensor

    def __init__(self, feature_width: int, channels: int, hidden: int, frequencies: int):
        super().__init__()
        self.register_buffer("octaves", 2.0 ** torch.arange(frequencies) * (math.pi / 2), persistent=False)
        self.hidden = relu_layer(feature_width + 3 * (1 + 2 * frequencies), hidden)
        self.out = nn.Linear(hidden, channels)

    def forward(self, contracted: Tensor, feature: Tensor) -> Tensor:
        """Codes (P, C).

        Args:
            contracted: (P, 3) points of contracted space.
            feature: (P, G) geometry feature of the radiance field there.
        """
        phase = contracted[..., None] * self.octaves
        position = torch.cat([contracted, torch.sin(phase).flatten(1), torch.cos(phase).flatten(1)], -1)
        return self.out(torch.relu(self.hidden(torch.cat([feature, position], -1))))
