"""Attacks over the network on ns-train, ns-viewer and the click page while they run."""

from __future__ import annotations

import json
import math
import re
import shlex
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.attacker import CAMERA, UPGRADE, Client, request, wait_until
from tests.helpers.pages import Page

UP = b"../" * 40
ABSURD = (math.nan, math.inf, -1e308, 2**62, "x" * 3000, "../../etc", None, [], [math.nan] * 3, {"a": 1}, [1, 2])
WINDOWS = (
    *({"aspect": 3000.0}, {"aspect": 1 / 3000}, {"aspect": 0.0, "fov": 0.0}, {"aspect": -5.0, "fov": 3.2}),
    *({"position": [1e6, -1e6, 1e6]}, {"position": [0.0, 0.0, 0.0]}, {}),
)


class Attacks:
    """What is tried on each page."""

    def test_only_this_machine_reaches_it(self, page: Page) -> None:
        with pytest.raises(ConnectionError):  # another loopback address: what listens to all addresses takes it
            socket.create_connection(("127.0.0.2", page.port), timeout=10)
        wait_until(lambda: page.printed(f"http://127.0.0.1:{page.port}"), "the address")
        wait_until(lambda: page.printed(f"ssh -L {page.port}:localhost:{page.port} HOST"), "the way from elsewhere")

    def test_nothing_outside_the_web_root_is_read(self, page: Page, tmp_path: Path) -> None:
        secret = tmp_path / "secret.txt"
        secret.write_text("a secret of this machine")
        path = str(secret).encode()
        out = UP + path[1:]
        targets = [
            *(
                b"/" + out,
                path,
                b"/" + path,
                b"//" + path,
                b"/assets/" + out,
                b"/./" + out,
                out,
                b"http://localhost/" + out,
            ),
            *(b"/%2e%2e" * 40 + path, b"/" + b"..%2f" * 40 + path.replace(b"/", b"%2f"), b"/.%2e/.%2e" * 20 + path),
            *(b"/" + b"..\\" * 40 + path, b"/" + UP + b"etc/passwd", b"file://" + path, b"/;/../" + path[1:]),
            *(path + b"\0", b"/\0", b"/index.html\0.js", b"/%00", b"/\xff", b"*", b"/..", b"/../", b"/assets"),
            *(b"/" + b"a" * 6000, b"/" + b"a/" * 3000, b"/" + UP * 60, b"/?" + UP, b"/index.html?" + UP),
        ]
        for target in targets:
            status, content = request(page.port, target)
            page_itself = (status, b"<title>Viser</title>" in content) == (200, True)
            assert page_itself or (status, content) == (404, b"There is no such file.\n"), target
            assert b"secret" not in content and b"root:" not in content
        for method in (b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"get", b"X" * 3000):
            assert request(page.port, b"/" + out, method=method)[0] == 400
        status, content = request(page.port, b"/", b"Accept-Encoding: identity", b"Accept-Encoding: br")
        assert status == 200 and b"<title>Viser</title>" in content
        assert not page.printed("Traceback")

    @pytest.mark.parametrize("upgrade", [(), UPGRADE], ids=["files", "websockets"])
    def test_names_that_lead_here_by_deceit_are_refused(self, page: Page, upgrade: tuple[bytes, ...]) -> None:
        for host in (b"evil.example", b"evil.example:7007", b"localhost.evil.example", b"", b"a@localhost", None):
            status, content = request(page.port, b"/", *upgrade, host=host)
            assert status == 403 and b"SURFACE_SOS_HOSTS" in content, host
        assert request(page.port, b"/", b"Host: evil.example", *upgrade)[0] == 403, "two names"
        expected = 101 if upgrade else 200
        for host in (b"localhost", b"LOCALHOST:7007", b"127.0.0.1:7007", b"[::1]:1", b"192.168.7.7"):
            assert request(page.port, b"/", *upgrade, host=host)[0] == expected, host

    def test_pages_of_other_sites_get_no_websocket(self, page: Page) -> None:
        for origin in (
            b"http://evil.example",
            b"null",
            b"https://localhost.evil.example",
            b"",
            b"file://",
            b"http://1.2.3.4",
        ):
            for kind in (b"websocket", b"WebSocket", b"WEBSOCKET", b"h2c, websocket"):
                status, content = request(page.port, b"/", b"Upgrade: " + kind, *UPGRADE[1:], b"Origin: " + origin)
                assert status == 403 and b"SURFACE_SOS_HOSTS" in content, (origin, kind)
        twice = (b"Origin: http://localhost", b"Origin: http://evil.example")
        assert request(page.port, b"/", *UPGRADE, *twice)[0] == 403
        for origin in (b"http://localhost:7007", b"http://127.0.0.1", b"http://10.1.1.1:7007"):
            assert request(page.port, b"/", *UPGRADE, b"Origin: " + origin, host=b"10.1.1.1:7007")[0] == 101, origin

    def test_what_is_no_handshake_is_answered_or_dropped(self, page: Page) -> None:
        for header in (b"Key: \xff", b"Protocol: \xff", b"Extensions: ;;", b"Version: 1", b"Accept: \xff"):
            assert request(page.port, b"/", *UPGRADE[:2], b"Sec-WebSocket-" + header)[0] in (0, 400)
        for content in (b"\0" * 1000, b"GET\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"A" * 70_000):
            with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
                connection.sendall(content)
        assert page.serves() and not page.printed("Traceback")

    def test_absurd_messages_change_nothing(self, page: Page) -> None:
        client = Client(page.port)
        wait_until(lambda: len(client.controls) > 3, "the panel")
        for content in (b"", b"\xc1", b"\x91" * 50_000, "text", "{}"):
            client.send_raw(content)
        for message in ({}, [], None, 5, {"type": "no such message"}, {"type": [1]}, {"type": "ShareUrlRequest"}):
            client.send(message)
        for control in list(client.controls.values()):
            of = {"type": "GuiUpdateMessage", "id": control["id"]}
            for value in ABSURD:
                client.send({**of, "updates": {"value": value}})
            for updates in ({"update_cb": [1]}, {"gui_api": 1}, {"value": True, "sync_cb": 5}, {"id": "x"}, {}, 5):
                client.send({**of, "updates": updates})
            file = {"source_component_id": control["id"], "transfer_uuid": "u", "filename": "f", "mime_type": ""}
            client.send({**file, "type": "FileTransferStart", "part_count": 9, "size_bytes": 9})
            part = {"source_component_id": control["id"], "transfer_uuid": "u", "part": 0, "content": b"x" * 60_000}
            client.send({**part, "type": "FileTransferPart"})
        for name in ("fov", "aspect", "position", "wxyz", "look_at", "up_direction"):
            for number in ABSURD[:6]:
                value = CAMERA[name]
                client.send({**CAMERA, name: [number] * len(value) if isinstance(value, list) else number})
        other = Client(page.port)  # what one browser did is told to the next
        wait_until(lambda: len(other.controls) >= len(client.controls), "the panel again")
        assert client.open and other.open and page.serves()
        assert not {"FileTransferPartAck", "ShareUrlUpdated"} & {message["type"] for message in client.said}
        client.send_raw(b"x" * 200_000)  # too long to be a message
        wait_until(lambda: not client.open, "the end of the connection")
        other.close()
        assert not page.printed("Traceback") and not page.printed("Share URL")


class DrawingAttacks(Attacks):
    """And on those that draw the model."""

    @pytest.mark.seconds(15)
    def test_windows_of_any_shape_are_drawn(self, page: Page) -> None:
        client = Client(page.port)
        client.set("Max res", 64)
        client.set("Composite depth", False)
        client.set("Output type", "rgb")
        for camera in WINDOWS:
            client.wait_for_picture(**camera)
        assert not page.printed("could not draw")
        client.close()


def set_and_wait_for_duration(client: Client, label: str, value: Any) -> None:
    """Uses a control that changes the camera path's duration, and waits for the slider that is made anew for it.

    viser handles the messages of a browser in several threads: one may overtake what an earlier one set off.
    """
    slider = client.control("Preview frame", last=True)
    client.set(label, value)
    wait_until(lambda: client.control("Preview frame", last=True) != slider, "the path's duration")


@pytest.mark.seconds(20)
class TestTraining(DrawingAttacks):
    """ns-train, of a capture whose folder has a name that a shell would run."""

    @pytest.fixture
    def page(self, training: Page) -> Page:
        return training

    def test_what_is_typed_stays_in_its_folder(self, training: Page, capture: Path) -> None:
        client = Client(training.port)
        client.wait_for_picture()
        set_and_wait_for_duration(client, "Transition (sec)", 1.0)
        client.set("FPS", 30.0)
        for turn in range(2):
            client.send({**CAMERA, "position": [turn, 0.0, 20.0]})
            time.sleep(0.5)
            set_and_wait_for_duration(client, "Add Keyframe", True)
        # The last that a keyframe changes; a command that is asked for before would be for the path without it.
        wait_until(partial(client.was_sent, "CatmullRomSplineMessage", name="/render_camera_spline"), "the path")
        client.set("Duration (sec)", 1e8)  # cannot be typed; each of its pictures would be listed
        client.set("Render name", "../../../escaped $(touch pwned)\n")
        client.set("Output Directory", "../x; touch pwned --load-config evil.yml", last=True)
        folder = capture / "camera_paths"

        def others() -> set[Path]:
            run = training.folder / "runs"
            return {path for path in training.folder.rglob("*") if not {folder, run} & {path, *path.parents}}

        before = others()
        client.set("Generate Command", True)
        wait_until(lambda: len(client.commands()) == 1, "the command to render")
        (written,) = folder.iterdir()
        assert written.is_file() and len(json.loads(written.read_text())["camera_path"]) == 30
        (run,) = (training.folder / "runs").glob("*/*/run")
        config = ["--load-config", str(run / "config.yml")]
        render = shlex.split(client.commands()[0])
        camera_path = ["--camera-path-filename", str(written)]
        assert render[:-1] == ["ns-render", "camera-path", *config, *camera_path, "--output-path"]
        assert re.fullmatch(r"renders/[\w-]+/[\w-]+\.mp4", render[-1])
        client.set("Generate Command", True, last=True)
        wait_until(lambda: len(client.commands()) == 2, "the command to export")
        export = shlex.split(client.commands()[1])
        assert export[:5] == ["ns-export", "poisson", *config, "--output-dir"]
        assert re.fullmatch(r"\w[\w.-]+", export[5]) and export[6] == "--target-num-faces"
        client.set("Load Path", True)
        client.set("Camera Path", "../transforms.json")
        client.set("Load", True)
        wait_until(lambda: client.was_sent("GuiCloseModalMessage"), "the path to be loaded")
        client.close()
        assert others() == before


@pytest.mark.seconds(20)
class TestViewer(DrawingAttacks):
    """ns-viewer of a run."""

    @pytest.fixture
    def page(self, viewer: Page) -> Page:
        return viewer


@pytest.mark.seconds(5)
class TestClickPage(Attacks):
    """The page of `surface-sos masks --method click`."""

    @pytest.fixture
    def page(self, clicking: Page) -> Page:
        return clicking
