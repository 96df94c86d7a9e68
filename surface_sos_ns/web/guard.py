"""Patches viser with the checks of `access` and `messages`.

viser 0.2.7 (the version that nerfstudio 1.1.5 requires)

* joins request paths to its web root unchecked, so that `..` reads any file of the machine (path traversal);
* accepts websockets from pages of any origin;
* sets any attribute of a control that a message names, stores uploaded files without being asked, and publishes the
  page on the internet if a message requests it;
* fails in windows under 576 pixels (a React error), so that a phone shows an empty page: phones are told to draw the
  page as for a larger window.

It has no hooks for these, so functions of its modules are replaced, for all servers that this process starts
afterwards. `tests/web/test_canaries.py` fails when viser no longer needs one of them.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import viser
import websockets.exceptions
from viser import _messages
from viser._gui_api import GuiApi
from viser.infra import _infra as _viser_infra
from websockets.datastructures import Headers
from websockets.legacy.server import Serve, WebSocketServerProtocol

from surface_sos_ns.web.access import allowed_names, content_security_policy, is_websocket, refusal_reason, served_file
from surface_sos_ns.web.messages import MAX_MESSAGE_BYTES, ViewerCameraMessage, accepted_value, read_message

__all__ = ["allow_host", "guard_viser", "port_of"]

WEB_ROOT = Path(viser.__file__).parent / "client" / "build"
PAGE = "index.html"
MAX_BROWSERS = 32
"""Largest number of connected browsers; each has a render thread."""
VIEWPORT, WIDER_VIEWPORT = b"width=device-width, initial-scale=1", b"width=720"
"""What the page says about its width on phones, in viser and here."""
MESSAGE_INTERVAL = 0.002
"""Least time between two messages of a browser, seconds; messages that wait are kept in memory."""

_infra: Any = _viser_infra
_allowed_hosts: set[str] = set()
Response = tuple[http.HTTPStatus, Any, bytes]


def guard_viser() -> None:
    """Patches viser, for all servers that are started in this process afterwards. A second call does nothing."""
    if hasattr(_infra.websockets, "guarded"):
        return
    # All that viser's module uses of websockets. If a version uses more, it fails instead of running unguarded.
    _infra.websockets = SimpleNamespace(
        guarded=True, server=SimpleNamespace(serve=_serve), exceptions=websockets.exceptions
    )
    _infra._message_consumer = _consume_messages
    GuiApi._create_gui_input = _with_limits(GuiApi._create_gui_input)  # type: ignore[method-assign]
    GuiApi._handle_gui_updates = _with_checked_values(GuiApi._handle_gui_updates)  # type: ignore[method-assign]
    GuiApi.configure_theme = _without_share_button(GuiApi.configure_theme)  # type: ignore[method-assign]


def allow_host(url: str) -> None:
    """Allows the host name of a URL, such as the public one of a tunnel that the user asked for."""
    _allowed_hosts.add(urlsplit(url).hostname or "")


def port_of(server: viser.ViserServer) -> int:
    """The port that a server listens at; `server.get_port()` gives the requested one, even if that is 0."""
    sockets: Any = cast("Any", server)._websock_server._ws_server.sockets
    return int(sockets[0].getsockname()[1])


# ------------------------------------------------------------------ connections


def _serve(handler: Any, host: str, port: int, **options: Any) -> Serve:
    """Replaces `websockets.server.serve`."""
    names = allowed_names(host)

    def connection(*arguments: Any, **more: Any) -> GuardedConnection:
        return GuardedConnection(*arguments, names=names, **more)

    return Serve(handler, host, port, create_protocol=connection, max_size=MAX_MESSAGE_BYTES, **options)


class GuardedConnection(WebSocketServerProtocol):
    """A connection whose requests are checked by `access`.

    Args:
        names: allowed host names.
    """

    def __init__(self, *arguments: Any, names: Collection[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._names = names

    async def process_request(self, path: str, request_headers: Headers) -> Response | None:
        """The response to a request; None if a websocket may be opened."""
        hosts = request_headers.get_all("Host")
        names = {*self._names, *_allowed_hosts}
        websocket = is_websocket(request_headers.get_all("Upgrade"))
        reason = refusal_reason(hosts, request_headers.get_all("Origin"), names, websocket)
        if reason is not None:
            return _text(http.HTTPStatus.FORBIDDEN, reason)
        if websocket:
            return self._websocket_problem(request_headers)
        file = served_file(WEB_ROOT, path)
        if file is None:
            return _text(http.HTTPStatus.NOT_FOUND, "There is no such file.")
        # viser caches files by path, so each file gets one path.
        accepted = "" if file == PAGE else ",".join(request_headers.get_all("Accept-Encoding"))
        encodings = Headers({"Accept-Encoding": accepted})
        response = cast("Response | None", await super().process_request(f"/{file}", encodings))
        if response is None:
            return _text(http.HTTPStatus.NOT_FOUND, "This server has no page.")
        status, headers, body = response
        if file == PAGE:
            body = body.replace(VIEWPORT, WIDER_VIEWPORT)
        return status, {**headers, "Content-Security-Policy": content_security_policy(hosts[0], names)}, body

    def _websocket_problem(self, headers: Headers) -> Response | None:
        if not all(value.isascii() for name, value in headers.raw_items() if name.lower().startswith("sec-websocket")):
            return _text(http.HTTPStatus.BAD_REQUEST, "This is no request for a websocket.")
        if sum(connection.open for connection in self.ws_server.websockets) >= MAX_BROWSERS:
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_BROWSERS} browsers are open already.")
        return None


def _text(status: http.HTTPStatus, words: str) -> Response:
    return status, {"Content-Type": "text/plain; charset=utf-8"}, f"{words}\n".encode()


# ------------------------------------------------------------------ messages


async def _consume_messages(websocket: Any, handle: Callable[[Any], None], message_class: type) -> None:
    """Replaces viser's loop over the messages of a browser."""
    del message_class
    registered = False
    while True:
        message = read_message(await websocket.recv())
        # viser registers a browser at its first camera message, and cannot assign messages before it.
        registered = registered or isinstance(message, ViewerCameraMessage)
        if message is not None and registered:
            handle(getattr(_messages, type(message).__name__)(**msgspec.structs.asdict(message)))
        await asyncio.sleep(MESSAGE_INTERVAL)


def _with_limits(create: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the creation of a control: keeps its range, which viser only has in the message that creates it."""

    def create_gui_input(self: GuiApi, value: Any, message: Any, is_button: bool = False) -> Any:
        handle = create(self, value, message, is_button)
        colour = isinstance(message, _messages.GuiAddRgbMessage | _messages.GuiAddRgbaMessage)
        handle._impl.limits = SimpleNamespace(min=0, max=255) if colour else message
        return handle

    return create_gui_input


def _with_checked_values(update: Callable[..., None]) -> Callable[..., None]:
    """Wraps updates of controls: values are checked by `accepted_value`; disabled controls ignore them."""

    def handle_gui_updates(self: GuiApi, client_id: Any, message: Any) -> None:
        handle = self._gui_input_handle_from_id.get(message.id)
        if handle is None or handle._impl.disabled:
            return
        state: Any = handle._impl
        options = getattr(handle, "options", getattr(state.limits, "options", None))
        try:
            value = accepted_value(message.updates["value"], state.value, state.limits, options)
        except ValueError:
            return
        update(self, client_id, _messages.GuiUpdateMessage(message.id, {"value": value}))
        if isinstance(value, str) and value != message.updates["value"]:
            # Show the corrected text in the browser. Not numbers, which are typed digit by digit.
            self._websock_interface.queue_message(_messages.GuiUpdateMessage(message.id, {"value": value}))

    return handle_gui_updates


def _without_share_button(configure: Callable[..., None]) -> Callable[..., None]:
    """Wraps the theme: hides the share button, whose messages are dropped."""

    def configure_theme(self: GuiApi, **options: Any) -> None:
        configure(self, **{**options, "show_share_button": False})

    return configure_theme
