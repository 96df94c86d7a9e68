"""Peak and available main memory of a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["free_gb", "peak_gb"]


def peak_gb(usage: Any = None) -> float | None:
    """Peak resident memory in GB (10^9 bytes); None if the system does not provide it.

    Args:
        usage: resource usage of a process that has ended (`os.wait4`); None is this process. On Linux the former is at
            least what the process that started it had then.
    """
    if usage is None:
        status = Path("/proc/self/status")
        if status.is_file():  # Linux: unlike the resource usage, it begins with this program
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024 / 1e9
        if resource is None:
            return None
        usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def free_gb() -> float:
    """Main memory available to this process, in GB (10^9 bytes).

    The least of what the machine, its control groups (containers) and the address-space limit (`ulimit -v`) leave. The
    page cache counts as free.
    """
    import psutil

    left = [psutil.virtual_memory().available, *_left_in_cgroups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))]
    if resource is not None:
        process = psutil.Process().memory_info()
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            left.append(limit - process.vms)
    return max(0, min(left)) / 1e9


def _left_in_cgroups(root: Path, membership: Path) -> Iterator[int]:
    """Bytes left in each control group (Linux) of this process, and its parents, that has a memory limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            names = ("memory.max", "memory.current", "inactive_file")
            top = root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "memory"
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder != top and top not in folder.parents:
                break
            try:
                limit, used = (int((folder / name).read_text()) for name in names[:2])
                statistics = dict(words.split() for words in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # the group is outside of this container, or has no limit ("max")
                continue
            yield limit - used + int(statistics.get(names[2], 0))
