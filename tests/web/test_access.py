"""Which requests are answered, and with what: the rules alone, without a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from surface_sos_ns.web.access import (
    HOSTS,
    allowed_names,
    content_security_policy,
    is_websocket,
    refusal_reason,
    served_file,
)
from surface_sos_ns.web.listening import address, is_loopback, listen_problem, reachability_notes

NAMES = {"localhost", "gpu-box"}


# ------------------------------------------------------------------ who asks


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost:7007",
            "LocalHost:1",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:7007",
            "192.168.1.5:7007",
        ),
        *("[::1]:7007", "[fe80::1%eth0]", "gpu-box:7007", "GPU-box"),
    ],
)
def test_known_names_and_addresses_are_let_in(host: str) -> None:
    assert refusal_reason([host], [], NAMES, websocket=False) is None
    assert refusal_reason([host], [], NAMES, websocket=True) is None, "no origin: no browser"
    assert refusal_reason([host], [f"http://{host}"], NAMES, websocket=True) is None, "the page's own"


@pytest.mark.parametrize(
    "hosts",
    [
        *(
            ["evil.example"],
            ["evil.example:7007"],
            ["localhost.evil.example"],
            ["xlocalhost"],
            ["127.0.0.1.evil.example"],
        ),
        *(
            ["evil.example@localhost"],
            ["localhost@evil.example"],
            ["localhost/evil"],
            ["localhost:7007:1"],
            ["2130706433"],
        ),
        *(
            [""],
            [],
            ["localhost", "evil.example"],
            ["localhost,evil.example"],
            ["local host"],
            ["[::1"],
            ["gpu-box.evil"],
        ),
        *(["http://evil.example"], ["localhost#"], ["localhost:x"], ["http://localhost"], ["\xe9vil"], ["*"]),
    ],
)
def test_other_names_are_refused_with_what_to_do(hosts: list[str]) -> None:
    words = refusal_reason(hosts, [], NAMES, websocket=False)
    assert words is not None and HOSTS in words and "http://localhost" in words and words.isascii()


@pytest.mark.parametrize(
    "origins",
    [
        *(["http://evil.example"], ["https://evil.example:7007"], ["null"], [""], ["http://localhost.evil.example"]),
        *(
            ["http://evil.example/localhost"],
            ["http://localhost@evil.example"],
            ["file://"],
            ["http://192.168.1.9:7007"],
        ),
        *(
            ["http://localhost", "http://evil.example"],
            ["chrome-extension://localhost"],
            ["http://127.0.0.1.evil.example"],
        ),
        *(["ws://localhost:7007"], ["localhost:7007"], ["http://[::1"], ["http://\xe9vil"]),
    ],
)
def test_pages_of_others_get_no_websocket_but_files(origins: list[str]) -> None:
    words = refusal_reason(["192.168.1.5:7007"], origins, NAMES, websocket=True)
    assert words is not None and HOSTS in words and words.isascii()
    assert refusal_reason(["192.168.1.5:7007"], origins, NAMES, websocket=False) is None


def test_pages_of_this_machine_get_one() -> None:
    for origin in ("http://localhost:3000", "http://127.0.0.1:7007", "http://[::1]:80", "https://gpu-box"):
        assert refusal_reason(["192.168.1.5:7007"], [origin], NAMES, websocket=True) is None


def test_names_come_from_the_environment_and_those_of_the_machine_where_it_listens_to_others(monkeypatch) -> None:
    monkeypatch.setenv(HOSTS, " Proxy.example , lab.example:8443,, not a name ")
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    monkeypatch.setattr("socket.getfqdn", lambda: "box.lab.example.")
    named = {"localhost", "proxy.example", "lab.example"}
    assert allowed_names("127.0.0.1") == allowed_names("::1") == allowed_names("localhost") == named
    assert allowed_names("0.0.0.0") == allowed_names("") == named | {"box", "box.local", "box.lab.example"}
    monkeypatch.delenv(HOSTS)
    assert allowed_names("127.0.0.1") == {"localhost"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        *((["websocket"], True), (["WebSocket"], True), (["h2c, websocket"], True), (["h2c", "WEBSOCKET"], True)),
        *(([], False), ([""], False), (["h2c"], False), (["websockets"], False)),
    ],
)
def test_a_websocket_is_known_in_any_form_of_its_header(headers: list[str], expected: bool) -> None:
    assert is_websocket(headers) is expected


# ------------------------------------------------------------------ what is served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A web root with a file in a folder, beside a secret, and links to both."""
    root = tmp_path / "root"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("page")
    (root / "assets" / "a b.js").write_text("script")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root_of_another").mkdir()
    (tmp_path / "root_of_another" / "file").write_text("secret")
    (root / "inside").symlink_to("assets/a b.js")
    (root / "outside").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path, target_is_directory=True)
    (root / "circle").symlink_to("circle")
    return root


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        *(("/", "index.html"), ("/?x=/../secret", "index.html"), ("", "index.html"), ("//", "index.html")),
        *(
            ("/index.html", "index.html"),
            ("/assets/../index.html", "index.html"),
            ("/./assets/a b.js", "assets/a b.js"),
        ),
        ("/inside", "assets/a b.js"),
    ],
)
def test_files_under_the_root_are_served_by_one_name_each(root: Path, target: str, expected: str) -> None:
    assert served_file(root, target) == expected
    link = root.parent / "link"
    link.symlink_to(root, target_is_directory=True)
    assert served_file(link, target) == expected


@pytest.mark.parametrize(
    "target",
    [
        *("/../secret", "/../../../../../../../../etc/passwd", "/assets/../../secret", "/../root_of_another/file"),
        *("/outside", "/folder/secret", "/circle", "/assets", "/assets/", "/..", "/.", "/assets/../../root/../secret"),
        *("/%2e%2e/secret", "/..%2fsecret", "/%2e%2e%2fsecret", "/..\\secret", "/a%20b.js", "/index.html\0", "/\0"),
        *("/" + "a" * 5000, "/" + "a/" * 3000, "/../" * 2000, "/\udcff", "*", "/index.html/x", "/C:/x"),
        *("http://localhost/../secret", "http://localhost/", "/assets/..;/secret", "/~root", "/file:///etc/passwd"),
    ],
)
def test_nothing_else_is(root: Path, target: str) -> None:
    assert served_file(root, target) is None
    assert served_file(root / "missing", target) is None


def test_absolute_paths_lead_nowhere(root: Path) -> None:
    assert served_file(root, str(root.parent / "secret")) is None
    assert served_file(root, "/" + str(root.parent / "secret")) is None


def test_the_page_connects_to_its_own_server_and_stands_in_no_foreign_page() -> None:
    policy = dict(
        part.strip().split(" ", 1)
        for part in content_security_policy("127.0.0.1:7007", {"localhost", "p.example"}).split(";")
    )
    connections = policy["connect-src"].split()
    assert {"'self'", "ws://127.0.0.1:7007", "wss://p.example:*"} <= set(connections)
    assert not {"*", "ws:", "http:", "https:", "ws://localhost:*"} & set(connections)
    assert "'self'" in policy["script-src"] and "http" not in policy["script-src"]
    assert set(policy["frame-ancestors"].split()) >= {"'self'", "http://localhost:*", "https://p.example:*"}
    assert "*" not in policy["frame-ancestors"].split()


# ------------------------------------------------------------------ where it listens


def test_addresses_to_open() -> None:
    assert address("127.0.0.1", 7007) == "http://127.0.0.1:7007"
    assert address("0.0.0.0", 7007) == address("::", 7007) == address("", 7007) == "http://localhost:7007"
    assert address("fe80::1", 80) == "http://[fe80::1]:80"


def test_who_reaches_it_is_said() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "", "::", "192.168.1.5", "box")))
    (alone,) = reachability_notes("127.0.0.1", 7010)
    assert "ssh -L 7010:localhost:7010 HOST" in alone and "Warning" not in alone
    (warning,) = reachability_notes("0.0.0.0", 7010)
    assert warning.startswith("Warning") and "7010" in warning and "\n" not in warning


def test_hosts_that_are_not_this_machines() -> None:
    assert listen_problem("127.0.0.1") is None and listen_problem("0.0.0.0") is None
    for host in ("192.0.2.1", "no such host", "999.1.1.1", "x" * 300):
        assert "expected an address of this machine" in str(listen_problem(host))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_no_text_is_served_like_any_other(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9")).write_text("page")
    assert served_file(root, os.fsdecode(b"/caf\xe9")) == os.fsdecode(b"caf\xe9")
