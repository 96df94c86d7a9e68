"""nerfstudio's trainer, made safe to stop, kill and resume.

A run has one total number of steps. Stopped anywhere, it continues at the next step with the same weights, optimiser,
schedules and random numbers, and ends at that total.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from surface_sos_ns.models.surface_sos.adaptation import stored_adaptation
from surface_sos_ns.models.surface_sos.scene import stored_objects
from surface_sos_ns.plugin.checkpoints import (
    SCENE,
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    random_state,
    read_checkpoint,
    read_total_steps,
    restore_random_state,
    save_checkpoint,
)
from surface_sos_ns.plugin.command_line import resume_command, typed
from surface_sos_ns.plugin.compat.event_writers import go_on_without_events
from surface_sos_ns.plugin.compat.local_log import start_log_at
from surface_sos_ns.plugin.compat.tracebacks import show_explanations_alone
from surface_sos_ns.plugin.compat.viewer_address import why_no_viewer
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.loss_log import LOSS_FILE, LossLog
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipeline, SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.prior_file import PRIOR_FILE
from surface_sos_ns.plugin.run_paths import with_absolute_paths
from surface_sos_ns.plugin.self_training import MASK_FILES
from surface_sos_ns.plugin.stop_request import StopRequest
from surface_sos_ns.plugin.training_step import CapturedStep, CaptureError, StepResult, graphs_on
from surface_sos_ns.plugin.viewer.training_lock import let_browsers_draw, training_lock
from surface_sos_ns.training.optimizer import SparseAdam, make_capturable
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import WriteError, atomic_file, check_writable, remove_leftovers, write_text, writing
from surface_sos_ns.utils.locks import lock_folder
from surface_sos_ns.utils.signals import exit_on_signal, signal_of_status
from surface_sos_ns.utils.text import printable


@dataclass
class SurfaceSOSMachineConfig(MachineConfig):
    """nerfstudio's machine settings with a device that is chosen by what is there."""

    device_type: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # type: ignore[assignment]
    """device to train on; auto takes CUDA where it works and the CPU elsewhere"""


@dataclass
class SurfaceSOSTrainerConfig(TrainerConfig):
    """Training settings. ``max_num_iterations`` is the run's total, also when it is resumed."""

    _target: type = field(default_factory=lambda: SurfaceSOSTrainer)
    machine: SurfaceSOSMachineConfig = field(default_factory=SurfaceSOSMachineConfig)
    """Machine configuration"""
    pipeline: SurfaceSOSPipelineConfig = field(default_factory=SurfaceSOSPipelineConfig)
    """Pipeline configuration"""
    average_from: float = 0.95
    """Fraction of the run from which on weights are averaged; their mean is the result. The object's own masks amid the
    run are made of means over as long a part before them. 1 takes the last step's weights each time."""
    cuda_graph: bool = True
    """On a GPU, capture the training step once as a CUDA graph and replay it. Without, its kernels are launched one by
    one, which is several times slower."""

    def save_config(self) -> None:
        """Write config.yml, complete enough to render and evaluate the run from it.

        It says "auto" where the device was left to the machine, so that it can be read on another one, and does not
        say ``load_step``, which ns-render and ns-eval would look for among this run's checkpoints. Its paths are
        absolute, so that commands find the capture and the run from any folder.

        Raises:
            UserError: several devices are asked for; or the run's folder holds another run, is being written to by
                another process, or cannot be written (by TensorBoard, where that is asked for).
        """
        show_explanations_alone()
        self._refuse_several_devices()
        self._check_name_for_tensorboard()
        self._refuse_another_run()
        self.claim_folder()
        self.set_total_steps()
        self.pipeline = self.pipeline.for_training()
        path = self.get_base_dir() / "config.yml"
        CONSOLE.log(f"Saving config to: {path}")
        write_text(path, yaml.dump(with_absolute_paths(dataclasses.replace(self, load_step=None))))
        self.choose_device()

    def setup(self, **kwargs: Any) -> SurfaceSOSTrainer:
        """Build the trainer (arguments as nerfstudio gives them).

        Raises:
            UserError: the viewer that is asked for cannot be.
        """
        show_explanations_alone()
        why_not = why_no_viewer(self.vis, self.viewer)
        if why_not is not None:
            raise UserError(why_not)
        self.set_total_steps()
        self.pipeline = self.pipeline.for_training()
        self.choose_device()
        return super().setup(**kwargs)

    def claim_folder(self) -> None:
        """Make the run's folder, keep other processes from writing to it, and clear away what killed ones left in it.

        Raises:
            UserError: another process is writing to it, or it cannot be written to.
        """
        folder = self.get_base_dir()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock_folder(folder, "Wait until it is done, stop it, or give this run a folder of its own: --timestamp NAME.")
        check_writable(folder)
        remove_leftovers(folder)
        remove_leftovers(self.get_checkpoint_dir())

    def _refuse_several_devices(self) -> None:
        """One capture trains on one device: exchanging the tables' gradients costs more than it saves."""
        machine = self.machine
        if machine.num_devices * machine.num_machines > 1:
            raise UserError(
                f"--machine.num-devices {machine.num_devices} --machine.num-machines {machine.num_machines}: one "
                "capture trains on one device. Several devices take several captures: surface-sos batch."
            )

    def _refuse_another_run(self) -> None:
        """Do not train over a run that is there, unless it is the one that is gone on with."""
        checkpoints = self.get_checkpoint_dir()
        there = list_checkpoints(checkpoints)
        source = self.load_dir or self.load_checkpoint
        if there and (source is None or self.get_base_dir().resolve() not in (source / "x").resolve().parents):
            raise UserError(
                f"{there[0]} is of a run that was made there before. Go on with it: --load-dir {checkpoints}; or give "
                "this run a folder of its own: --timestamp NAME."
            )

    def choose_device(self) -> None:
        """Replace the device "auto" by the one that is there."""
        if self.machine.device_type == "auto":
            device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
            self.machine = dataclasses.replace(self.machine, device_type=device)

    def set_total_steps(self) -> None:
        """Tell the model and every learning-rate schedule how long the run is.

        A resumed run keeps the total that it was started with unless another one is asked for.
        """
        source = self.load_dir or self.load_checkpoint
        if source is not None and not self._asks_for_a_total():
            self.max_num_iterations = read_total_steps(source) or self.max_num_iterations
        total = self.max_num_iterations
        # Replaced, not changed in place: these objects may be those of the registered method.
        model = dataclasses.replace(self.pipeline.model, total_steps=total)  # type: ignore[call-arg]
        self.pipeline = dataclasses.replace(self.pipeline, model=model)
        self.optimizers = {name: _with_total_steps(group, total) for name, group in self.optimizers.items()}

    def _check_name_for_tensorboard(self) -> None:
        folder = str(self.get_base_dir().absolute())
        if "tensorboard" in self.vis and printable(folder) != folder:
            raise UserError(
                f"TensorBoard cannot write to {folder}: the name is not UTF-8. Name the run with --experiment-name, or "
                "choose another --output-dir or --vis."
            )

    def _asks_for_a_total(self) -> bool:
        """Whether max_num_iterations was set by the user or the caller, rather than by the method's preset."""
        # Imported here: that module loads every registered method, this one among them.
        from nerfstudio.configs.method_configs import all_methods

        preset = all_methods.get(self.method_name or "")
        is_default = isinstance(preset, TrainerConfig) and preset.max_num_iterations == self.max_num_iterations
        return not is_default or typed("--max-num-iterations")


class SurfaceSOSTrainer(Trainer):
    """Trainer with atomic checkpoints, exact resume and a clean stop on Ctrl-C and SIGTERM.

    Attributes:
        steps_done: number of training steps the weights have seen, those before a resume included.
    """

    config: SurfaceSOSTrainerConfig
    pipeline: SurfaceSOSPipeline

    def __init__(self, config: SurfaceSOSTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        super().__init__(config, local_rank=local_rank, world_size=world_size)
        self.train_lock = training_lock()
        self.steps_done = 0
        self._random_state: dict[str, Any] | None = None
        self._resumed: tuple[Path, dict[str, Any]] | None = None
        self._losses_missing = False
        self._loss_log = LossLog(self.base_dir / LOSS_FILE, config.logging.steps_per_log)
        self._graphs = graphs_on(self.device)
        self._captured_step: CapturedStep | None = None
        self._stop = StopRequest(self._stop_training)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Build pipeline, optimisers, viewer and callbacks, and load the checkpoint to resume from.

        Raises:
            CheckpointError: there is nothing complete to resume from, or it belongs to another model.
            UserError: the capture cannot be used, or the run's folder not be written to.
            SystemExit: stopped by a signal; the status is 128 + the signal's number, as shells have it.
        """
        if self.world_size == 1:  # else the process that started this one holds it
            self.config.claim_folder()
        # The viewer answers browsers as soon as it is built. Under the lock they wait until the weights are loaded and
        # the callbacks are set up, and no second thread enters the kernels meanwhile.
        try:
            with exit_on_signal(signal.SIGINT, signal.SIGTERM), self.train_lock:
                super().setup(test_mode=test_mode)
        except SystemExit as end:
            by = signal_of_status(end.code)
            if by is not None:
                say(f"Stopped by {by.name} before the first step: nothing to save.")
            raise
        go_on_without_events(say)
        start_log_at(self._start_step)
        how = self._choose_step()
        say(f"{_describe_device(self.device)} | {self.pipeline.describe()}{how}")

    def setup_optimizers(self) -> Optimizers:
        """nerfstudio's optimisers, with the numeric operations that the model has chosen.

        Before them, what the model has to learn is settled: its sizes, which depend on the photos.
        """
        self._resumed = self._checkpoint_to_resume()
        if self._resumed is None:
            self.pipeline.adapt(self.base_dir)
        else:
            self.pipeline.model.take_adaptation(stored_adaptation(self._resumed[1]["pipeline"], SCENE))
        optimizers = super().setup_optimizers()
        for optimizer in optimizers.optimizers.values():
            if isinstance(optimizer, SparseAdam):
                optimizer.ops = self.pipeline.ops
        if self._graphs is not None and self._why_eager() is None:
            make_capturable(optimizers.optimizers.values())
        return optimizers

    def _why_eager(self) -> str | None:
        """Why a training step on a GPU is not captured as a CUDA graph, as far as is known before photos are read."""
        if not self.config.cuda_graph:
            return "--cuda-graph False"
        if self.world_size > 1:
            return "several GPUs"
        if self.mixed_precision:
            return "mixed precision"
        if self.config.log_gradients:
            return "gradients are logged"
        if any(steps > 1 for steps in self.config.gradient_accumulation_steps.values()):
            return "gradients are accumulated over steps"
        return self.pipeline.why_not_static(photos=False)

    def _choose_step(self) -> str:
        """Decide whether the step is captured; returns what to say of it."""
        if self._graphs is None:
            return ""
        warning = self.pipeline.memory_warning()
        if warning is not None:
            say(warning)
        why_not = self._why_eager() or self.pipeline.why_not_static()
        if why_not is not None:
            return f" | each step is launched kernel by kernel ({why_not})"
        self._captured_step = CapturedStep(
            self.pipeline.losses_of_a_step,
            self.optimizers.optimizers.values(),
            self.pipeline.fixed_in_a_step,
            self._graphs,
        )
        return " | the step is captured as a CUDA graph"

    def train(self) -> None:
        """Train up to the run's total number of steps.

        Raises:
            SystemExit: stopped by a signal; the status is 128 + the signal's number, as shells have it.
            UserError: what the run cannot be gone on without could not be written. The message says how to go on.
        """
        total = self.config.max_num_iterations
        if self._start_step >= total:
            say(f"This run has had all of its {total} steps: nothing is left to train.")
        elif self._start_step > 0:
            say(f"Continuing at step {self._start_step} of {total}.")
        if self._random_state is not None:
            restore_random_state(self._random_state)
        if self._start_step == 0:
            self._loss_log.resume(self._loss_log.path, 0)  # of an earlier run in this very folder
        # nerfstudio takes max_num_iterations for the number of steps from here, so it gets what is left of the total.
        whole_run = self.config
        self.config = dataclasses.replace(whole_run, max_num_iterations=max(0, total - self._start_step))
        try:
            # With several processes nerfstudio's launcher handles signals.
            with self._stop.on_signals() if self.world_size == 1 else nullcontext(), writing(self.base_dir):
                super().train()
        except (WriteError, CheckpointError) as error:
            raise WriteError(f"{error} {self._how_to_go_on()}") from error
        finally:
            self.config = whole_run
        if self._stop.signal is not None:
            raise SystemExit(128 + self._stop.signal)

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """One training step; see nerfstudio's Trainer."""
        loss, losses, metrics = self._replayed(step) or super().train_iteration(step)
        self.steps_done = step + 1
        if self.local_rank == 0:
            self._log_losses(step, losses, metrics)
        return loss, losses, metrics

    def _replayed(self, step: int) -> StepResult | None:
        """The step as a CUDA graph; None where it has to be launched kernel by kernel."""
        if self._captured_step is None:
            return None
        try:
            found = self._captured_step()
        except CaptureError as error:
            say(
                f"Warning: the training step could not be captured as a CUDA graph ({error}). It is launched kernel by "
                "kernel from here on, which is slower; --cuda-graph False does so from the start."
            )
            self._captured_step = None
            return None
        for name, scheduler in self.optimizers.schedulers.items():
            scheduler.step()
            if step_check(step, self.config.logging.steps_per_log):  # reading the rate waits for the GPU
                writer.put_scalar(f"learning_rate/{name}", float(scheduler.get_last_lr()[0]), step)
        return found

    def _log_losses(self, step: int, losses: dict[str, Tensor], metrics: dict[str, Tensor]) -> None:
        last = self.steps_done == self.pipeline.model.config.total_steps
        try:
            if self._loss_log.add(step, losses, metrics, last):
                self._losses_missing = False
        except WriteError as error:
            if not self._losses_missing:  # of several in a row the first is said
                say(f"Warning: {error} Training goes on without this record, and tries the next ones.")
            self._losses_missing = True

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Save everything a resumed run needs, atomically. Where that fails amid the run, the next save tries again.

        Args:
            step: ignored; nerfstudio's count is one ahead where training stops early, so the last trained step is
                taken. Before the first step there is nothing to save.

        Raises:
            CheckpointError: it could not be written, and this was the last save.
        """
        del step
        if self.steps_done == 0:
            return
        try:
            self._save()
        except CheckpointError as error:
            if self.training_state == "completed":
                raise
            say(f"Warning: {error} Training goes on; the next save tries again.")

    def _save(self) -> None:
        last_step = self.steps_done - 1
        module = getattr(self.pipeline, "module", self.pipeline)  # unwrapped from distributed training
        state = {
            "step": last_step,
            "pipeline": module.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
            "total_steps": self.pipeline.model.config.total_steps,
            "random": random_state(),
            "average": self.pipeline.average.state_dict(),
        }
        save_checkpoint(self.checkpoint_dir, last_step, state, only_latest=self.config.save_only_latest_checkpoint)

    def _checkpoint_to_resume(self) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint that load_dir or load_checkpoint names, and what it holds; None where neither is given."""
        if self.config.load_dir is not None:
            return find_checkpoint(self.config.load_dir, self.config.load_step, say)
        if self.config.load_checkpoint is not None:
            return self.config.load_checkpoint, read_checkpoint(self.config.load_checkpoint)
        return None

    def _load_checkpoint(self) -> None:
        """Load the checkpoint that load_dir or load_checkpoint names, if any."""
        if self._resumed is None:
            return
        (path, state), self._resumed = self._resumed, None
        self._check_objects(path, stored_objects(state["pipeline"], SCENE))
        try:
            self.pipeline.load_pipeline(state["pipeline"], state["step"])
            self.optimizers.load_optimizers(state["optimizers"])
            self.pipeline.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} does not fit this model: resume with the method and the options it was trained with "
                f"({path.parent.parent / 'config.yml'}). {error}"
            ) from error
        if "schedulers" in state and self.config.load_scheduler:
            self.optimizers.load_schedulers(state["schedulers"])
        if state["scalers"]:  # empty where the run had no use for gradient scaling
            self.grad_scaler.load_state_dict(state["scalers"])
        self.step = state["step"]
        self.steps_done = self._start_step = state["step"] + 1
        self._random_state = state.get("random")
        self._loss_log.resume(path.parent.parent / LOSS_FILE, self._start_step)
        # The masks training starts from: found again, they might differ in the last digits, and it takes a while. And
        # those that took their place.
        for file in path.parent.parent.iterdir():
            kept = file.name.startswith((f"{Path(PRIOR_FILE).stem}.", f"{MASK_FILES}_"))
            if kept and not (self.base_dir / file.name).exists():
                with atomic_file(self.base_dir / file.name) as copy:
                    shutil.copyfile(file, copy)
        say(f"Loaded {path}")

    def _check_objects(self, path: Path, trained: Sequence[str]) -> None:
        """Whether a checkpoint is of the objects that the capture has.

        Raises:
            CheckpointError: it is of others.
        """
        there = self.pipeline.model.object_names
        if tuple(trained) != there:
            words = [", ".join(names) or "one object without a name" for names in (trained, there)]
            raise CheckpointError(
                f"{path} was trained with these objects: {words[0]}; the capture now has: {words[1]}. Resume with the "
                "masks and names that the run was started with."
            )

    def _stop_training(self) -> None:
        self.stop_training = True

    def _update_viewer_state(self, step: int) -> None:
        """Let the viewer draw; called by nerfstudio after each step, outside the lock."""
        if self._stop.signal is not None:
            self.stop_training = True  # nerfstudio's loop looks here; it clears the flag once, when it starts
            return
        super()._update_viewer_state(step)
        let_browsers_draw(self.viewer_state)

    def _after_train(self) -> None:
        """Save the last checkpoint and finish, or say how to resume when stopped by a signal."""
        self.step = max(0, self.steps_done - 1)
        if self._stop.signal is None:
            super()._after_train()
            return
        self.training_state = "completed"
        self.save_checkpoint(self.step)
        writer.write_out_storage()
        stopped = f"Stopped by {self._stop.signal.name}"
        if self.steps_done == 0:
            say(f"{stopped} before the first step: nothing to save.")
        else:
            progress = f"{self.steps_done} of {self.pipeline.model.config.total_steps} steps"
            say(f"{stopped}, saved after {progress}. Resume with: {self._resume_command()}")

    def _train_complete_viewer(self) -> None:
        """Keep the viewer open after the last step, until Ctrl-C."""
        self._stop.release_signals()
        if self._stop.signal is None:  # it may have come while the last checkpoint was written
            with suppress(KeyboardInterrupt):  # nerfstudio says "Use ctrl+c to quit", and means it
                super()._train_complete_viewer()

    def _how_to_go_on(self) -> str:
        """What to do after a run has ended with an error of the disk."""
        saved = list_checkpoints(self.checkpoint_dir)
        if not saved:
            return "No step of this run is saved. Make room, then start it again."
        step = int(saved[0].stem.removeprefix("step-"))
        return f"The run is saved up to step {step}. Make room, then go on from there: {self._resume_command()}"

    def _resume_command(self) -> str:
        """The command line that continues this run."""
        data = self.config.data or self.config.pipeline.datamanager.data
        # A config that is loaded would override --load-dir.
        repeat = self.config.load_config is None
        return resume_command(str(self.config.method_name), self.checkpoint_dir, data, repeat)


def _with_total_steps(group: dict[str, Any], total: int) -> dict[str, Any]:
    """A param group's configs with the length of the run in its schedule, where the schedule asks for it."""
    schedule = group["scheduler"]
    if not hasattr(schedule, "total_steps"):
        return group
    return {**group, "scheduler": dataclasses.replace(schedule, total_steps=total)}


def _describe_device(device: str) -> str:
    """For example "cpu" or "cuda:0 (NVIDIA H200)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device
