"""The meshes and point clouds of an export: of the object, or of each of several and of all of them together.

| of | mesh | points |
|---|---|---|
| the only object | mesh/object.ply | mesh/object_points.ply |
| one of several | mesh/cup.ply | points/cup.ply |
| all that are exported | mesh/all.ply with the property `object`, mesh/all.glb with a node an object | points/all.ply \
with `object` |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.objects import Subject, subjects, together
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    import trimesh

    from surface_sos_ns.api import Run

__all__ = ["mesh_files", "point_file", "write_meshes"]


def point_file(subject: Subject) -> str:
    """Points on the surface of an object, for trainers that start from some."""
    return "mesh/object_points.ply" if subject.name is None else f"points/{subject.name}.ply"


def mesh_files(settings: ExportSettings) -> list[Path]:
    """The files of meshes and points that the settings ask for."""
    if "mesh" not in settings.kinds:
        return []
    return [file for subject in (*subjects(settings), *together(settings)) for file in _files(subject, settings)]


def write_meshes(run: Run, settings: ExportSettings, missing: Collection[Path]) -> None:
    """Takes the meshes that the missing files need, and writes these.

    Raises:
        ExportError: an object has no surface.
    """
    joint = [file for subject in together(settings) for file in _files(subject, settings) if file in missing]
    wanted = [
        subject for subject in subjects(settings) if joint or any(file in missing for file in _files(subject, settings))
    ]
    if not wanted:
        return
    meshes = {}
    with Stage("Taking the mesh" if not settings.objects else "Taking the meshes", len(wanted)) as stage:
        for subject in wanted:
            meshes[subject.name or ""] = mesh = _mesh(run, settings, subject)
            _write(mesh, [file for file in _files(subject, settings) if file in missing])
            stage.advance(1)
        if joint:
            _write_together(run, meshes, joint)


def _files(subject: Subject, settings: ExportSettings) -> list[Path]:
    """Its meshes and points."""
    names = [f"mesh/{subject.name or 'object'}.{kind}" for kind in dict.fromkeys(settings.mesh_format)]
    return [settings.output_dir / name for name in [*names, point_file(subject)]]


def _mesh(run: Run, settings: ExportSettings, subject: Subject) -> trimesh.Trimesh:
    from surface_sos_ns.models.surface_sos.mesh import MeshError

    try:
        return run.mesh(subject.name, settings.mesh_resolution)
    except MeshError as error:
        others = " ".join(name for name in settings.objects if name != subject.name)
        of = "" if subject.name is None else f" of {subject.name}"
        leave = "Leave mesh out of --what" + (f", or export the others: --objects {others}" if others else "")
        raise ExportError(f"No mesh{of}: {error}. {leave}.") from error


def _is_points(file: Path) -> bool:
    return file.parent.name == "points" or file.name == Path(point_file(Subject())).name


def _write(mesh: trimesh.Trimesh, files: list[Path]) -> None:
    from surface_sos_ns.export.mesh import write_mesh, write_points

    for file in filter(_is_points, files):
        write_points(mesh, file)
    write_mesh(mesh, [file for file in files if not _is_points(file)])


def _write_together(run: Run, meshes: Mapping[str, trimesh.Trimesh], files: list[Path]) -> None:
    """Writes the files of all exported objects together, of the mesh of each by its name."""
    from surface_sos_ns.export.mesh import glb_file
    from surface_sos_ns.utils.files import write_bytes

    scenes = [file for file in files if file.suffix == ".glb"]
    for file in scenes:
        write_bytes(file, glb_file(meshes))
    _write(_joined(run, meshes), [file for file in files if file not in scenes])


def _joined(run: Run, meshes: Mapping[str, trimesh.Trimesh]) -> trimesh.Trimesh:
    """Meshes of objects as one, whose vertices have the attribute `object`: the identities in the run."""
    import trimesh

    joined = trimesh.util.concatenate(list(meshes.values()))
    assert isinstance(joined, trimesh.Trimesh)
    identities = [np.full(len(mesh.vertices), run.objects.index(name) + 1) for name, mesh in meshes.items()]
    joined.vertex_attributes["object"] = np.concatenate(identities).astype(np.uint8)
    return joined
