"""Access control of HTTP requests: allowed hosts and origins, and files inside the web root. Pure functions.

Two headers are checked. A browser sets both, and a web page cannot change them:

* `Host`, the name under which the page was opened. In a DNS rebinding attack, an attacker's name resolves to our
  address, so that the attacker's page has the same origin as ours; but its requests still carry that name. Numeric
  addresses cannot be rebound.
* `Origin`, the page that opens a websocket. Browsers let every page open websockets to every address.

Programs that are not browsers can send any header. They run where they can reach the port, and a check of headers would
not stop them, so a missing `Origin` is allowed.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from surface_sos_ns.web.listening import is_loopback

__all__ = ["HOSTS", "allowed_names", "content_security_policy", "is_websocket", "refusal_reason", "served_file"]

HOSTS = "SURFACE_SOS_HOSTS"
"""Environment variable: further allowed host names (such as a proxy's), separated by commas."""

AUTHORITY = r"(?P<name>\[[\w:.%]+\]|[\w.-]+)(?::\d{1,5})?"
HOST, ORIGIN = re.compile(AUTHORITY, re.ASCII), re.compile(f"https?://{AUTHORITY}", re.ASCII)
"""Format of the headers: a name or an address, and a port unless it is the default one."""


def refusal_reason(hosts: Iterable[str], origins: Iterable[str], names: Collection[str], websocket: bool) -> str | None:
    """Why a request is refused and what to do, as text; None if it is allowed.

    Args:
        hosts, origins: values of the Host and Origin headers; more than one value is refused.
        names: allowed host names, besides numeric addresses and localhost.
        websocket: whether the request opens a websocket. Only then the origin is checked, since files are public.
    """
    host_headers, origin_headers = list(hosts), list(origins)
    host = _only_name(HOST, host_headers)
    if host is None or not (_is_address(host) or host in names):
        found = host or _printable_headers(host_headers)
        return (
            f"This page was opened under the name {found}, which is not known to be this machine's. Open it as "
            f"http://localhost with its port; or, if the name leads here on purpose (a proxy), start the program with "
            f"{HOSTS}={found} in its environment."
        )
    if not websocket or not origin_headers:
        return None
    origin = _only_name(ORIGIN, origin_headers)
    # Ports are not compared: a program that serves another page on this machine can reach this port anyway.
    if origin is None or not (origin == host or is_loopback(origin) or origin in names):
        found = _printable_headers(origin_headers)
        return (
            f"A page of {found} asked for a connection, and only this server's own page is given one. If it is this "
            f"page behind a proxy, start the program with {HOSTS}={origin or 'NAME'} in its environment."
        )
    return None


def allowed_names(listens_at: str) -> set[str]:
    """Allowed host names of a server: localhost, those in `HOSTS`, and the machine's names.

    Args:
        listens_at: the address that the server listens at. The machine's names are allowed unless it is a loopback
            address. Finding the qualified name may query the network.
    """
    named = (_only_name(HOST, [entry.strip()]) for entry in os.environ.get(HOSTS, "").split(","))
    names = {"localhost", *filter(None, named)}
    if not is_loopback(_normalised(listens_at)):
        own = {_normalised(socket.gethostname()), _normalised(socket.getfqdn())} - {""}
        names |= own | {f"{name.partition('.')[0]}.local" for name in own}
    return names


def is_websocket(upgrades: Iterable[str]) -> bool:
    """Whether a request opens a websocket, by its Upgrade headers (each a list of protocols)."""
    return any(protocol.strip().lower() == "websocket" for line in upgrades for protocol in line.split(","))


def served_file(root: Path, target: str) -> str | None:
    """The file that a request asks for, as a path relative to the web root; None if there is no such file.

    Files are inside the root after links and `..` are resolved. Percent encoding is not decoded, since no served file
    needs it.

    Args:
        root: the web root.
        target: of the request, unchecked.
    """
    name = target.partition("?")[0].lstrip("/") or "index.html"
    try:
        base = root.resolve(strict=True)
        file = (base / name).resolve(strict=True)
        return file.relative_to(base).as_posix() if file.is_file() else None
    except (
        ValueError,
        OSError,
        RuntimeError,
    ):  # outside of the root; NUL bytes; names too long or absent; circular links
        return None


def content_security_policy(host: str, names: Collection[str]) -> str:
    """The Content-Security-Policy header of our pages.

    viser's page connects to the server named in its URL (`?websocket=`), or plays a recording (`?playbackPath=`), and
    runs scripts that these contain. It also loads an analytics script from the internet. So connections and scripts are
    restricted to this server. Framing by other pages is forbidden (clickjacking).

    Args:
        host: the Host header of the request, checked.
        names: as for `refusal_reason`.
    """
    named = [f"{name}:*" for name in sorted(names) if name != "localhost"]
    servers = " ".join(f"ws://{place} wss://{place}" for place in [host, *named])
    pages = " ".join(f"http://{place} https://{place}" for place in ["localhost:*", "127.0.0.1:*", *named])
    return (
        f"connect-src 'self' {servers} data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'self' {pages}"
    )


def _only_name(header: re.Pattern[str], values: list[str]) -> str | None:
    """The host name or address in a header; None if it has several values or the wrong format."""
    found = header.fullmatch(values[0]) if len(values) == 1 else None
    return _normalised(found["name"]) if found else None


def _normalised(name: str) -> str:
    """A host name or address in lower case, without brackets and final dot."""
    return name.strip().strip("[]").lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _printable_headers(headers: list[str]) -> str:
    """Unchecked headers as at most 100 printable ASCII characters, for a message."""
    words = ",".join(headers)[:100]
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in words) or "(none)"
