"""Number of processor cores for this process, and of threads in other libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["allowed_cores", "numba_threads", "usable_cores"]


def allowed_cores() -> int:
    """Cores in the process's affinity mask; those of the machine where a system has none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """`allowed_cores`, at most OMP_NUM_THREADS if that is set: how many threads one command takes."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(allowed_cores(), int(limit))) if limit.isdigit() else allowed_cores()


@contextmanager
def numba_threads() -> Iterator[None]:
    """For calls into a library whose loops numba runs in parallel, the import of it included.

    Its loops run on `usable_cores` threads. And torch keeps its own number of threads: numba starts its threads through
    the OpenMP library that torch works with, which sets both to all cores. From then on torch would open a team of
    threads for each small operation, and they wait for each other by spinning: three times the time of everything that
    comes after on cores that others use as well.
    """
    import numba
    import torch

    before = torch.get_num_threads()
    try:
        numba.set_num_threads(min(usable_cores(), numba.get_num_threads()))  # NUMBA_NUM_THREADS at most
        yield
    finally:
        torch.set_num_threads(before)
