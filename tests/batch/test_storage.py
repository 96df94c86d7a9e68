"""Files that machines exchange: on a disk, and in an object store that a real server keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.storage import Storage, download, kind_of_names, matches, names_below, versions_below


@pytest.fixture(params=["disk", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder behind a URL."""
    if request.param == "disk":
        yield f"file://{tmp_path}/store"
        return
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"studio-{port}"  # the server's memory outlives it
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}/store"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with a file in it and one beside it."""
    (tmp_path / "here" / "training" / "run-1").mkdir(parents=True)
    (tmp_path / "here" / "training" / "run-1" / "config.yml").write_bytes(b"one")
    (tmp_path / "here" / "metrics.json").write_bytes(b"{}")
    return tmp_path / "here"


@pytest.mark.seconds(4)
def test_what_is_sent_comes_back_and_replaces_what_was_there(url: str, folder: Path, tmp_path: Path) -> None:
    store = Storage(url)
    assert store.read("stages/train.json") is None
    store.write("stages/train.json", b"stamp")
    assert store.read("stages/train.json") == b"stamp"
    store.send(folder / "training", "training")
    store.send(folder / "metrics.json", "metrics.json")
    there = tmp_path / "there"
    for name in ("training", "metrics.json", "absent"):
        store.fetch(name, there / name)
    assert (there / "training" / "run-1" / "config.yml").read_bytes() == b"one"
    assert (there / "metrics.json").read_bytes() == b"{}" and not (there / "absent").exists()
    (folder / "training" / "run-1").rename(folder / "training" / "run-2")
    store.send(folder / "training", "training")
    store.fetch("training", there / "training")
    assert [path.name for path in (there / "training").iterdir()] == ["run-2"]
    store.send(folder / "gone", "metrics.json")
    assert store.read("metrics.json") is None


@pytest.mark.seconds(4)
def test_captures_behind_a_url(url: str, folder: Path, tmp_path: Path) -> None:
    store = Storage(f"{url}/shoots")
    for name in ("cup", "jug"):
        store.write(f"{name}/images/a.jpg", b"photo")
    store.write("jug/transforms.json", b"{}")
    found = matches(f"{url}/shoots/*")
    assert [one.rsplit("/", 1)[-1] for one in found] == ["cup", "jug"] and all("://" in one for one in found)
    assert [kind_of_names(names_below(one)) for one in found] == ["photos", "scene"]
    assert names_below(f"{found[0]}/images/a.jpg") is None
    before = versions_below(found[0])
    assert versions_below(found[0]) == before
    store.write("cup/images/a.jpg", b"other photo")
    assert versions_below(found[0]) != before
    download(found[1], tmp_path / "jug")
    assert (tmp_path / "jug" / "images" / "a.jpg").read_bytes() == b"photo"
    with pytest.raises(BatchError, match="nothing does not exist"):
        download(f"{url}/nothing", tmp_path / "nothing")


def test_urls_that_cannot_work_are_named() -> None:
    with pytest.raises(BatchError, match="nonsense://x"):
        Storage("nonsense://x").read("y")
    assert kind_of_names(["colmap/sparse/0/images.bin", "images/a.jpg"]) == "scene"
    assert kind_of_names(["a.jpg"]) == "photos" and kind_of_names(None) == "video"
