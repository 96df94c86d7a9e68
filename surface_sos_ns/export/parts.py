"""Parts of an object in an export: which results are meant, its meshes, and what is said about the parts."""

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
from surface_sos_ns.export.objects import Subject, subjects
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.utils.files import write_bytes
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.part_metrics import face_labels

if TYPE_CHECKING:
    import trimesh

    from surface_sos_ns.api import Run
    from surface_sos_ns.plugin.part_results import PartResult

__all__ = [
    "PART_FACTS",
    "part_facts",
    "part_identity",
    "part_meshes",
    "part_names",
    "parts_of",
    "with_parts",
    "write_part_meshes",
]

PART_FACTS = "parts.json"


def with_parts(run: Run, settings: ExportSettings) -> ExportSettings:
    """The settings, without parts where all is asked for and there are none.

    Args:
        run: opened.
        settings: of `with_objects`.

    Raises:
        ExportError: parts are asked for by name, and there is no such result.
    """
    by_name = "parts" in settings.what or settings.parts is not None
    if "parts" not in settings.kinds or parts_of(run, settings):
        return settings
    if not by_name:
        return replace(settings, what=tuple(kind for kind in settings.kinds if kind != "parts"))
    try:
        run.part_result(settings.parts, next(iter(settings.objects), None))
    except RunError as error:
        raise ExportError(str(error)) from error
    return settings


def parts_of(run: Run, settings: ExportSettings) -> list[tuple[Subject, PartResult]]:
    """The result that is exported, or that of each of several objects that has one; none where none is asked for."""
    if "parts" not in settings.kinds:
        return []
    found = []
    for subject in subjects(settings):
        results = [
            result
            for result in run.part_results
            if result.facts.object == subject.name and settings.parts in (None, result.parts)
        ]
        found += [(subject, result) for result in results[:1]]
    return found


def part_names(subject: Subject, parts: int) -> list[str]:
    """Names of K parts, in the order of their numbers."""
    of = "" if subject.name is None else f"{subject.name}_"
    return [f"{of}part_{number}" for number in range(1, parts + 1)]


def part_identity(run: Run, settings: ExportSettings) -> dict[str, Any]:
    """Number of parts and file digest of each exported result: the digests of two results of as many parts differ."""
    found: dict[str, Any] = {}
    for subject, result in parts_of(run, settings):
        digest = hashlib.sha256(result.file.read_bytes()).hexdigest()
        found |= {subject.file("parts"): result.parts, subject.file("part-result"): f"{result.file.name} {digest[:16]}"}
    return found


def part_facts(run: Run, settings: ExportSettings) -> dict[str, Any]:
    """What is known of each part, for a json file; of several objects by their names."""
    facts = {subject.name: _facts(subject, result) for subject, result in parts_of(run, settings)}
    return {"objects": facts} if settings.objects else facts[None]


def _facts(subject: Subject, result: PartResult) -> dict[str, Any]:
    """What is known of each part of one object: colours are 0 to 255, as in the meshes."""
    colours = identity_bytes(result.parts).tolist()
    facts = result.facts
    rows = zip(part_names(subject, result.parts), colours, facts.areas, facts.pieces, strict=True)
    return {
        "features": facts.features,
        "parts": [
            {"id": number, "name": name, "colour": colour, "share_of_surface": round(area, 4), "pieces": pieces}
            for number, (name, colour, area, pieces) in enumerate(rows, start=1)
        ],
    }


def part_meshes(subject: Subject) -> list[str]:
    """The files of the parts' mesh: mesh/parts.ply, or mesh/parts/NAME.ply."""
    return [f"mesh/{subject.folder('parts')}.{kind}" for kind in ("ply", "glb")]


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
