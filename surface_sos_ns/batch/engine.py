"""Ray, which places the stages on machines, and begins those again whose process or machine was lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.settings import BatchSettings, StageName
from surface_sos_ns.batch.stage_run import Result, run_stage
from surface_sos_ns.batch.stages import Stage
from surface_sos_ns.utils.cores import allowed_cores, usable_cores
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.web.listening import LOOPBACK

__all__ = ["Engine", "Lost", "engine"]

STARTS = 3
"""How often Ray is started on this machine before it is given up."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
"""Options of Ray: its messages go to its own log files."""
MOST_CPUS = 4
"""Cores a capture, unless another number is asked for: more help little on small pictures."""


class Lost(Exception):
    """A stage's process died more often than it is begun again; the message is Ray's."""


class Engine:
    """Stages in progress.

    Args:
        ray: the module.
        settings: of the batch.
        dashboard: host and port of Ray's own page; empty where there is none.
    """

    def __init__(self, ray: Any, settings: BatchSettings, dashboard: str = ""):
        self._ray, self._settings, self.dashboard = ray, settings, dashboard
        self.has_gpu = self._total("GPU") > 0
        self.cpus = settings.cpus or max(1, min(MOST_CPUS, usable_cores()))
        self.gpus = settings.gpus if settings.gpus is not None else float(self.has_gpu)
        if self.cpus > self._largest("CPU"):
            raise BatchError(f"--cpus {self.cpus}: the largest machine has {self._largest('CPU'):.0f} cores.")
        if self.gpus > self._largest("GPU"):
            raise BatchError(f"--gpus {self.gpus:g}: the machine with most has {self._largest('GPU'):.0f}.")
        self._task = ray.remote(run_stage)

    def slots(self) -> int:
        """How many captures are worked on at a time: as many as fit, and some whose next stage needs another device."""
        by_cores = int(self._total("CPU") // self.cpus)
        by_gpus = int(self._total("GPU") // self.gpus) if self.gpus else 0
        return max(1, by_cores + min(by_gpus, by_cores))

    def submit(self, job: Job, stage: Stage, before: Result | None, again: tuple[StageName, str] | None) -> Any:
        """Hands a stage to Ray; returns its reference."""
        task = self._task.options(
            name=f"{job.name}: {stage.name}",
            num_cpus=self.cpus,
            num_gpus=self.gpus if stage.on_device else 0,
            max_retries=self._settings.retries,
        )
        return task.remote(job, stage.name, before, self.cpus, self._settings.storage, again)

    def wait(self, references: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the references that are done, after so many seconds at the most."""
        return list(self._ray.wait(list(references), num_returns=1, timeout=seconds)[0])

    def result(self, reference: Any) -> Result:
        """Of a stage that is done.

        Raises:
            Lost: its process died each time.
        """
        try:
            found: Result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError as error:
            raise Lost(str(error).strip().splitlines()[0]) from error
        return found

    def _total(self, kind: str) -> float:
        return float(self._ray.cluster_resources().get(kind, 0))

    def _largest(self, kind: str) -> float:
        """Of one machine of those that are there."""
        return max((node["Resources"].get(kind, 0.0) for node in self._ray.nodes() if node["Alive"]), default=0.0)


@contextmanager
def engine(settings: BatchSettings) -> Iterator[Engine]:
    """Joins a cluster, or starts Ray on this machine alone until the end of the context.

    Raises:
        BatchError: the cluster does not answer, or no machine in it is large enough.
        MissingPackageError: Ray is not installed.
    """
    require_package("ray", "surface-sos batch")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    if settings.address is None:
        # Ray's own switch for machines that are no part of a cluster: with 0, Ray accepts a loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # other users of this machine reach 127.0.0.1 too
    import ray

    try:
        context = _started(ray, settings) if settings.address is None else ray.init(address=settings.address, **QUIET)
    except Exception as error:  # Ray raises plain ones, too
        where = "Ray did not start" if settings.address is None else f"No Ray cluster answers at {settings.address}"
        advice = "Is the machine very busy, or its disk full? Try again." if settings.address is None else ""
        raise BatchError(f"{where}: {' '.join(str(error).split())} {advice}".rstrip()) from error
    try:
        yield Engine(ray, settings, context.dashboard_url or "")
    finally:
        ray.shutdown()


def _started(ray: Any, settings: BatchSettings) -> Any:
    """Ray's context, on this machine alone. Ray gives its start 30 s, too few on a busy machine: hence `STARTS`."""

    def start() -> Any:
        return ray.init(
            address="local",
            _node_ip_address=LOOPBACK,
            dashboard_host=LOOPBACK,
            include_dashboard=settings.dashboard,
            num_cpus=allowed_cores(),  # OMP_NUM_THREADS is of one capture's commands, see `cpus`
            **QUIET,
        )

    for _ in range(STARTS - 1):
        try:
            return start()
        except Exception:
            ray.shutdown()
    return start()
