"""What is wrong in viser and in nerfstudio's reader of config.yml. A test that fails here says that a guard can go.

They run in processes of their own, where nothing has put the guards in: in this one, other tests have.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

SERVER = """
import sys, time, threading, viser
from tests.helpers.attacker import CAMERA, UPGRADE, Client, request, wait_until
server = viser.ViserServer(host="127.0.0.1", port=7400, verbose=False)
port = server.get_port()
"""

VISER = {
    "its files lie anywhere": """
status, content = request(port, b"/" + b"../" * 40 + sys.argv[1].encode()[1:])
assert (status, content) == (200, b"a secret of this machine"), (status, content)
""",
    "a page of any site gets a websocket": """
assert request(port, b"/", *UPGRADE, b"Origin: http://evil.example")[0] == 101
""",
    "it answers to any name": """
assert request(port, b"/", host=b"evil.example")[0] == 200
""",
    "its page is not told to connect nowhere else": """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", port)
connection.request("GET", "/")
assert connection.getresponse().getheader("Content-Security-Policy") is None
""",
    "its page asks phones for the width of their screen, in which it fails": """
assert b'content="width=device-width, initial-scale=1"' in request(port, b"/")[1]
""",
    "odd requests end in a traceback": """
assert request(port, b"//etc/passwd")[0] == 500 and request(port, b"/assets")[0] == 500
""",
    "a message sets any attribute of a control": """
slider = server.gui.add_slider("one", 0, 10, 1, 5)
client = Client(port)
client.send({"type": "GuiUpdateMessage", "id": client.control("one"), "updates": {"label": "changed"}})
wait_until(lambda: slider._impl.label == "changed", "the attribute")
""",
    "a control takes values out of its range": """
slider = server.gui.add_slider("two", 0, 10, 1, 5)
client = Client(port)
wait_until(lambda: server.get_clients(), "the browser")
client.set("two", 10**9)
wait_until(lambda: slider.value == 10**9, "the value")
""",
    "files are kept that nobody asked for": """
server.gui.add_slider("three", 0, 10, 1, 5)
client = Client(port)
file = {"type": "FileTransferStart", "source_component_id": client.control("three"), "transfer_uuid": "u"}
client.send({**file, "filename": "f", "mime_type": "", "part_count": 9, "size_bytes": 10**12})
wait_until(lambda: "u" in server.gui._current_file_upload_states, "the file")
""",
    "a message publishes the page": """
server.request_share_url = lambda: server.asked.set()
server.asked = threading.Event()
Client(port).send({"type": "ShareUrlRequest"})
assert server.asked.wait(60)
""",
    "a broken message leaves a browser behind": """
client = Client(port)
wait_until(lambda: server.get_clients(), "the browser")
client.send_raw(b"")
wait_until(lambda: not client.open, "the end of the connection")
time.sleep(0.5)
assert server.get_clients()
""",
}

NERFSTUDIO = {
    "its configuration files run what they say": """
import yaml
from nerfstudio.utils import eval_utils
import inspect
assert "Loader=yaml.Loader" in inspect.getsource(eval_utils.eval_setup)
assert yaml.load("!!python/object/apply:os.getpid []", Loader=yaml.Loader) == __import__("os").getpid()
""",
}


def run(first: str, faults: dict[str, str], *arguments: str) -> None:
    """Runs a script that ends with status 0 if all faults are still there; else it ends with the name of the one."""
    script = first + "".join(f"import sys; print({name!r}, file=sys.stderr)\n{lines}" for name, lines in faults.items())
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script + "\nimport os; os._exit(0)", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.seconds(8)
def test_viser_still_needs_its_guard(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret of this machine")
    run(SERVER, VISER, str(secret))


@pytest.mark.seconds(15)
def test_nerfstudio_still_needs_another_reader() -> None:
    run("", NERFSTUDIO)
