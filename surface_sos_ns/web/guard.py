"""Puts the checks of `access` and `messages` between viser's server and whoever connects to it.

viser 0.2.7 (the version that nerfstudio 1.1.5 asks for)

* joins the path of a request to its web root as it comes, so that `..` leads to any file of the machine;
* opens a websocket to the page of any site;
* sets whatever attributes of a control a message names, keeps files that nobody asked for, and publishes the page on
  the internet when a message asks for that.

It offers no hook for any of it, so functions of its modules are replaced here: for every server that this process
starts from then on. `tests/web/test_canaries.py` fails when viser no longer needs one of them.
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

from surface_sos_ns.web.access import is_websocket, known_names, page_policy, refusal, served_file
from surface_sos_ns.web.messages import LARGEST_MESSAGE, ViewerCameraMessage, accepted_value, read_message

__all__ = ["guard_viser", "let_in", "port_of"]

WEB_ROOT = Path(viser.__file__).parent / "client" / "build"
MOST_BROWSERS = 32  # at a time; each has a thread that draws for it
PAUSE = 0.002  # seconds between two messages of a browser: waiting ones are kept in memory

_infra: Any = _viser_infra
_invited: set[str] = set()
Response = tuple[http.HTTPStatus, Any, bytes]


def guard_viser() -> None:
    """Guard all servers of viser that are started in this process from now on. Calling it again does nothing."""
    if hasattr(_infra.websockets, "guarded"):
        return
    # All that viser's module takes of websockets. Should it ever take more, it fails instead of doing without a guard.
    _infra.websockets = SimpleNamespace(
        guarded=True, server=SimpleNamespace(serve=_serve), exceptions=websockets.exceptions
    )
    _infra._message_consumer = _take_messages
    GuiApi._create_gui_input = _remembering_limits(GuiApi._create_gui_input)  # type: ignore[method-assign]
    GuiApi._handle_gui_updates = _within_limits(GuiApi._handle_gui_updates)  # type: ignore[method-assign]
    GuiApi.configure_theme = _without_sharing(GuiApi.configure_theme)  # type: ignore[method-assign]


def let_in(url: str) -> None:
    """Let the pages be opened under one more name, that of an address on the internet that the user asked for."""
    _invited.add(urlsplit(url).hostname or "")


def port_of(server: viser.ViserServer) -> int:
    """The port that a server listens at: not always the one it was asked for, which is what it says itself for 0."""
    sockets: Any = cast("Any", server)._websock_server._ws_server.sockets
    return int(sockets[0].getsockname()[1])


# ------------------------------------------------------------------ connections


def _serve(handler: Any, host: str, port: int, **options: Any) -> Serve:
    """In place of `websockets.server.serve`."""
    names = known_names(host)

    def connection(*arguments: Any, **more: Any) -> GuardedConnection:
        return GuardedConnection(*arguments, names=names, **more)

    return Serve(handler, host, port, create_protocol=connection, max_size=LARGEST_MESSAGE, **options)


class GuardedConnection(WebSocketServerProtocol):
    """A connection that is answered if `access` lets it in.

    Args:
        names: under which the page may be opened.
    """

    def __init__(self, *arguments: Any, names: Collection[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._names = names

    async def process_request(self, path: str, request_headers: Headers) -> Response | None:
        """The answer to a request; None where a websocket may be opened."""
        hosts = request_headers.get_all("Host")
        names = {*self._names, *_invited}
        websocket = is_websocket(request_headers.get_all("Upgrade"))
        why_not = refusal(hosts, request_headers.get_all("Origin"), names, websocket)
        if why_not is not None:
            return _text(http.HTTPStatus.FORBIDDEN, why_not)
        if websocket:
            return self._why_no_websocket(request_headers)
        file = served_file(WEB_ROOT, path)
        if file is None:
            return _text(http.HTTPStatus.NOT_FOUND, "There is no such file.")
        # viser reads it, and keeps it in memory by its path: one path for each file.
        encodings = Headers({"Accept-Encoding": ",".join(request_headers.get_all("Accept-Encoding"))})
        response = cast("Response | None", await super().process_request(f"/{file}", encodings))
        if response is None:
            return _text(http.HTTPStatus.NOT_FOUND, "This server has no page.")
        status, headers, body = response
        return status, {**headers, "Content-Security-Policy": page_policy(hosts[0], names)}, body

    def _why_no_websocket(self, headers: Headers) -> Response | None:
        if not all(value.isascii() for name, value in headers.raw_items() if name.lower().startswith("sec-websocket")):
            return _text(http.HTTPStatus.BAD_REQUEST, "This is no request for a websocket.")
        if sum(connection.open for connection in self.ws_server.websockets) >= MOST_BROWSERS:
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_BROWSERS} browsers are open already.")
        return None


def _text(status: http.HTTPStatus, words: str) -> Response:
    return status, {"Content-Type": "text/plain; charset=utf-8"}, f"{words}\n".encode()


# ------------------------------------------------------------------ messages


async def _take_messages(websocket: Any, handle: Callable[[Any], None], message_class: type) -> None:
    """In place of viser's loop over what a browser sends."""
    del message_class
    seen = False
    while True:
        message = read_message(await websocket.recv())
        # viser knows a browser from its first camera on; what comes before would be of nobody.
        seen = seen or isinstance(message, ViewerCameraMessage)
        if message is not None and seen:
            handle(getattr(_messages, type(message).__name__)(**msgspec.structs.asdict(message)))
        await asyncio.sleep(PAUSE)


def _remembering_limits(create: Callable[..., Any]) -> Callable[..., Any]:
    """A control's range is in the message that shows it, which viser forgets."""

    def create_gui_input(self: GuiApi, value: Any, message: Any, is_button: bool = False) -> Any:
        handle = create(self, value, message, is_button)
        colour = isinstance(message, _messages.GuiAddRgbMessage | _messages.GuiAddRgbaMessage)
        handle._impl.limits = SimpleNamespace(min=0, max=255) if colour else message
        return handle

    return create_gui_input


def _within_limits(update: Callable[..., None]) -> Callable[..., None]:
    """Only values that a control can take reach it, and none while it is disabled."""

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
            # The one who typed sees what became of it. Not of numbers: those are typed digit by digit.
            self._websock_interface.queue_message(_messages.GuiUpdateMessage(message.id, {"value": value}))

    return handle_gui_updates


def _without_sharing(configure: Callable[..., None]) -> Callable[..., None]:
    """No button that asks for an address on the internet: such messages are dropped."""

    def configure_theme(self: GuiApi, **options: Any) -> None:
        configure(self, **{**options, "show_share_button": False})

    return configure_theme
