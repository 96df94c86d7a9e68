"""Addresses that servers listen at: checks, URLs, and notes on who can reach them."""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["LOOPBACK", "address", "is_loopback", "listen_problem", "reachability_notes"]

LOOPBACK = "127.0.0.1"
"""Loopback address: only programs on this machine can connect."""

ALL_INTERFACES = ("", "0.0.0.0", "::")
"""Hosts that mean all network interfaces."""


def listen_problem(host: str) -> str | None:
    """Why no server can listen at a host, as a sentence; None if one can. (viser would retry forever.)"""
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
    """Whether a host is localhost or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int) -> str:
    """The URL to open in a browser on this machine."""
    if host in ALL_INTERFACES:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachability_notes(host: str, port: int) -> list[str]:
    """How to reach a server from other machines, or a warning that it can be reached without a password."""
    if is_loopback(host):
        return [f"From another machine: ssh -L {port}:localhost:{port} HOST there, then open http://localhost:{port}."]
    where = f"{host or '0.0.0.0'}, all addresses of this machine" if host in ALL_INTERFACES else host
    return [
        f"Warning: this page listens at {where}: whoever reaches port {port} over the network can use it, and there is "
        "no password."
    ]
