"""Who may ask one of our servers for something, and which file a request means. No server is needed to try this.

Two headers are checked, both of which a browser sets itself and a web page cannot change:

* `Host`, the name that the page was opened under. A page of an attacker's can give its own name our address ("DNS
  rebinding"), and then counts as coming from here; but its requests still carry that name. An address in digits cannot
  be given to anybody.
* `Origin`, which page opens a websocket. Browsers let every page open one to every address.

What is no browser can send any header it likes, but it is a program that runs where it can reach the port: nothing that
a check of headers would keep out. So no `Origin` is fine.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

__all__ = ["HOSTS", "is_websocket", "known_names", "page_policy", "refusal", "served_file"]

HOSTS = "SURFACE_SOS_HOSTS"
"""Environment variable: further names, separated by commas, under which our pages may be opened (those of a proxy)."""

PLACE = r"(?P<name>\[[\w:.%]+\]|[\w.-]+)(?::\d{1,5})?"
HOST, ORIGIN = re.compile(PLACE, re.ASCII), re.compile(f"https?://{PLACE}", re.ASCII)
"""What the headers look like: a name or an address, and where it is not the usual one a port."""


def refusal(hosts: Iterable[str], origins: Iterable[str], names: Collection[str], websocket: bool) -> str | None:
    """Why a request is not answered, as a sentence that says what to do; None where it is.

    Args:
        hosts, origins: the values of its headers of that name; more than one is never right.
        names: under which the page may be opened, besides addresses in digits and localhost.
        websocket: whether it asks for a websocket. Files are the same for everybody, so they ask for no origin.
    """
    host_headers, origin_headers = list(hosts), list(origins)
    host = _named(HOST, host_headers)
    if host is None or not (_is_address(host) or host in names):
        found = host or _shown(host_headers)
        return (
            f"This page was opened under the name {found}, which is not known to be this machine's. Open it as "
            f"http://localhost with its port; or, if the name leads here on purpose (a proxy), start the program with "
            f"{HOSTS}={found} in its environment."
        )
    if not websocket or not origin_headers:
        return None
    origin = _named(ORIGIN, origin_headers)
    # Ports are not compared: whoever serves another page at this machine reaches this port without a browser.
    if origin is None or not (origin == host or _is_loopback(origin) or origin in names):
        found = _shown(origin_headers)
        return (
            f"A page of {found} asked for a connection, and only this server's own page is given one. If it is this "
            f"page behind a proxy, start the program with {HOSTS}={origin or 'NAME'} in its environment."
        )
    return None


def known_names(listens_at: str) -> set[str]:
    """Names under which a server's page may be opened: localhost, those in `HOSTS`, and the machine's own.

    Args:
        listens_at: the address that the server listens at. The machine's names lead to it only where that is not
            the loopback interface's; to know the longer one may take a question to the network.
    """
    named = (_named(HOST, [entry.strip()]) for entry in os.environ.get(HOSTS, "").split(","))
    names = {"localhost", *filter(None, named)}
    if not _is_loopback(_plain(listens_at)):
        own = {_plain(socket.gethostname()), _plain(socket.getfqdn())} - {""}
        names |= own | {f"{name.partition('.')[0]}.local" for name in own}
    return names


def is_websocket(upgrades: Iterable[str]) -> bool:
    """Whether a request asks for a websocket, by its Upgrade headers: any number, each with any number of protocols."""
    return any(protocol.strip().lower() == "websocket" for line in upgrades for protocol in line.split(","))


def served_file(root: Path, target: str) -> str | None:
    """The file that a request asks for, relative to the web root; None where there is none to be served.

    What is served lies under the root after all links and all `..` are followed. Nothing is decoded: no name of a file
    that is served needs it.

    Args:
        root: the web root.
        target: of the request, as it came: a path with or without a query, or anything else.
    """
    name = target.partition("?")[0].lstrip("/") or "index.html"
    try:
        base = root.resolve(strict=True)
        file = (base / name).resolve(strict=True)
        return file.relative_to(base).as_posix() if file.is_file() else None
    except (ValueError, OSError, RuntimeError):  # outside; NUL bytes, names too long or not there; links in circles
        return None


def page_policy(host: str, names: Collection[str]) -> str:
    """The Content-Security-Policy that our pages are sent with.

    viser's page connects to whatever server its address names (`?websocket=`), takes a recording from there
    (`?playbackPath=`), and runs what scripts these send, which then count as the page's own. It also loads a script
    for statistics from the internet. So connections and scripts are this server's alone. And no other page may show
    this one inside itself, where a user would click on it without knowing.

    Args:
        host: the request's Host header, checked.
        names: as for `refusal`.
    """
    named = [f"{name}:*" for name in sorted(names) if name != "localhost"]
    servers = " ".join(f"ws://{place} wss://{place}" for place in [host, *named])
    pages = " ".join(f"http://{place} https://{place}" for place in ["localhost:*", "127.0.0.1:*", *named])
    return (
        f"connect-src 'self' {servers} data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'self' {pages}"
    )


def _named(header: re.Pattern[str], values: list[str]) -> str | None:
    """The name or address in a header's only value; None where there are several, or it is not what it should be."""
    found = header.fullmatch(values[0]) if len(values) == 1 else None
    return _plain(found["name"]) if found else None


def _plain(name: str) -> str:
    """A host's name or address without brackets, in small letters and without the dot that may end it."""
    return name.strip().strip("[]").lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _shown(headers: list[str]) -> str:
    """Headers of a stranger, short enough and plain enough to be repeated."""
    words = ",".join(headers)[:100]
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in words) or "(none)"
