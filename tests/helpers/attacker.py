"""Somebody who reaches the port of one of our pages: requests as raw bytes, and messages as viser's page sends them."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

WAIT = 60.0  # seconds in which a page answers on a busy machine
CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": [0.0, 1.0, 0.0, 0.0],
    "position": [0.0, 0.0, 20.0],
    "fov": 0.8,
    "aspect": 4 / 3,
    "look_at": [0.0, 0.0, 0.0],
    "up_direction": [0.0, 1.0, 0.0],
}


def request(
    port: int, target: bytes, *headers: bytes, host: bytes | None = b"localhost", method: bytes = b"GET"
) -> tuple[int, bytes]:
    """Status and content of the answer to a request; status 0 where there is none."""
    lines = [method + b" " + target + b" HTTP/1.1", *([b"Host: " + host] if host is not None else []), *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
            if answer.startswith(b"HTTP/1.1 101"):
                break
    head, _, content = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), content


UPGRADE = (
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
"""Headers of a request for a websocket."""


class Client:
    """A websocket to a page, as a program that sends what it likes; knows the controls that the page was sent.

    Attributes:
        controls: what the server said of each, by label; of several the last.
        said: all messages of the server so far.
    """

    def __init__(self, port: int, camera: dict[str, Any] | None = CAMERA) -> None:
        self._socket = connect(f"ws://127.0.0.1:{port}", origin=None, max_size=None)
        self.controls: dict[str, dict[str, Any]] = {}
        self._first: dict[str, dict[str, Any]] = {}
        self.said: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if camera is not None:
            self.send(camera)

    def _read(self) -> None:
        try:
            for frame in self._socket:
                for message in msgspec.msgpack.decode(frame):
                    self.said.append(message)
                    if "label" in message and "id" in message:
                        self._first.setdefault(message["label"], message)
                        self.controls[message["label"]] = message
        except ConnectionClosed:
            pass

    @property
    def open(self) -> bool:
        """Whether the server keeps the connection."""
        return self._reader.is_alive()

    def send(self, message: Any) -> None:
        """Sends a message, or anything else that can be packed."""
        self._socket.send(msgspec.msgpack.encode(message))

    def send_raw(self, content: bytes | str) -> None:
        self._socket.send(content)

    def control(self, label: str, last: bool = False) -> str:
        """The identity of a control, which may still be on its way: of several of that name the first or the last."""
        wait_until(lambda: label in self.controls, f"the control {label}")
        return str((self.controls if last else self._first)[label]["id"])

    def set(self, label: str, value: Any, last: bool = False) -> None:
        """Uses a control."""
        self.send({"type": "GuiUpdateMessage", "id": self.control(label, last), "updates": {"value": value}})

    def pictures(self) -> int:
        """How many pictures the server has drawn for this browser."""
        return sum(message["type"] == "BackgroundImageMessage" for message in list(self.said))

    def wait_for_picture(self, **camera: Any) -> None:
        """Looks from somewhere, and waits for a picture of it."""
        before = self.pictures()
        self.send({**CAMERA, **camera})
        wait_until(lambda: self.pictures() > before, "a picture")

    def was_sent(self, kind: str, **values: Any) -> bool:
        """Whether the server sent a message of a kind with these values."""
        return any(
            message["type"] == kind and all(message.get(name) == value for name, value in values.items())
            for message in list(self.said)
        )

    def commands(self) -> list[str]:
        """Commands to copy that the panel showed."""
        texts = [m["updates"].get("markdown", "") for m in list(self.said) if m["type"] == "GuiUpdateMessage"]
        return [found[1] for text in texts if (found := re.search(r"```\n(.*)\n```", text))]

    def close(self) -> None:
        self._socket.close()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.05)
