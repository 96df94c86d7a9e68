"""What nerfstudio finds of us, and what finding it costs. Fresh interpreters, since imports happen once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

METHODS = {"surface-sos", "surface-sos-lite", "surface-sos-paper", "nerf-sos", "nerf-sos-lite"}
HEAVY = ["numba", "tinycudann", "pycolmap", "open3d", "embreex", "sklearn", "skimage", "lpips"]

LOOK = """
import json, sys
try:
    import socket
    def no_network(*args): raise OSError("no network here")
    socket.socket.connect = no_network
    {imports}
finally:
    import torch
    print()
    print(json.dumps({{
        "heavy": [name for name in {heavy} if name in sys.modules],
        "cuda": torch.cuda.is_initialized(),
        "found": {found},
    }}))
"""


def look(imports: str, found: str) -> dict:
    code = LOOK.format(imports=imports, found=found, heavy=HEAVY)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.seconds(6)
def test_importing_the_methods_first_is_light_and_goes_in_no_circle() -> None:
    found = look(
        "from surface_sos_ns.plugin import methods",
        "sorted(s.config.method_name for s in methods.SPECIFICATIONS)",
    )
    assert found == {"heavy": [], "cuda": False, "found": sorted(METHODS)}


@pytest.mark.seconds(7)
def test_nerfstudio_lists_the_methods_and_the_parser() -> None:
    found = look(
        "from nerfstudio.configs.method_configs import all_methods\n"
        "    from nerfstudio.configs.dataparser_configs import all_dataparsers",
        "sorted([*all_methods, *all_dataparsers])",
    )
    assert found["heavy"] == [] and found["cuda"] is False
    assert {*METHODS, "surface-sos-data"} <= set(found["found"])


def test_presets_share_the_host_settings() -> None:
    from surface_sos_ns.plugin.methods import surface_sos, surface_sos_lite, surface_sos_paper
    from surface_sos_ns.training.presets import RATES

    full, lite, paper = (spec.config for spec in (surface_sos, surface_sos_lite, surface_sos_paper))
    assert lite.max_num_iterations < full.max_num_iterations < paper.max_num_iterations
    for config in (full, lite, paper):
        assert set(config.optimizers) == set(RATES)
        for name, rate in RATES.items():
            optimizer = config.optimizers[name]["optimizer"]
            assert (optimizer.lr, optimizer.eps) == (rate.lr, rate.eps)
            assert optimizer.setup([torch.nn.Parameter(torch.zeros(1))]).defaults["betas"] == rate.betas
        assert config.machine.device_type == "auto" and config.vis == "viewer"
        assert config.steps_per_save <= config.max_num_iterations // 10, "a kill costs a tenth of the run at most"
        assert config.pipeline.model.total_steps is None, "follows max_num_iterations when a run starts"
    assert type(full.pipeline.model) is type(lite.pipeline.model) is type(paper.pipeline.model)
