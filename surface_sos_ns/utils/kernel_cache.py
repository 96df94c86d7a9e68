"""numba's cache of compiled kernels where it cannot be written."""

from __future__ import annotations

import functools
import sys

from surface_sos_ns.utils.text import printable

__all__ = ["allow_unwritable_cache"]


@functools.cache
def allow_unwritable_cache() -> None:
    """Lets kernels run that were compiled but cannot be written to numba's cache; a line says so, once a folder.

    numba raises the OSError of writing (full disk, quota, limited file size) instead, although the kernel is ready. To
    be called before kernels are defined, since some compile at import. Does nothing where numba is not installed.
    """
    try:
        from numba.core.caching import Cache
    except ImportError:
        return
    save_overload = Cache.save_overload
    told: set[str] = set()

    @functools.wraps(save_overload)
    def save_if_possible(self, sig, data):  # type: ignore[no-untyped-def]
        try:
            save_overload(self, sig, data)
        except OSError as error:
            if self.cache_path not in told:
                told.add(self.cache_path)
                words = f"compiled kernels cannot be kept in {self.cache_path}: {error.strerror or error}"
                print(printable(f"Warning: {words}. They work; the next start compiles them again."), file=sys.stderr)

    Cache.save_overload = save_if_possible  # type: ignore[method-assign]
