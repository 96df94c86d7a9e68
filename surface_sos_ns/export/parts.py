"""Parts of the object in an export: which result is meant, its meshes, and what is said about the parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.api import RunError
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.mesh import glb_file, mesh_file
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.utils.files import write_bytes
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.part_metrics import face_labels

if TYPE_CHECKING:
    import trimesh

    from surface_sos_ns.api import Run
    from surface_sos_ns.plugin.part_results import PartResult

__all__ = ["PART_FACTS", "PART_MESHES", "part_facts", "part_identity", "part_names", "with_parts", "write_part_meshes"]

PART_FACTS = "parts.json"
PART_MESHES = ("mesh/parts.ply", "mesh/parts.glb")


def with_parts(run: Run, settings: ExportSettings) -> ExportSettings:
    """The settings with the number of parts of the result that is exported; without parts where all is asked for and
    there are none.

    Raises:
        ExportError: parts are asked for by name, and there is no such result.
    """
    if "parts" not in settings.kinds:
        return settings
    by_name = "parts" in settings.what or settings.parts is not None
    if not by_name and not run.part_results:
        return replace(settings, what=tuple(kind for kind in settings.kinds if kind != "parts"))
    try:
        return replace(settings, parts=run.part_result(settings.parts).parts)
    except RunError as error:
        raise ExportError(str(error)) from error


def part_names(parts: int) -> list[str]:
    """Names of K parts, in the order of their numbers."""
    return [f"part_{number}" for number in range(1, parts + 1)]


def part_identity(result: PartResult) -> dict[str, Any]:
    """What tells results apart, also two of as many parts."""
    digest = hashlib.sha256(result.file.read_bytes()).hexdigest()
    return {"parts": result.parts, "part-result": f"{result.file.name} {digest[:16]}"}


def part_facts(result: PartResult) -> dict[str, Any]:
    """What is known of each part, for a json file: colours are 0 to 255, as in the meshes."""
    colours = identity_bytes(result.parts).tolist()
    facts = result.facts
    rows = zip(part_names(result.parts), colours, facts.areas, facts.pieces, strict=True)
    return {
        "features": facts.features,
        "parts": [
            {"id": number, "name": name, "colour": colour, "share_of_surface": round(area, 4), "pieces": pieces}
            for number, (name, colour, area, pieces) in enumerate(rows, start=1)
        ],
    }


def write_part_meshes(mesh: trimesh.Trimesh, names: list[str], paths: Iterable[Path]) -> None:
    """Writes a mesh of `Run.mesh` with parts: .ply with the property `part`, .glb with a node a part."""
    for path in paths:
        write_bytes(path, glb_file(_pieces(mesh, names)) if path.suffix == ".glb" else mesh_file(mesh, "ply"))


def _pieces(mesh: trimesh.Trimesh, names: list[str]) -> dict[str, trimesh.Trimesh]:
    """The faces of each part that has some, by its name, in the part's colour."""
    import trimesh

    labels = face_labels(np.asarray(mesh.faces), np.asarray(mesh.vertex_attributes["part"]))
    pieces = {}
    for number, (name, colour) in enumerate(zip(names, identity_bytes(len(names)), strict=True), start=1):
        faces = mesh.faces[labels == number]
        if len(faces):
            shade = np.append(colour, 255).astype(np.uint8)
            colours = np.broadcast_to(shade, (len(mesh.vertices), 4))
            pieces[name] = trimesh.Trimesh(mesh.vertices, faces, vertex_colors=colours, process=False)
            pieces[name].remove_unreferenced_vertices()
    return pieces
