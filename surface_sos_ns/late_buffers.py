"""Parts of the model that runs of earlier versions have not, and that their checkpoints can do without."""

from __future__ import annotations

from typing import Any

from torch import nn


class LateBuffers(nn.Module):
    """A module of buffers alone, which stay as they are where a checkpoint has none of them."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        own = {prefix + name: buffer for name, buffer in self.named_buffers()}
        if not own.keys() & state_dict.keys():
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
