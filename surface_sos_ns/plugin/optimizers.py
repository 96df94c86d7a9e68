"""Optimiser and learning-rate schedule of the methods, as nerfstudio configs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from surface_sos_ns.training.optimizer import SparseAdam


@dataclass
class GridAdamConfig(OptimizerConfig):
    """Adam for hash tables: most entries have no gradient in a step, and are then not updated. The second moment decays
    faster than by torch's default."""

    _target: type = SparseAdam
    """The optimizer class to use."""
    lr: float = 1e-2
    """The learning rate to use."""
    eps: float = 1e-15
    """The epsilon value to use."""
    betas: tuple[float, float] = (0.9, 0.99)
    """decay rates of the gradient's first and second moments"""


@dataclass
class WarmupDecaySchedulerConfig(SchedulerConfig):
    """A short linear warm-up, then exponential decay to ``final_factor`` at the last step of the run."""

    _target: type = field(default_factory=lambda: WarmupDecayScheduler)
    warmup_fraction: float = 0.05
    """share of the run that the warm-up takes, unless max_warmup_steps is shorter"""
    max_warmup_steps: int = 500
    """longest warm-up in steps; it waits for Adam's moments, which take as many steps in a longer run"""
    start_factor: float = 0.01
    """learning rate at the first step, as a factor of the optimiser's"""
    final_factor: float = 0.1
    """learning rate at the last step, as a factor of the optimiser's"""
    total_steps: int | None = None
    """length of the run; the trainer sets it to max_num_iterations"""


class WarmupDecayScheduler(Scheduler):
    """Builds the schedule of a `WarmupDecaySchedulerConfig`."""

    config: WarmupDecaySchedulerConfig

    def get_scheduler(self, optimizer: torch.optim.Optimizer, lr_init: float) -> LambdaLR:
        """The torch scheduler for ``optimizer``.

        Args:
            optimizer: its learning rate is multiplied by the schedule.
            lr_init: unused, the schedule is a factor.

        Raises:
            ValueError: the length of the run is not known.
        """
        del lr_init
        config = self.config
        if config.total_steps is None:
            raise ValueError("total_steps of the schedule is not set: train with SurfaceSOSTrainerConfig, which does.")
        warmup = min(config.max_warmup_steps, int(config.warmup_fraction * config.total_steps))
        decay_steps = max(1, config.total_steps - 1 - warmup)

        # A plain function: torch leaves it out of checkpoints, so a resumed run follows the total it is given now.
        def factor(step: int) -> float:
            if step < warmup:
                return config.start_factor + (1.0 - config.start_factor) * step / warmup
            return config.final_factor ** min(1.0, (step - warmup) / decay_steps)

        return LambdaLR(optimizer, lr_lambda=factor)
