"""nerfstudio's pipeline: data and model of a run, for training and for the commands that open a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.pipelines.base_pipeline import Pipeline, VanillaPipeline, VanillaPipelineConfig
from torch import Tensor

from surface_sos_ns.models.surface_sos.adaptation import LIGHT_CODES, Adaptation, stored_adaptation
from surface_sos_ns.models.surface_sos.gpu_memory import free_gpu_bytes, why_training_does_not_fit
from surface_sos_ns.models.surface_sos.scene import stored_objects
from surface_sos_ns.plugin.capture_datamanager import CaptureDataManager, CaptureDataManagerConfig
from surface_sos_ns.plugin.checkpoints import SCENE, find_checkpoint
from surface_sos_ns.plugin.compat.eval_checkpoints import let_pipelines_load_themselves
from surface_sos_ns.plugin.compat.moved_runs import run_being_opened
from surface_sos_ns.plugin.compat.ns_export import fill_unseen_space
from surface_sos_ns.plugin.compat.tracebacks import show_explanations_alone
from surface_sos_ns.plugin.compat.viewer import guard_viewer
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.plugin.partial_metrics import averages, collected_separately
from surface_sos_ns.plugin.run_paths import find_capture
from surface_sos_ns.plugin.run_schedule import RunSchedule
from surface_sos_ns.plugin.training_run import RunStory, TrainingRun
from surface_sos_ns.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from surface_sos_ns.ops.torch_ops import TorchOps
    from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager
    from surface_sos_ns.plugin.model import SurfaceSOSModel
    from surface_sos_ns.plugin.scene_model import SceneModel

METRICS_OF_SOME_PHOTOS = ("mask_", "clean_plate_", "parts_", "psnr_", "ssim_", "lpips_")
"""How the names of metrics begin that only some photos have: those with truth, and those that can be halved."""


@dataclass
class SurfaceSOSPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's pipeline; loading it for rendering or evaluation passes over broken checkpoints.

    Every command that opens a run builds this first, so what has to be changed in nerfstudio is changed from here.
    """

    _target: type = field(default_factory=lambda: SurfaceSOSPipeline)
    """target class to instantiate"""

    def for_training(self) -> SurfaceSOSPipelineConfig:
        """The settings with all that a run's config.yml must say, whoever opens it; called before it is written.

        The parser gives each photo its time where the model has a use for it.
        """
        if isinstance(self.model, SurfaceSOSModelConfig) and self.model.scene.deformation.bound > 0:
            parser = dataclasses.replace(self.datamanager.dataparser, times=True)  # type: ignore[attr-defined, call-arg]
            return dataclasses.replace(self, datamanager=dataclasses.replace(self.datamanager, dataparser=parser))  # type: ignore[call-arg]
        return self

    def setup(self, **kwargs: Any) -> Pipeline:
        """Build the pipeline (arguments as nerfstudio gives them)."""
        show_explanations_alone()
        let_pipelines_load_themselves()
        guard_viewer()
        opened = run_being_opened()
        if opened is not None and isinstance(self.datamanager, CaptureDataManagerConfig):
            self.datamanager.data = self.datamanager.dataparser.data = find_capture(*opened)
        return super().setup(**kwargs)


class SurfaceSOSPipeline(VanillaPipeline):
    """Data and model of a run; the order of events of a training run is in `training_run.TrainingRun`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.claim_cores()

    @cached_property
    def average(self) -> WeightAverage:
        """Running mean of the trained weights over the averaging window that the run is in."""
        return WeightAverage(parameter for group in self.get_param_groups().values() for parameter in group)

    @property
    def model(self) -> SceneModel:
        """The model, by its own type."""
        return cast("SceneModel", super().model)

    @property
    def data(self) -> CaptureDataManager:
        """The data manager, by its own type."""
        return cast("CaptureDataManager", self.datamanager)

    @property
    def ops(self) -> TorchOps:
        """Back-end of the numeric operations, which the model has chosen."""
        return cast("TorchOps", self.model.scene.ops)

    def describe(self) -> str:
        """One line: what computes, and how rays are sampled."""
        return self.model.describe()

    # ------------------------------------------------------------------ a step on a GPU

    def why_not_static(self, photos: bool = True) -> str | None:
        """Why a training step cannot be captured as a CUDA graph; None where it can.

        Args:
            photos: also look at where the photos are, for which they are read.
        """
        return self.model.why_not_static() or (self.data.why_not_static() if photos else None)

    def memory_warning(self) -> str | None:
        """What to say before the first step where its rays may not fit on the GPU; None where they do, or on a CPU."""
        device, scene = torch.device(self.device), self.model.scene
        if device.type != "cuda":
            return None
        parameters = sum(parameter.numel() for parameter in scene.parameters())
        rays = self.data.config.train_num_rays_per_batch
        objects = max(len(self.model.object_names), 1)
        return why_training_does_not_fit(scene.config, parameters, rays, free_gpu_bytes(device), objects)

    def losses_of_a_step(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted losses and metrics of a new batch."""
        _, losses, metrics = self.get_train_loss_dict(step=0)
        return losses, metrics

    def fixed_in_a_step(self) -> Hashable:
        """What a captured step assumes unchanged: addresses of the tensors that it reads, numbers on the host."""
        tensors = itertools.chain(self.parameters(), self.buffers(), self.data.read_in_a_step())
        return (self.model.scene.background.contraction_radius, *(tensor.data_ptr() for tensor in tensors))

    # ------------------------------------------------------------------ a run

    def adapt(self, folder: Path) -> None:
        """Give the model the sizes that the capture needs, and say so; before anything is trained.

        Args:
            folder: of the run, which keeps what is found of the object meanwhile.

        Raises:
            UserError: the capture cannot be used; the message says what to do.
        """
        config = self.model.config
        if not isinstance(config, SurfaceSOSModelConfig):
            return
        data = cast("SurfaceSOSDataManager", self.datamanager)
        changing = config.light == "codes"
        if config.light == "auto":
            light = data.light(folder)
            changing = light.changes
            if changing:
                say(light.sentence(LIGHT_CODES))
        room = data.room(folder) if config.room == "auto" else None
        if room is not None:
            say(room.sentence())
        pixels = data.pixels_per_radius(folder) if config.adapt_detail else 0.0
        sizes = Adaptation(pixels_per_radius=pixels).applied(config.scene)
        if sizes == config.scene:
            pixels = 0.0
        else:
            say(
                f"the object is large in the photos ({2 * pixels:.0f} pixels across its sphere): its finest grid has "
                f"{sizes.foreground_grid.max_resolution} cells per axis, its cache {sizes.cache_resolution}"
            )
        self.model.take_adaptation(Adaptation(changing, pixels, None if room is None else room.size))

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Find the object and start the model from it; returns what accompanies each step.

        nerfstudio calls this once when training is set up, after a checkpoint is loaded, and never for rendering: so
        the object is found in training only, and a resumed run keeps the one it has.

        Raises:
            UserError: the capture cannot be used; the message says what to do.
        """
        run = self.training_run(training_callback_attributes.trainer)
        run.prepare()
        run.initialise()
        return [*super().get_training_callbacks(training_callback_attributes), *run.callbacks()]

    def training_run(self, trainer: Any) -> RunStory:
        """What happens in a run of a `SurfaceSOSTrainer`."""
        return TrainingRun(
            model=cast("SurfaceSOSModel", self.model),
            datamanager=cast("SurfaceSOSDataManager", self.datamanager),
            average=self.average,
            schedule=RunSchedule.of(cast("SurfaceSOSModelConfig", self.model.config), trainer.config.average_from),
            folder=trainer.base_dir,
            first_step=trainer.steps_done,
        )

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint's weights into a model of its objects and sizes, see nerfstudio's pipeline."""
        self.model.take_objects(stored_objects(loaded_state, SCENE))
        self.model.take_adaptation(stored_adaptation(loaded_state, SCENE))
        super().load_pipeline(loaded_state, step)

    def load_for_evaluation(self, folder: Path, step: int | None) -> tuple[Path, int]:
        """Load a run's weights and say what was loaded; called by nerfstudio's commands that open a run.

        Args:
            folder: of its checkpoints.
            step: of the checkpoint; None for the newest that is complete.

        Returns:
            The file and its step.

        Raises:
            CheckpointError: there is none.
        """
        path, state = find_checkpoint(folder, step, say)
        self.load_pipeline(state["pipeline"], state["step"])
        self.model.attach_parts(path.parent.parent, path.name)
        say(f"Loaded {path}")
        say(f"{self.device} | {self.describe()}")
        low, high = (" ".join(f"{value:.3f}" for value in corner) for corner in self.model.object_box())
        say(f"The object lies within {low} and {high} (nerfstudio's frame, for ns-export's --bounding-box-min, -max)")
        fill_unseen_space(self.model)
        return path, state["step"]

    def get_average_image_metrics(  # type: ignore[no-untyped-def]
        self, data_loader, image_prefix: str, step=None, output_path=None, get_std: bool = False
    ) -> dict[str, float]:
        """Each metric averaged over the photos that have it; otherwise see nerfstudio's pipeline.

        Colours are also measured with the appearance of each photo fitted to a half of it, see `fitted_metrics`.
        """
        with (
            collected_separately(self.model, METRICS_OF_SOME_PHOTOS) as of_some_photos,
            self.model.fitting_appearance(),
        ):
            of_all = super().get_average_image_metrics(data_loader, image_prefix, step, output_path, get_std)
        return {**of_all, **averages(of_some_photos, get_std)}
