"""Patch features: the descriptor's invariances, and real loading code with a tiny network of random weights."""

import numpy as np
import pytest
import torch

from surface_sos_ns.masks import features
from surface_sos_ns.masks.features import ColourTexture, FeatureChoice, PhotoFeatures, SelfSupervised
from surface_sos_ns.masks.provider import MaskError


def textured(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """A photo of coloured blobs, without flat areas."""
    import cv2

    noise = np.random.default_rng(seed).random((height // 8, width // 8, 3)).astype(np.float32)
    return (cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)


def test_descriptor_shape_and_length():
    grid = ColourTexture().features([textured(240, 320)])[0]
    assert grid.shape[:2] == (60, 80)
    assert grid.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(grid, axis=-1), 1, atol=1e-5)
    portrait = ColourTexture().features([textured(1920, 1080)])[0]
    assert portrait.shape[:2] == (80, 45)


def test_descriptor_of_a_photo_does_not_depend_on_the_others():
    first, second = textured(seed=0), textured(seed=1)
    alone = ColourTexture().features([first])[0]
    together = ColourTexture().features([second, first])[1]
    np.testing.assert_array_equal(alone, together)


def unlifted(grid: np.ndarray) -> np.ndarray:
    """The entries before they were put on the unit sphere: the constant last entry undoes the division."""
    return grid[..., :-1] / grid[..., -1:] * ColourTexture.LIFT


def test_mirroring_mirrors_all_but_diagonals_and_position():
    photo = textured()
    plain = unlifted(ColourTexture().features([photo])[0])
    mirrored = unlifted(ColourTexture().features([photo[:, ::-1].copy()])[0])[:, ::-1]
    colours, edges, place = slice(0, 15), slice(15, 23), slice(23, 25)
    np.testing.assert_allclose(mirrored[..., colours], plain[..., colours], atol=2e-3)
    swapped = plain[..., edges][..., [0, 3, 2, 1, 4, 7, 6, 5]]
    np.testing.assert_allclose(mirrored[..., edges], swapped, atol=2e-3)
    np.testing.assert_allclose(mirrored[..., place] * [-1, 1], plain[..., place], atol=1e-5)


def test_shift_by_a_patch_moves_the_grid():
    wide = textured(240, 360)
    one = unlifted(ColourTexture().features([wide[:, :320].copy()])[0])
    other = unlifted(ColourTexture().features([wide[:, 4:324].copy()])[0])
    inner = slice(12, -12)
    np.testing.assert_allclose(other[inner, 11:-13, :23], one[inner, 12:-12, :23], atol=2e-3)


def test_colour_and_texture_both_tell_patches_apart():
    photo = np.full((240, 320, 3), 128, np.uint8)
    photo[:, 80:160] = (180, 100, 100)
    photo[:, 160:240:4] = 90  # upright stripes of the same mean grey
    photo[:, 162:240:4] = 166
    grid = ColourTexture().features([photo])[0]
    grey, red, stripes, again = (grid[30, column] for column in (10, 30, 50, 70))
    assert grey @ again > 0.99
    assert grey @ red < grey @ again - 0.03
    assert grey @ stripes < grey @ again - 0.03


def test_photo_without_class_token_is_the_mean_of_its_patches():
    photo = ColourTexture().describe([textured()])[0]
    np.testing.assert_array_equal(photo.patches, ColourTexture().features([textured()])[0])
    mean = photo.patches.reshape(-1, photo.patches.shape[-1]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(photo.whole, mean / np.linalg.norm(mean), atol=1e-6)
    assert not photo.has_token


def test_tokens_of_a_transformer():
    """Class token, two registers, then a grid of 2 x 3."""
    tokens = np.zeros((9, 4), np.float32)
    tokens[0], tokens[1:3] = [0, 3, 4, 0], 7
    tokens[3:, 0] = 2
    tokens[5] = [0, 0, 0, 5]  # third patch of the first row
    photo = PhotoFeatures.of_tokens(tokens, 2, 3)
    np.testing.assert_allclose(photo.whole, [0, 0.6, 0.8, 0])
    expected = np.zeros((2, 3, 4))
    expected[..., 0] = 1
    expected[0, 2] = [0, 0, 0, 1]
    np.testing.assert_array_equal(photo.patches, expected)
    assert photo.has_token
    alone = PhotoFeatures.of_tokens(tokens[3:], 2, 3)
    np.testing.assert_array_equal(alone.patches, expected)
    np.testing.assert_allclose(alone.whole, np.array([5, 0, 0, 1]) / np.sqrt(26), atol=1e-6)
    assert not alone.has_token


def test_fingerprint_of_the_descriptor():
    assert ColourTexture().fingerprint() == ColourTexture().fingerprint() != ColourTexture(8).fingerprint()


# ------------------------------------------------------------------------------------------------------ networks


@pytest.fixture
def tiny_network(tmp_path):
    """A folder with a DINOv2 of two small layers and random weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is an optional dependency")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny", network


def test_network_from_a_folder(tiny_network, monkeypatch):
    folder, network = tiny_network
    monkeypatch.setattr(features, "NETWORK_PATCHES", 8)
    loaded = SelfSupervised(str(folder))
    assert loaded.patch == 14
    photo = textured(84, 112)  # 6 x 8 patches as it is
    grid = loaded.features([photo])[0]
    assert grid.shape == (6, 8, 24)
    np.testing.assert_allclose(np.linalg.norm(grid, axis=-1), 1, atol=1e-5)
    pixels = (torch.from_numpy(photo).float() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        tokens = network(pixel_values=pixels.permute(2, 0, 1)[None]).last_hidden_state[0, 1:]
    expected = torch.nn.functional.normalize(tokens, dim=-1).reshape(6, 8, 24).numpy()
    np.testing.assert_allclose(grid, expected, atol=1e-4)
    described = loaded.describe([photo])[0]
    np.testing.assert_array_equal(described.patches, grid)
    with torch.no_grad():
        token = network(pixel_values=pixels.permute(2, 0, 1)[None]).last_hidden_state[0, 0]
    np.testing.assert_allclose(described.whole, torch.nn.functional.normalize(token, dim=0).numpy(), atol=1e-4)
    assert described.has_token


def test_fingerprint_of_a_network_is_that_of_its_weights(tiny_network):
    folder, network = tiny_network
    before = SelfSupervised(str(folder)).fingerprint()
    assert SelfSupervised(str(folder)).fingerprint() == before
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    network.save_pretrained(folder)
    assert SelfSupervised(str(folder)).fingerprint() != before


def test_first_dino_takes_photos_that_are_not_square(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers is an optional dependency")
    monkeypatch.setattr(features, "NETWORK_PATCHES", 6)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    grid = SelfSupervised(str(tmp_path / "vit")).features([textured(120, 240)])[0]
    assert grid.shape == (3, 6, 16)


def test_network_without_patches_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is an optional dependency")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(MaskError, match="no vision transformer"):
        SelfSupervised(str(tmp_path / "bert"))


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="transformers is an optional dependency")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MaskError, match="facebook/dinov2-small are not in the cache.*--features descriptor"):
        SelfSupervised("facebook/dinov2-small", cached_only=True)
    with pytest.raises(MaskError, match="nowhere"):
        FeatureChoice("auto", str(tmp_path / "nowhere")).load()  # a model that is named is never replaced


def test_library_that_is_not_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MaskError, match=r"pip install 'surface-sos-ns\[masks\]'"):
        FeatureChoice("network").load()
    assert isinstance(FeatureChoice("auto").load(), ColourTexture)


def test_auto_without_weights_and_network_is_the_descriptor_at_once(monkeypatch):
    pytest.importorskip("transformers", reason="transformers is an optional dependency")
    asked = []

    def load(model, cached_only=False):
        asked.append(cached_only)
        raise MaskError("no weights")

    def refuse(address, timeout):
        raise OSError("no network")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(features, "SelfSupervised", load)
    monkeypatch.setattr(features, "urlopen", refuse)
    assert isinstance(FeatureChoice("auto").load(), ColourTexture)
    assert asked == [True]


def test_choice():
    assert isinstance(FeatureChoice("descriptor").load(), ColourTexture)
    with pytest.raises(MaskError, match="auto, network or descriptor"):
        FeatureChoice("dino")
    with pytest.raises(MaskError, match="has no model"):
        FeatureChoice("descriptor", "facebook/dinov2-small")


def test_auto_prefers_the_network(tiny_network, monkeypatch):
    folder, _ = tiny_network
    monkeypatch.setattr(features, "DEFAULT_MODEL", str(folder))
    choice = FeatureChoice()
    loaded = choice.load()
    assert isinstance(loaded, SelfSupervised)
    assert choice.load() is loaded
