"""Imports pycolmap, and restores the SIGTERM handler that it replaces by one that prints a C++ stack trace.

    from surface_sos_ns.utils.colmap import pycolmap

Raises:
    ImportError: pycolmap is not installed.
"""

from __future__ import annotations

import signal
import threading

import pycolmap

__all__ = ["pycolmap"]

_handler = signal.getsignal(signal.SIGTERM)
if _handler is not None and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _handler)
