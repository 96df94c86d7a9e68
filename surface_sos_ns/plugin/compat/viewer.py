"""Access control and robustness of nerfstudio's viewer: applies all changes to it together.

`surface_sos_ns.web` guards the server itself, which is viser's. The changes to what nerfstudio adds to it are one file
each; a viewer with some of them alone would be no safer.
"""

from __future__ import annotations

from surface_sos_ns.plugin.compat.closed_browsers import stop_drawing_for_closed_browsers
from surface_sos_ns.plugin.compat.older_viewer import refuse_older_viewer
from surface_sos_ns.plugin.compat.quoted_paths import quote_paths_in_commands
from surface_sos_ns.plugin.compat.render_errors import go_on_after_failed_pictures
from surface_sos_ns.plugin.compat.viewer_address import listen_where_asked
from surface_sos_ns.plugin.compat.viewer_cameras import draw_windows_of_any_shape
from surface_sos_ns.web.guard import guard_viser

__all__ = ["guard_viewer"]


def guard_viewer() -> None:
    """Guard the viewers that are started in this process from now on. Calling it again changes nothing."""
    guard_viser()
    listen_where_asked()
    draw_windows_of_any_shape()
    stop_drawing_for_closed_browsers()
    go_on_after_failed_pictures()
    quote_paths_in_commands()
    refuse_older_viewer()
