"""A mapped capture in nerfstudio's layout, written by nerfstudio's own converter, as ns-process-data does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

__all__ = ["write_scene"]

MODEL = Path("colmap/sparse/0")


def write_scene(folder: Path, model: Any) -> None:
    """Writes COLMAP's model, ``sparse_pc.ply`` and, at last, ``transforms.json``, each whole or not at all.

    Args:
        folder: of the scene, with the photos in images/.
        model: pycolmap's reconstruction, the names of its images relative to images/.

    Raises:
        WriteError: they cannot be written.
    """
    from nerfstudio.process_data.colmap_utils import colmap_to_json

    from surface_sos_ns.utils.files import WriteError, temporary_folder, writing

    with temporary_folder(folder) as partial, writing(folder):
        (partial / MODEL).mkdir(parents=True)
        model.write_binary(str(partial / MODEL))
        if not _is_whole(partial / MODEL, model):
            raise WriteError(f"{folder / MODEL} could not be written; is the disk full?")
        with contextlib.redirect_stdout(io.StringIO()):  # it dumps the cameras where there are several
            colmap_to_json(recon_dir=partial / MODEL, output_dir=partial)
        written = partial / "transforms.json"
        content = json.loads(written.read_text(encoding="utf-8"))
        # With several cameras each frame has a lens of its own, but nerfstudio looks for its kind here only.
        content.setdefault("camera_model", content["frames"][0].get("camera_model"))
        content["frames"].sort(key=lambda frame: frame["file_path"])
        written.write_text(json.dumps(content, indent=4), encoding="utf-8")
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        (folder / MODEL).parent.mkdir(parents=True, exist_ok=True)
        for name in (str(MODEL), "sparse_pc.ply", "transforms.json"):
            os.replace(partial / name, folder / name)


def _is_whole(folder: Path, model: Any) -> bool:
    """Whether a model was written to its end: pycolmap does not say where it was not."""
    try:
        written = type(model)(str(folder))
    except (OSError, RuntimeError, ValueError):
        return False
    return bool(written.num_images() == model.num_images() and written.num_points3D() == model.num_points3D())
