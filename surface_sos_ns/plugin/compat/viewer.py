"""nerfstudio's viewer, opened to nobody who was not asked in, and not to be brought down from a browser.

`surface_sos_ns.web` guards the server itself, which is viser's. Here is what nerfstudio adds to it: where it listens,
a thread that draws for each browser, names and commands made of what is typed, and an older viewer.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.viewer import viewer as viewer_module
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_state import ViewerLegacyState

from surface_sos_ns.plugin.command_line import typed
from surface_sos_ns.plugin.console import say
from surface_sos_ns.utils.text import printable
from surface_sos_ns.web.guard import allow_host, guard_viser, port_of
from surface_sos_ns.web.listening import LOOPBACK, address, listen_problem, reachability_notes
from surface_sos_ns.web.messages import clamped_camera, sanitised_path

if TYPE_CHECKING:
    from nerfstudio.viewer.utils import CameraState

__all__ = ["guard_viewer", "why_no_viewer"]

HOST_OPTION = "--viewer.websocket-host"
OLDER_VIEWER = (
    "--vis viewer_legacy is not possible: that viewer is a page on the internet that connects to this machine, and "
    "writes files where a message says. Use --vis viewer, which needs no internet."
)


def guard_viewer() -> None:
    """Guard the viewers that are started in this process from now on. Calling it again does nothing."""
    if hasattr(Viewer, "guarded"):
        return
    guard_viser()
    Viewer.guarded = True  # type: ignore[attr-defined]
    Viewer.__init__ = _listening_where_asked(Viewer.__init__)  # type: ignore[method-assign]
    Viewer.get_camera_state = _drawable_cameras(Viewer.get_camera_state)  # type: ignore[method-assign]
    Viewer.handle_disconnect = _stopping(Viewer.handle_disconnect)  # type: ignore[method-assign]
    RenderStateMachine.run = _going_on(RenderStateMachine.run)  # type: ignore[method-assign]
    viewer_module.populate_render_tab = _with_quoted_paths(viewer_module.populate_render_tab)
    viewer_module.populate_export_tab = _with_quoted_paths(viewer_module.populate_export_tab)
    ViewerLegacyState.__init__ = _refuse_older_viewer  # type: ignore[method-assign]


def why_no_viewer(vis: str, config: ViewerConfig) -> str | None:
    """Why a viewer that was asked for cannot be started; None where it can."""
    if vis == "viewer_legacy":
        return OLDER_VIEWER
    if not vis.startswith("viewer"):
        return None
    why_not = listen_problem(config.websocket_host)
    return None if why_not is None else f"{HOST_OPTION}: {why_not}"


# ------------------------------------------------------------------ where it listens


def _listening_where_asked(build: Callable[..., None]) -> Callable[..., None]:
    def __init__(
        self: Viewer,
        config: ViewerConfig,
        log_filename: Path,
        datapath: Path,
        pipeline: Any,
        trainer: Any = None,
        train_lock: Any = None,
        share: bool = False,
    ) -> None:
        # Training takes the host of its method's settings. ns-viewer takes nerfstudio's own, which lets everybody in,
        # and nothing but the command line tells whether the user asked for that.
        if trainer is None and config.websocket_host == ViewerConfig().websocket_host and not typed(HOST_OPTION):
            config.websocket_host = LOOPBACK
        why_not = why_no_viewer("viewer", config)
        if why_not is not None:
            raise SystemExit(why_not)
        build(self, config, log_filename, datapath, pipeline, trainer, train_lock, share)
        host, port = config.websocket_host, port_of(self.viser_server)
        self.viewer_info = [f"Viewer: {address(host, port)}"]
        for line in [*self.viewer_info, *reachability_notes(host, port), *_shared(self)]:
            say(line)

    return __init__


def _shared(viewer: Viewer) -> list[str]:
    """What to say of the address on the internet that --viewer.make-share-url got, and let it in."""
    tunnel = viewer.viser_server._share_tunnel
    url = None if tunnel is None else tunnel.get_url()
    if url is None:
        return []
    allow_host(url)
    viewer.viewer_info = [f"{viewer.viewer_info[0]} or {url}"]
    return [f"Warning: whoever has the address {url} can use this page, from anywhere."]


# ------------------------------------------------------------------ what is drawn


def _drawable_cameras(read: Callable[..., CameraState]) -> Callable[..., CameraState]:
    """Of windows that are a line, and of camera paths from files, pictures had no pixels or too many."""

    def get_camera_state(self: Viewer, client: Any) -> CameraState:
        state = read(self, client)
        state.fov, state.aspect = clamped_camera(state.fov, state.aspect)
        return state

    return get_camera_state


def _going_on(run: Callable[..., None]) -> Callable[..., None]:
    """A picture that fails is not the last one: the thread that draws for a browser goes on."""

    def run_on(self: RenderStateMachine) -> None:
        said = ""
        while self.running:
            try:
                run(self)
            except Exception as error:
                words = f"The viewer could not draw a picture ({type(error).__name__}: {error})."
                if words != said:
                    say(words)
                said = words
                time.sleep(0.5)

    return run_on


def _stopping(disconnect: Callable[..., None]) -> Callable[..., None]:
    """A picture for a browser that has gone is not finished: those that are there would wait for it."""

    def handle_disconnect(self: Viewer, client: Any) -> None:
        self.render_statemachines[client.client_id].interrupt_render_flag = True
        disconnect(self, client)

    return handle_disconnect


# ------------------------------------------------------------------ commands in the panel


class _QuotedPath(type(Path())):  # type: ignore[misc]
    """A path that stands in a command as one word, whatever it is called."""

    def __format__(self, _: str) -> str:
        return shlex.quote(printable(str(self)))


class _QuotedFolder(_QuotedPath):
    """One whose name becomes part of another path in a command."""

    @property
    def name(self) -> str:
        return sanitised_path(super().name)

    def __truediv__(self, name: Any) -> _QuotedPath:
        return _QuotedPath(str(self)) / name


def _with_quoted_paths(populate: Callable[..., Any]) -> Callable[..., Any]:
    """The render and export tabs put the run's and the capture's paths into commands as they are."""

    def populate_tab(*arguments: Any, **options: Any) -> Any:
        return populate(*map(_quoted, arguments), **{name: _quoted(value) for name, value in options.items()})

    return populate_tab


def _quoted(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    return _QuotedFolder(value) if value.is_dir() else _QuotedPath(value)


# ------------------------------------------------------------------ the older viewer


def _refuse_older_viewer(self: ViewerLegacyState, *arguments: Any, **options: Any) -> None:
    raise SystemExit(OLDER_VIEWER)
