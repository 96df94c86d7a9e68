"""nerfstudio's viewer listens at every address of the machine, so that everybody on the network can use it.

It also prints a link that does not work from another machine, and hangs where it cannot listen at the host it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.viewer.viewer import Viewer

from surface_sos_ns.plugin.command_line import typed
from surface_sos_ns.plugin.compat.older_viewer import OLDER_VIEWER
from surface_sos_ns.plugin.compat.patching import patch
from surface_sos_ns.plugin.console import say
from surface_sos_ns.web.guard import allow_host, port_of
from surface_sos_ns.web.listening import LOOPBACK, address, listen_problem, reachability_notes

__all__ = ["listen_where_asked", "why_no_viewer"]

HOST_OPTION = "--viewer.websocket-host"


def listen_where_asked() -> None:
    """From here on viewers listen at this machine's loopback address unless the user named another one."""
    patch(Viewer, "__init__", _listening_where_asked)


def why_no_viewer(vis: str, config: ViewerConfig) -> str | None:
    """Why a viewer that was asked for cannot be started; None where it can.

    Args:
        vis: nerfstudio's option of that name.
        config: of the viewer.
    """
    if vis == "viewer_legacy":
        return OLDER_VIEWER
    if not vis.startswith("viewer"):
        return None
    why_not = listen_problem(config.websocket_host)
    return None if why_not is None else f"{HOST_OPTION}: {why_not}"


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
    """A warning about the public address of --viewer.make-share-url, whose host name is allowed from here on."""
    tunnel = viewer.viser_server._share_tunnel
    url = None if tunnel is None else tunnel.get_url()
    if url is None:
        return []
    allow_host(url)
    viewer.viewer_info = [f"{viewer.viewer_info[0]} or {url}"]
    return [f"Warning: whoever has the address {url} can use this page, from anywhere."]
