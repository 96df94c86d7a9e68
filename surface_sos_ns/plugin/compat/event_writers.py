"""nerfstudio writes TensorBoard's events between two steps and catches nothing: a full disk ends the training.

Once TensorBoard's own thread has failed to write, each further event raises that error again. Events are not needed to
train, so they are given up instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from nerfstudio.utils import writer

from surface_sos_ns.plugin.compat.patching import patch

__all__ = ["go_on_without_events"]


class _Forgiving(writer.Writer):
    """A writer that gives up at its first error of the file system."""

    def __init__(self, inner: writer.Writer, say: Callable[[str], None]) -> None:
        self.inner, self._say, self._failed = inner, say, False

    def write_image(self, *arguments: Any) -> None:  # type: ignore[override]
        self._try(self.inner.write_image, arguments)

    def write_scalar(self, *arguments: Any) -> None:  # type: ignore[override]
        self._try(self.inner.write_scalar, arguments)

    def write_config(self, *arguments: Any) -> None:
        self._try(self.inner.write_config, arguments)  # type: ignore[attr-defined]

    def _try(self, write: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            write(*arguments)
        except OSError as error:
            self._failed = True
            self._say(f"Warning: TensorBoard's events are not written any more ({error}). Training goes on.")


def go_on_without_events(say: Callable[[str], None]) -> None:
    """Make the writers that are set up give up instead of ending the training; `say` is told once.

    The traceback of TensorBoard's own thread is not printed: the main thread says the same in a sentence.
    """
    writer.EVENT_WRITERS[:] = [
        _Forgiving(one, say) if isinstance(one, writer.TensorboardWriter) else one for one in writer.EVENT_WRITERS
    ]
    patch(threading, "excepthook", _without_tensorboard)


def _without_tensorboard(show: Callable[..., Any]) -> Callable[..., None]:
    def show_others(failure: threading.ExceptHookArgs) -> None:
        of_tensorboard = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
            show(failure)

    return show_others
