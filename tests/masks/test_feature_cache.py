"""Features on disk: computed once, and again where photos, weights or files are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.masks import feature_cache
from surface_sos_ns.masks.feature_cache import cached_features
from surface_sos_ns.masks.features import PatchFeatures, PhotoFeatures, normalised


class Counting(PatchFeatures):
    """Random features that depend on the photo; remembers how often it was asked."""

    name, patch = "counting", 8

    def __init__(self, weights: str = "one") -> None:
        self.weights, self.described = weights, 0

    def fingerprint(self) -> str:
        return self.weights

    def describe(self, images, progress=None) -> list[PhotoFeatures]:
        self.described += len(images)
        grids = [normalised(np.random.default_rng(int(image.sum())).normal(size=(6, 8, 384))) for image in images]
        return [PhotoFeatures(grid, grid[0, 0], True) for grid in grids]


@pytest.fixture
def images() -> list[np.ndarray]:
    """12 photos, upright and lying."""
    photos = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    return [photo if index % 2 else photo.transpose(1, 0, 2) for index, photo in enumerate(photos)]


def same(first: list[PhotoFeatures], second: list[PhotoFeatures]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(one.patches, other.patches)
        and np.array_equal(one.whole, other.whole)
        and one.has_token == other.has_token
        for one, other in zip(first, second, strict=True)
    )


def test_computed_once(tmp_path: Path, images: list[np.ndarray]) -> None:
    lines: list[str] = []
    first = cached_features(Counting(), images, tmp_path / "features", lines.append)
    assert lines == [f"features: counting, photo {number} of 12" for number in (1, 11)]
    again, lines = Counting(), []
    second = cached_features(again, images, tmp_path / "features", lines.append)
    assert again.described == 0 and lines == []
    assert same(first, second)
    assert sum(file.stat().st_size for file in (tmp_path / "features").iterdir()) < 12 * (2 * 6 * 8 * 384 + 3000)
    exact = Counting().describe(images)
    for photo, whole in zip(second, exact, strict=True):
        assert photo.patches.dtype == np.float32
        np.testing.assert_allclose(photo.patches, whole.patches, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(photo.patches, axis=-1), 1, atol=1e-6)
        np.testing.assert_array_equal(photo.whole, whole.whole)


def test_what_has_changed_is_computed_again(tmp_path: Path, images: list[np.ndarray], monkeypatch) -> None:
    cached_features(Counting(), images, tmp_path)

    def computed(provider: Counting) -> tuple[int, list[str]]:
        lines: list[str] = []
        assert same(
            cached_features(provider, images, tmp_path, lines.append), cached_features(provider, images, tmp_path)
        )
        return provider.described, [line for line in lines if "computed again" in line]

    images[3] = images[3].copy()
    images[3][0, 0, 0] ^= 1
    words = f"features: 1 of 12 files in {tmp_path} are damaged or of other photos or weights; they are computed again"
    assert computed(Counting()) == (1, [words])
    images[4] = images[4].reshape(64, 48, 3)[:, ::-1]
    assert computed(Counting())[0] == 1
    images[5] = images[5].reshape(64, 48, 3)  # the same bytes in another shape
    assert computed(Counting())[0] == 1
    assert computed(Counting("two"))[0] == 12
    monkeypatch.setattr(feature_cache, "FEATURES_VERSION", 99)
    assert computed(Counting("two"))[0] == 12
    images.append(images[0])
    assert computed(Counting("two")) == (1, []), "nothing was there to be damaged"


def test_what_was_interrupted_goes_on(tmp_path: Path, images: list[np.ndarray]) -> None:
    class Stopped(Counting):
        def describe(self, images, progress=None) -> list[PhotoFeatures]:
            if self.described == 5:
                raise KeyboardInterrupt
            return super().describe(images, progress)

    with pytest.raises(KeyboardInterrupt):
        cached_features(Stopped(), images, tmp_path)
    rest = Counting()
    cached_features(rest, images, tmp_path)
    assert rest.described == 7


def test_damaged_files_are_never_believed(tmp_path: Path, images: list[np.ndarray]) -> None:
    whole = cached_features(Counting(), images[:1], tmp_path)
    file = tmp_path / "00000.npz"
    content = file.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(content)
        bad[generator.integers(len(bad))] ^= 1 << generator.integers(8)
        file.write_bytes(bad)
        assert same(cached_features(Counting(), images[:1], tmp_path), whole)
    for bad in (b"", content[:-100], b"no archive at all"):
        file.write_bytes(bad)
        provider, lines = Counting(), []
        assert same(cached_features(provider, images[:1], tmp_path, lines.append), whole)
        assert provider.described == 1 and "damaged" in lines[0]
        assert file.read_bytes() != bad


def test_a_file_cannot_bring_objects(tmp_path: Path, images: list[np.ndarray]) -> None:
    """Objects in an archive are pickled, and a pickle can run code."""
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return Path.touch, (touched,)

    np.savez(tmp_path / "00000.npz", fingerprint=np.array([Evil()], dtype=object))
    provider = Counting()
    cached_features(provider, images[:1], tmp_path)
    assert provider.described == 1 and not touched.exists()
