"""Where a server of ours listens: the address to open, who reaches it, and how to from another machine."""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["LOOPBACK", "address", "is_loopback", "sentences", "why_not_at"]

LOOPBACK = "127.0.0.1"
"""Where programs of this machine alone reach a server."""

ALL = ("", "0.0.0.0", "::")
"""Hosts that stand for all of this machine's addresses."""


def why_not_at(host: str) -> str | None:
    """Why no server can listen at a host, as a sentence; None where one can. viser itself would try forever."""
    try:
        kind, *_, place = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(kind) as listener:
            listener.bind(place)
    except (OSError, UnicodeError) as error:
        return (
            f"No page can be served at {host} ({error}); expected an address of this machine, such as {LOOPBACK}, or "
            "0.0.0.0 for all of them."
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether nobody but programs of this machine reaches what listens at a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int) -> str:
    """What to open in a browser of this machine."""
    if host in ALL:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def sentences(host: str, port: int) -> list[str]:
    """How to reach a server from another machine, or who does already."""
    if is_loopback(host):
        return [f"From another machine: ssh -L {port}:localhost:{port} HOST there, then open http://localhost:{port}."]
    where = f"{host or '0.0.0.0'}, all addresses of this machine" if host in ALL else host
    return [
        f"Warning: this page listens at {where}: whoever reaches port {port} over the network can use it, and there is "
        "no password."
    ]
