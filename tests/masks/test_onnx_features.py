"""Features from ONNX files: networks whose output is known, and files that are refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_sos_ns.masks import features
from surface_sos_ns.masks.auto import Auto
from surface_sos_ns.masks.features import FeatureChoice
from surface_sos_ns.masks.onnx_external import external_files
from surface_sos_ns.masks.onnx_features import OnnxFeatures, patch_layout
from surface_sos_ns.masks.provider import MaskError
from tests.helpers.onnx_files import PATCH, external_tensor, field, model, node, patch_network, value

needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is an optional dependency"
)

DEPTH = 6
BEFORE = np.random.default_rng(1).normal(size=(5, DEPTH)).astype(np.float32)
"""A class token and four registers."""


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(DEPTH, 3, PATCH, PATCH)).astype(np.float32)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected_patches(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What the network gives for a photo of whole patches, patch by patch, each vector of length 1."""
    pixels = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    result = np.empty((rows, columns, DEPTH))
    for row in range(rows):
        for column in range(columns):
            patch = pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            result[row, column] = np.einsum("hwc,dchw->d", patch, weights)
    return result / np.linalg.norm(result, axis=-1, keepdims=True)


# --------------------------------------------------------------------------------------------------------- networks


@needs_onnxruntime
@pytest.mark.parametrize("count", [0, 1, 5])
def test_tokens_of_photos_of_any_size(tmp_path: Path, weights: np.ndarray, monkeypatch, count: int) -> None:
    monkeypatch.setattr(features, "NETWORK_PATCHES", 8)
    loaded = OnnxFeatures(patch_network(tmp_path / "net.onnx", weights, before=BEFORE[:count]))
    assert loaded.patch == PATCH and loaded.name == "net.onnx"
    lines: list[str] = []
    wide, tall = loaded.describe([photo(84, 112), photo(112, 56)], lines.append)
    assert lines == ["features: net.onnx, photo 1 of 2"]
    assert tall.patches.shape == (8, 4, DEPTH) and wide.patches.dtype == np.float32
    np.testing.assert_allclose(wide.patches, expected_patches(photo(84, 112), weights), atol=1e-4)
    assert wide.has_token == (count > 0)
    whole = BEFORE[0] if count else wide.patches.mean(axis=(0, 1))
    np.testing.assert_allclose(wide.whole, whole / np.linalg.norm(whole), atol=1e-6)


@needs_onnxruntime
def test_map_of_features(tmp_path: Path, weights: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(features, "NETWORK_PATCHES", 8)
    found = OnnxFeatures(patch_network(tmp_path / "net.onnx", weights)).describe([photo(84, 112)])[0]
    np.testing.assert_allclose(found.patches, expected_patches(photo(84, 112), weights), atol=1e-4)
    assert not found.has_token


@needs_onnxruntime
def test_photo_is_stretched_to_a_fixed_size(tmp_path: Path, weights: np.ndarray) -> None:
    loaded = OnnxFeatures(patch_network(tmp_path / "net.onnx", weights, (56, 84), BEFORE[:1]))
    found = loaded.describe([photo(300, 100)])[0]
    stretched = cv2.resize(photo(300, 100), (84, 56), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found.patches, expected_patches(stretched, weights), atol=1e-4)


@needs_onnxruntime
def test_network_that_takes_squares_only_although_its_size_is_free(tmp_path: Path, weights: np.ndarray) -> None:
    loaded = OnnxFeatures(patch_network(tmp_path / "net.onnx", weights, before=BEFORE[:1], positions=256))
    assert loaded.describe([photo(84, 112)])[0].patches.shape == (16, 16, DEPTH)


@needs_onnxruntime
def test_weights_beside_the_file(tmp_path: Path, weights: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(features, "NETWORK_PATCHES", 8)
    (tmp_path / "net.bin").write_bytes(weights.tobytes())
    found = OnnxFeatures(patch_network(tmp_path / "net.onnx", weights, external="net.bin")).features([photo(84, 112)])
    np.testing.assert_allclose(found[0], expected_patches(photo(84, 112), weights), atol=1e-4)


@needs_onnxruntime
def test_fingerprint_is_that_of_all_weights(tmp_path: Path, weights: np.ndarray) -> None:
    def fingerprint(name: str) -> str:
        (tmp_path / "net.bin").write_bytes(weights.tobytes())
        return OnnxFeatures(patch_network(tmp_path / name, weights, external="net.bin")).fingerprint()

    before = fingerprint("a.onnx")
    assert fingerprint("b.onnx") == before, "the name does not matter"
    weights[0, 0, 0, 0] += 1
    assert fingerprint("a.onnx") != before


@pytest.mark.parametrize(
    ("shape", "height", "width", "layout"),
    [
        ((1, 257, 384), 224, 224, (14, 1)),  # DINOv2
        ((1, 261, 384), 224, 224, (14, 5)),  # DINOv2 with registers
        ((1, 785, 384), 224, 224, (8, 1)),  # DINO
        ((1, 201, 384), 224, 224, (16, 5)),  # DINOv3
        ((1, 1369, 768), 518, 518, (14, 0)),
        ((1, 513, 384), 224, 448, (14, 1)),
        ((1, 768, 14, 28), 224, 448, (16, 0)),
        ((1, 258, 384), 224, 224, None),
        ((1, 14, 28, 768), 224, 448, None),
        ((2, 257, 384), 224, 224, None),
        ((1, 1000), 224, 224, None),
    ],
)
def test_layout_of_outputs(shape, height, width, layout) -> None:
    assert patch_layout(shape, height, width) == layout


# --------------------------------------------------------------------------------------------------------- refusals


@needs_onnxruntime
def test_files_that_are_no_vision_transformer(tmp_path: Path) -> None:
    path, image = tmp_path / "net.onnx", value("image", (1, 3, "height", "width"))
    path.write_bytes(b"")
    with pytest.raises(MaskError, match="net.onnx cannot be loaded by onnxruntime"):
        OnnxFeatures(path)
    path.write_bytes(model([node("Identity", ["x"], "y")], [value("x", (1, 5))], [value("y", (1, 5))]))
    with pytest.raises(MaskError, match=r"takes x \[1, 5\] tensor\(float\); expected one input, an image"):
        OnnxFeatures(path)
    path.write_bytes(model([node("GlobalAveragePool", ["image"], "y")], [image], [value("y", (1, 3, 1, 1))]))
    with pytest.raises(MaskError, match=r"for an image of 448 x 224 pixels it gives y \(1, 3, 1, 1\); expected tokens"):
        OnnxFeatures(path)
    grey = value("image", (1, 1, 224, 224))
    path.write_bytes(model([node("Identity", ["image"], "y")], [grey], [value("y", (1, 1, 224, 224))]))
    with pytest.raises(MaskError, match="expected one input, an image"):
        OnnxFeatures(path)


@needs_onnxruntime
def test_custom_operators_are_refused(tmp_path: Path) -> None:
    """onnxruntime would need a library for them, which we never load."""
    image = value("image", (1, 3, "height", "width"))
    (tmp_path / "net.onnx").write_bytes(
        model([node("Run", ["image"], "y", domain="theirs")], [image], [value("y", (1, 3))])
    )
    with pytest.raises(MaskError, match=r"net.onnx cannot be loaded by onnxruntime \(.*theirs"):
        OnnxFeatures(tmp_path / "net.onnx")


@needs_onnxruntime
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, weights: np.ndarray) -> None:
    weights[0, 0, 0, 0] = np.nan
    with pytest.raises(MaskError, match="numbers that are not finite"):
        OnnxFeatures(patch_network(tmp_path / "net.onnx", weights)).describe([photo(84, 112)])


def test_a_file_or_package_that_is_missing(tmp_path: Path, weights: np.ndarray, monkeypatch) -> None:
    with pytest.raises(MaskError, match=r"absent.onnx is not there"):
        OnnxFeatures(tmp_path / "absent.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MaskError, match=r"net.onnx needs the package onnxruntime.*pip install 'surface-sos-ns\[onnx\]'"
    ):
        OnnxFeatures(patch_network(tmp_path / "net.onnx", weights))


@pytest.mark.parametrize("name", ["../secret.bin", "inner/../../secret.bin", "link.bin", "ABSOLUTE"])
def test_weights_outside_of_the_folder_are_refused(tmp_path: Path, weights: np.ndarray, name: str) -> None:
    secret, folder = tmp_path / "secret.bin", tmp_path / "models"
    secret.write_bytes(weights.tobytes())
    (folder / "inner").mkdir(parents=True)
    (folder / "link.bin").symlink_to(secret)
    path = patch_network(folder / "net.onnx", weights, external=name.replace("ABSOLUTE", str(secret)))
    with pytest.raises(MaskError, match=r"secret.bin|link.bin, outside of its own folder"):
        external_files(path)


def test_weights_are_looked_for_wherever_a_tensor_may_be(tmp_path: Path) -> None:
    """An attribute, a branch of a condition, a sparse tensor, a function, a graph for training."""
    (tmp_path / "w.bin").write_bytes(bytes(4))
    weights = external_tensor("w", (1,), "w.bin")
    attribute = field(5, weights)
    inner = field(5, weights)
    path = tmp_path / "net.onnx"
    for content in (
        field(7, field(1, field(5, attribute))),
        field(7, field(1, field(5, field(10, weights)))),
        field(7, field(1, field(5, field(6, inner)))),
        field(7, field(1, field(5, field(11, field(1, field(5, attribute)))))),
        field(7, field(1, field(5, field(22, field(2, weights))))),
        field(7, field(15, field(1, weights))),
        field(25, field(7, field(5, attribute))),
        field(25, field(11, attribute)),
        field(20, field(1, inner)),
    ):
        path.write_bytes(field(1, 8) + content)
        assert external_files(path) == [tmp_path / "w.bin"]
    path.write_bytes(field(7, field(8, weights)))
    assert external_files(path) == [], "field 8 of a graph is no tensor"


def test_weights_that_are_missing_or_behind_the_link_of_a_cache(tmp_path: Path, weights: np.ndarray) -> None:
    """huggingface's cache keeps files under their digests, and links to them where they have names."""
    for folder in ("blobs", "named"):
        (tmp_path / folder).mkdir()
    patch_network(tmp_path / "blobs" / "1", weights, external="net.bin")
    (tmp_path / "named" / "net.onnx").symlink_to(tmp_path / "blobs" / "1")
    with pytest.raises(MaskError, match=r"reads weights from net.bin, which is not there"):
        external_files(tmp_path / "named" / "net.onnx")
    (tmp_path / "blobs" / "2").write_bytes(weights.tobytes())
    (tmp_path / "named" / "net.bin").symlink_to(tmp_path / "blobs" / "2")
    assert external_files(tmp_path / "named" / "net.onnx") == [tmp_path / "blobs" / "2"]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        assert external_files(path) == []
    except MaskError as error:
        assert "any.onnx is no ONNX file, or a damaged one" in str(error)


def test_a_file_is_damaged_wherever_it_ends(tmp_path: Path, weights: np.ndarray) -> None:
    path = patch_network(tmp_path / "net.onnx", weights[:1, :, :2, :2])
    whole = path.read_bytes()
    for end in range(3, len(whole) - 30):  # inside the graph
        path.write_bytes(whole[:end])
        with pytest.raises(MaskError, match="a damaged one"):
            external_files(path)


def test_a_field_number_that_protobuf_would_cut(tmp_path: Path, weights: np.ndarray) -> None:
    (tmp_path / "net.onnx").write_bytes(field(7 + 2**29, field(5, external_tensor("w", (1,), "../secret.bin"))))
    with pytest.raises(MaskError, match="a field number that is too large"):
        external_files(tmp_path / "net.onnx")


# ----------------------------------------------------------------------------------------------------------- choice


@needs_onnxruntime
def test_choice(tmp_path: Path, weights: np.ndarray) -> None:
    choice = FeatureChoice(onnx=patch_network(tmp_path / "net.onnx", weights))
    assert isinstance(choice.load(), OnnxFeatures) and choice.load() is choice.load()


def test_features_that_exclude_each_other() -> None:
    with pytest.raises(MaskError, match="net.onnx would not be used"):
        FeatureChoice("descriptor", onnx=Path("net.onnx"))
    with pytest.raises(MaskError, match="from some/model and from net.onnx"):
        FeatureChoice(model="some/model", onnx=Path("net.onnx"))


def test_auto_does_not_replace_features_that_are_named() -> None:
    with pytest.raises(MaskError, match="absent.onnx is not there"):
        Auto(features_onnx=Path("absent.onnx")).check()
