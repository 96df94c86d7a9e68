"""nerfstudio's viewer of our model: where it listens, whom it tells, what it draws; and its page in a real browser."""

from __future__ import annotations

import dataclasses
import http.server
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import viser
import websockets.sync.server
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_state import ViewerLegacyState

from surface_sos_ns.plugin.compat.viewer import guard_viewer
from surface_sos_ns.plugin.viewer.controls import MAX_SIDE, picture_size
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.web.guard import MAX_BROWSERS, port_of
from tests.helpers.attacker import UPGRADE, Client, request, wait_until
from tests.helpers.browser import chromium

Build = Callable[..., Viewer]


@pytest.fixture(scope="module")
def build(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Starts viewers of a small model, as ns-viewer does where no trainer is given."""
    guard_viewer()
    viewers: list[Viewer] = []

    def start(config: ViewerConfig | None = None, **options: Any) -> Viewer:
        folder, lock = tmp_path_factory.mktemp("viewer"), threading.RLock()
        pipeline: Any = SimpleNamespace(model=model, datamanager=SimpleNamespace(includes_time=False))
        config = config or ViewerConfig(websocket_port_default=0)
        viewers.append(Viewer(config, folder / "viewer.log", folder, pipeline, train_lock=lock, **options))  # type: ignore[arg-type]
        return viewers[-1]

    yield start
    for viewer in viewers:
        viewer.viser_server.stop()


@pytest.fixture(scope="module")
def viewer(build: Build) -> Viewer:
    """One for all tests that change nothing of it."""
    return build()


@pytest.fixture
def port(viewer: Viewer) -> int:
    return port_of(viewer.viser_server)


# ------------------------------------------------------------------ where it listens


def test_our_methods_listen_to_this_machine_alone() -> None:
    for method in ("surface-sos", "surface-sos-lite", "surface-sos-paper", "nerf-sos", "nerf-sos-lite"):
        assert all_methods[method].viewer.websocket_host == "127.0.0.1"


@pytest.mark.seconds(5)
def test_ns_viewer_does_too_unless_another_host_is_typed(build: Build, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["ns-viewer", "--load-config", "config.yml"])
    viewer = build()
    assert viewer.viser_server.get_host() == "127.0.0.1"
    said = capsys.readouterr().out
    assert (
        f"http://127.0.0.1:{port_of(viewer.viser_server)}" in said
        and f"ssh -L {port_of(viewer.viser_server)}:localhost" in said
    )
    assert "Warning" not in said and viewer.viewer_info == [f"Viewer: http://127.0.0.1:{port_of(viewer.viser_server)}"]
    for typed in (["--viewer.websocket-host", "0.0.0.0"], ["--viewer.websocket_host=0.0.0.0"]):
        monkeypatch.setattr(sys, "argv", ["ns-viewer", *typed])
        viewer = build()
        assert viewer.viser_server.get_host() == "0.0.0.0"
        lines = [line for line in capsys.readouterr().out.splitlines() if "Warning" in line]
        port = port_of(viewer.viser_server)
        assert len(lines) == 1 and str(port) in lines[0]
        assert viewer.viewer_info == [f"Viewer: http://localhost:{port}"]


@pytest.mark.seconds(2)
def test_training_takes_the_host_of_its_settings(build: Build, capsys: Any) -> None:
    trainer = SimpleNamespace(training_state="training")
    viewer = build(ViewerConfig(websocket_port_default=0, websocket_host="0.0.0.0"), trainer=trainer)
    assert viewer.viser_server.get_host() == "0.0.0.0" and "Warning" in capsys.readouterr().out


@pytest.mark.seconds(3)
def test_the_port_that_is_said_is_the_one_that_is_open(build: Build, capsys: Any) -> None:
    first = build()
    second = build(ViewerConfig(websocket_port=port_of(first.viser_server)))
    assert port_of(second.viser_server) != port_of(first.viser_server)
    assert f"http://127.0.0.1:{port_of(second.viser_server)}" in capsys.readouterr().out
    assert request(port_of(second.viser_server), b"/")[0] == 200


def test_a_host_that_is_not_this_machines_is_told_and_does_not_hang(build: Build) -> None:
    with pytest.raises(SystemExit, match=r"--viewer.websocket-host: No page can be served at 192.0.2.1 .*expected"):
        build(ViewerConfig(websocket_host="192.0.2.1"))
    method = all_methods["surface-sos-lite"]
    config = dataclasses.replace(method, viewer=ViewerConfig(websocket_host="192.0.2.1"))
    with pytest.raises(UserError, match="No page can be served at 192.0.2.1"):
        config.setup()


def test_the_older_viewer_is_refused(build: Build) -> None:
    with pytest.raises(UserError, match="viewer_legacy is not possible.*Use --vis viewer"):
        dataclasses.replace(all_methods["surface-sos-lite"], vis="viewer_legacy").setup()
    with pytest.raises(SystemExit, match="Use --vis viewer"):
        ViewerLegacyState(ViewerConfig(), Path("viewer.log"), Path(), SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.seconds(3)
def test_an_address_on_the_internet_is_only_what_the_user_asks_for(
    build: Build, port: int, monkeypatch: Any, capsys: Any
) -> None:
    address = "https://abc.share.viser.studio"
    asked: list[Any] = []

    def share(self: viser.ViserServer) -> str:
        asked.append(self)
        self._share_tunnel = SimpleNamespace(get_url=lambda: address, close=lambda: None)
        return address

    monkeypatch.setattr(viser.ViserServer, "request_share_url", share)
    name = b"abc.share.viser.studio"
    client = Client(port)
    client.control("Mask threshold")
    client.send({"type": "ShareUrlRequest"})
    client.wait_for_picture()
    assert not asked and request(port, b"/", host=name)[0] == 403
    assert {m["show_share_button"] for m in client.said if m["type"] == "ThemeConfigurationMessage"} == {False}
    client.close()
    monkeypatch.setattr("surface_sos_ns.web.guard._allowed_hosts", set())
    capsys.readouterr()
    shared = build(share=True)
    assert len(asked) == 1 and address in shared.viewer_info[0]
    assert f"Warning: whoever has the address {address}" in capsys.readouterr().out
    assert request(port_of(shared.viser_server), b"/", host=name)[0] == 200
    assert request(port_of(shared.viser_server), b"/", *UPGRADE, b"Origin: " + address.encode(), host=name)[0] == 101
    assert request(port_of(shared.viser_server), b"/", host=b"other.share.viser.studio")[0] == 403


# ------------------------------------------------------------------ what it draws


@pytest.mark.parametrize(
    ("height", "aspect", "expected"),
    [
        *((720, 16 / 9, (720, 1280)), (1, 1.0, (16, 16)), (10**9, 1.0, (MAX_SIDE, MAX_SIDE))),
        *(
            (MAX_SIDE, 2.0, (MAX_SIDE // 2, MAX_SIDE)),
            (MAX_SIDE, 0.5, (MAX_SIDE, MAX_SIDE // 2)),
            (720, 10.0, (410, 4096)),
        ),
        *((MAX_SIDE, 3000.0, (1, MAX_SIDE)), (720, 1 / 3000, (720, 1))),
    ],
)
def test_exported_pictures_are_capped_on_both_sides(height: int, aspect: float, expected: tuple[int, int]) -> None:
    assert picture_size(height, aspect) == expected


def test_a_picture_that_fails_is_not_the_last(capsys: Any) -> None:
    guard_viewer()
    drawn: list[Any] = []
    machine = RenderStateMachine(SimpleNamespace(ready=True), 10.0, None)  # type: ignore[arg-type]

    def draw(state: Any) -> dict[str, Any]:
        drawn.append(state)
        if len(drawn) < 4:
            raise KeyError("rgb")
        machine.running = False
        return {}

    machine._render_img = draw  # type: ignore[method-assign, assignment]
    machine._send_output_to_viewer = lambda outputs, static_render: None  # type: ignore[method-assign, assignment]
    machine.start()
    while machine.is_alive():
        machine.action(RenderAction("move", None))  # type: ignore[arg-type]
        time.sleep(0.05)
    assert len(drawn) == 4
    assert capsys.readouterr().out.count("could not draw a picture (KeyError: 'rgb')") == 1, "said once"


def test_a_browser_that_has_gone_keeps_nobody_waiting() -> None:
    guard_viewer()
    machine = SimpleNamespace(running=True, interrupt_render_flag=False)
    machines = {1: machine, 2: SimpleNamespace(running=True, interrupt_render_flag=False)}
    Viewer.handle_disconnect(SimpleNamespace(render_statemachines=machines), SimpleNamespace(client_id=1))  # type: ignore[arg-type]
    assert machine.interrupt_render_flag and not machine.running, "its picture is not finished"
    assert list(machines) == [2] and not machines[2].interrupt_render_flag


@pytest.mark.seconds(2)
def test_only_so_many_browsers_at_a_time(port: int) -> None:
    clients = [Client(port, camera=None) for _ in range(MAX_BROWSERS)]
    status, content = request(port, b"/", *UPGRADE)
    assert status == 503 and f"{MAX_BROWSERS} browsers".encode() in content
    clients.pop().close()
    wait_until(lambda: request(port, b"/", *UPGRADE)[0] == 101, "a free place")
    for client in clients:
        client.close()


def test_typed_names_are_shown_as_what_became_of_them(port: int) -> None:
    client, other = Client(port), Client(port)
    identity = client.control("Render name")
    other.control("Render name")
    client.set("Render name", "../my $(name)")
    for each in (client, other):
        wait_until(
            lambda each=each: each.was_sent("GuiUpdateMessage", id=identity, updates={"value": "my_name_"}), "it"
        )
    client.close()
    other.close()


# ------------------------------------------------------------------ in a browser


@pytest.fixture
def browser() -> Iterator[Any]:
    """One that takes the names of other sites for this machine's."""
    with chromium("--host-resolver-rules=MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1") as started:
        yield started


@pytest.mark.browser
@pytest.mark.seconds(15)
def test_other_sites_do_not_get_at_the_panel_through_a_browser(port: int, browser: Any) -> None:
    """A page that opens a websocket, one that shows ours inside itself, a name that was rebound, and addresses of our
    own page that tell it to take its orders from elsewhere."""
    visitors: list[str] = []

    def give_orders(connection: Any) -> None:
        visitors.append("websocket")
        connection.send(msgspec.msgpack.encode([{"type": "RunJavascriptMessage", "source": "document.title = 'ours'"}]))

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/x":
                visitors.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(
                f"<title>asking</title><iframe src='http://localhost:{port}/'></iframe><script>"
                f"const socket = new WebSocket('ws://localhost:{port}/');"
                "socket.onopen = () => document.title = 'let in';"
                "socket.onerror = () => document.title = 'refused';</script>".encode()
            )

        def log_message(self, *words: Any) -> None:
            pass

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site,
        websockets.sync.server.serve(give_orders, "127.0.0.1", 0) as orders,
    ):
        for server in (site, orders):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        elsewhere = orders.socket.getsockname()[1]
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(f"http://evil.example:{site.server_port}/")
        page.wait_for_function("document.title === 'refused'")
        assert page.frames[1].url.startswith("chrome-error:"), "our page is not shown inside another"
        assert page.goto(f"http://rebound.example:{port}/").status == 403
        for order in (
            f"websocket=ws://evil.example:{elsewhere}",
            f"playbackPath=http://evil.example:{site.server_port}/x",
        ):
            page.goto(f"http://localhost:{port}/?{order}")
            page.wait_for_timeout(1500)
            assert page.title() == "Viser"
        assert visitors == []
        page.goto(f"http://localhost:{port}/")
        page.get_by_text("Mask threshold").wait_for()
        assert page.get_by_label("Share").count() == 0
        site.shutdown()
        orders.shutdown()
