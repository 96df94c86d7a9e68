"""Canaries: what nerfstudio's viewer does where the plugin does not change it; each names the file that does.

What the changes make of it is tested with the guard of the viewer.
"""

from __future__ import annotations

import inspect
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.scripts.viewer.run_viewer import RunViewer
from nerfstudio.viewer import export_panel
from nerfstudio.viewer import viewer as viewer_module
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException, SetTrace, get_viewer_url

from surface_sos_ns.plugin.compat.patching import unpatched


def test_it_still_listens_everywhere() -> None:
    """`viewer_address.py`"""
    ns_viewer: Any = RunViewer(None)  # type: ignore[arg-type]
    assert ViewerConfig().websocket_host == ns_viewer.viewer.websocket_host == "0.0.0.0"


def test_its_older_version_is_still_a_page_on_the_internet() -> None:
    """`older_viewer.py`"""
    assert get_viewer_url(7007).startswith("https://viewer.nerf.studio/")


def test_a_window_that_is_a_line_still_has_no_pixels() -> None:
    """`viewer_cameras.py`"""
    viewer: Any = SimpleNamespace(control_panel=SimpleNamespace(max_res=512))
    machine = RenderStateMachine(viewer, 10.0, None)  # type: ignore[arg-type]
    machine.state = "high"
    assert 0 in machine._calculate_image_res(3000.0)


def test_a_picture_that_fails_still_ends_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """`render_errors.py`"""
    monkeypatch.setattr(threading, "excepthook", lambda failure: None)
    viewer: Any = SimpleNamespace(ready=True)
    machine = RenderStateMachine(viewer, 10.0, None)  # type: ignore[arg-type]
    machine._render_img = lambda camera_state: {}["rgb"]  # type: ignore[method-assign]
    thread = threading.Thread(target=unpatched(RenderStateMachine.run), args=(machine,), daemon=True)
    thread.start()
    machine.action(RenderAction("move", None))  # type: ignore[arg-type]
    thread.join(60)
    assert not thread.is_alive()


def test_it_still_goes_on_drawing_for_a_browser_that_is_closed() -> None:
    """`closed_browsers.py`"""
    machine = SimpleNamespace(running=True, interrupt_render_flag=False)
    viewer = SimpleNamespace(render_statemachines={1: machine})
    unpatched(Viewer.handle_disconnect)(viewer, SimpleNamespace(client_id=1))
    assert not machine.running and not machine.interrupt_render_flag


def test_its_commands_still_hold_paths_as_they_are() -> None:
    """`quoted_paths.py`"""
    render_tab = inspect.getsource(unpatched(viewer_module.populate_render_tab))
    for tab in (render_tab, inspect.getsource(export_panel.populate_mesh_tab)):
        assert "--load-config {config_path}" in tab
    assert 'f"{render_name_text.value}.json"' in render_tab


def test_a_move_of_the_camera_still_breaks_off_at_any_line() -> None:
    """`plugin/viewer/rendering.py`: among the lines is the end of a block that holds a lock, which then stays held."""
    machine = RenderStateMachine(SimpleNamespace(), 10.0, None)  # type: ignore[arg-type]
    lock = threading.Lock()

    def render() -> None:
        with lock:
            machine.interrupt_render_flag = True

    before = sys.gettrace()
    try:
        with pytest.raises(IOChangeException), SetTrace(machine.check_interrupt):
            render()
    finally:
        sys.settrace(before)
    assert lock.locked()
