"""What reading photos takes: how much is said to be needed, what is free, and what is advised."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch

from surface_sos_ns.plugin import loading
from surface_sos_ns.plugin.dataset import joined_positions
from surface_sos_ns.plugin.split import few_photos_warning
from surface_sos_ns.utils.memory import _left_in_cgroups, free_gb


class Photos:
    """200 photos of 12 megapixels, as far as `say_memory_needs` looks at a dataset."""

    object_names = ()

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size

    def __len__(self) -> int:
        return 200

    def size(self, index: int) -> tuple[int, int]:
        return self._size

    def get_sampling_mask(self, index: int) -> np.ndarray | None:
        return None

    def get_numpy_image(self, index: int) -> np.ndarray:
        return np.zeros((1, 1, 3), np.uint8)


@pytest.mark.parametrize(("free", "factor"), [(30, 1), (8, 2), (3.5, 4), (2.7, 8), (1, None)])
def test_the_factor_fits_the_memory(free, factor):
    sizes = [(4000, 3000)] * 200  # 2.4 gigapixels at 7 bytes: 16.8 GB, and 4 MB each
    assert loading.fitting_factor(sizes, False, free) == factor
    assert loading.photos_gb(sizes) == pytest.approx(17.6)
    assert loading.photos_gb(sizes, several=True) == pytest.approx(20.0)


def test_memory_that_will_not_do_is_said_with_the_option_that_helps(monkeypatch, capsys):
    monkeypatch.setattr(loading, "free_gb", lambda: 8.0)
    loading.say_memory_needs(Photos((4000, 3000)), factor=1)
    assert f"{loading.DOWNSCALE} 2." in capsys.readouterr().out
    loading.say_memory_needs(Photos((2000, 1500)), factor=2)  # as advised
    assert "Warning" not in capsys.readouterr().out
    monkeypatch.setattr(loading, "free_gb", lambda: 2.8)
    loading.say_memory_needs(Photos((2000, 1500)), factor=2)
    assert f"{loading.DOWNSCALE} 8." in capsys.readouterr().out


def test_memory_of_a_container_counts(tmp_path):
    group = tmp_path / "cgroup" / "box"
    group.mkdir(parents=True)
    (tmp_path / "self").write_text("0::/box\n")
    for name, content in (("max", "8000"), ("current", "5000"), ("stat", "anon 1000\ninactive_file 700\n")):
        (group / f"memory.{name}").write_text(content)
    assert list(_left_in_cgroups(tmp_path / "cgroup", tmp_path / "self")) == [8000 - 5000 + 700]
    (group / "memory.max").write_text("max\n")  # no limit
    assert list(_left_in_cgroups(tmp_path / "cgroup", tmp_path / "self")) == []


def test_a_limit_of_the_process_counts():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, before[1]))
    try:
        assert 0.05 < free_gb() <= 0.11
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_few_photos_are_mentioned(count):
    assert f"{count} photos" in str(few_photos_warning(count))
    assert few_photos_warning(8) is None


def test_positions_take_32_bits_where_these_hold_them():
    parts = [np.array([1, 5]), np.array([2**31 - 1])]
    assert joined_positions(parts, 2**31 - 1).dtype == torch.int32
    wide = joined_positions([np.array([2**31])], 2**31 + 1)
    assert wide.dtype == torch.int64
    assert wide.tolist() == [2**31]
    assert joined_positions([], 10).tolist() == []
