"""pycolmap, without what it does to the process: once imported, it answers SIGTERM with a C++ stack.

    from surface_sos_ns.utils.colmap import pycolmap

Raises:
    ImportError: it is not installed.
"""

from __future__ import annotations

import signal
import threading

import pycolmap

__all__ = ["pycolmap"]

_handler = signal.getsignal(signal.SIGTERM)
if _handler is not None and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _handler)
