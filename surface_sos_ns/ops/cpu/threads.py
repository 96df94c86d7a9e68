"""Kernels on a pool of Python threads.

Kernels release the GIL, so threads of a Python pool run them in parallel. Compared with numba's OpenMP layer, workers
do not spin while they wait (on busy cores this costs several times the work itself), two threads of the program may
enter at once (training and the viewer do; OpenMP would abort), and kernels compile in a third of the time.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_PIECES_PER_THREAD = 4  # more than one, for load balance

_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal

_threads = torch.get_num_threads()  # follows OMP_NUM_THREADS; read before `claim_cores` changes it
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def thread_count() -> int:
    """Number of threads that kernels use."""
    return _threads


def set_thread_count(count: int) -> None:
    """Set the number of threads that kernels use. The default is torch's: OMP_NUM_THREADS, or the number of cores.

    Raises:
        ValueError: less than one.
    """
    global _threads, _pool
    if count < 1:
        raise ValueError(f"at least one thread is needed, got {count}")
    with _pool_lock:
        _threads, old, _pool = count, _pool, None
    if old is not None:
        old.shutdown(wait=False)


def claim_cores() -> None:
    """Set up this process for the kernels. May be called again.

    Torch's own operations are set to one thread: its idle workers would spin on the kernels' cores. And freed memory
    is not returned to the system: every step allocates the same large arrays, and a page fault for each of their pages
    would take a fifth of the time of a step on a table of 2^17 entries.
    """
    torch.set_num_threads(1)
    _keep_freed_memory()


@functools.cache
def _keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc only
        most = (1 << 31) - 1
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, most)


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=max(1, _threads - 1), thread_name_prefix="surface-sos")
        return _pool


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork, and the lock may be held


def _flushes_denormals() -> bool:
    """Whether this thread flushes denormal numbers to zero, a setting of each thread."""
    return bool(_SMALLEST_NORMAL / np.float32(2) == 0)


def parallel(kernel: Callable[..., Any], count: int, *arguments: Any, grain: int = 1) -> None:
    """Run `kernel(first, last, *arguments)` on pieces of range(count); returns when all are done.

    Helper threads handle denormal numbers as the calling thread does: results do not depend on which thread computes a
    piece.

    Args:
        kernel: compiled with nogil=True; pieces must not write to the same memory.
        count: number of items.
        arguments: passed to the kernel.
        grain: least number of items per piece.
    """
    pieces = min(_threads * _PIECES_PER_THREAD if _threads > 1 else 1, max(1, count // max(1, grain)))
    if pieces == 1:
        kernel(0, count, *arguments)
        return
    bounds = [count * i // pieces for i in range(pieces + 1)]
    pending = iter(list(itertools.pairwise(bounds)))  # shared by all threads: taking the next piece is atomic
    flush = _flushes_denormals()

    def work() -> None:
        for first, last in pending:
            kernel(first, last, *arguments)

    def help_out() -> None:
        torch.set_flush_denormal(flush)
        work()

    helpers = [_workers().submit(help_out) for _ in range(min(_threads, pieces) - 1)]
    try:
        work()
    finally:
        wait(helpers)  # they write to the arguments
    for helper in helpers:
        helper.result()
