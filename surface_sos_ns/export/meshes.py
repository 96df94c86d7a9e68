"""The meshes and point clouds of an export: of the object, or of each of several and of all of them together.

| of | mesh | points |
|---|---|---|
| the only object | mesh/object.ply | mesh/object_points.ply |
| one of several | mesh/cup.ply | points/cup.ply |
| all that are exported | mesh/all.ply with the property `object`, mesh/all.glb with a node an object | points/all.ply \
with `object` |

.ply files have colours at the vertices, .glb and .obj files a texture from the photos, unless it is switched off;
all.obj has colours, since a texture is of one object.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.mesh import glb_file, textured_obj_files, write_mesh, write_points, write_textured_obj
from surface_sos_ns.export.objects import Subject, subjects, together
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.utils.files import write_bytes
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    import trimesh

    from surface_sos_ns.api import Run

__all__ = ["mesh_files", "point_file", "write_meshes"]

TEXTURED_FACES = 50_000
"""Triangles of a mesh with a texture, if the user does not say."""


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
        ImageError: a photo that a texture is taken from is missing, or no image.
    """
    joint = [file for subject in together(settings) for file in _files(subject, settings) if file in missing]
    files = {subject: [file for file in _files(subject, settings) if file in missing] for subject in subjects(settings)}
    wanted = [subject for subject, lacking in files.items() if joint or lacking]
    if not wanted:
        return
    meshes, with_texture = _Meshes(run, settings, textured=False), _Meshes(run, settings, textured=True)
    with Stage("Taking the mesh" if not settings.objects else "Taking the meshes", len(wanted)) as stage:
        for subject in wanted:
            for file in dict.fromkeys(map(_main_file, files[subject])):
                if _is_textured(file, settings):
                    _write_textured(with_texture(subject), file)
                else:
                    _write_coloured(meshes(subject), file)
            stage.advance(1)
        for file in joint:
            if file.suffix == ".glb":
                source = with_texture if _is_textured(file, settings) else meshes
                write_bytes(file, glb_file({subject.name or "": source(subject) for subject in wanted}))
            else:
                _write_coloured(_joined(run, {subject.name or "": meshes(subject) for subject in wanted}), file)


def _files(subject: Subject, settings: ExportSettings) -> list[Path]:
    """Its meshes and points, and what belongs to a textured .obj file."""
    found: list[Path] = []
    for kind in dict.fromkeys(settings.mesh_format):
        file = settings.output_dir / f"mesh/{subject.name or 'object'}.{kind}"
        several = kind == "obj" and _is_textured(file, settings) and subject not in together(settings)
        found += textured_obj_files(file) if several else [file]
    return [*found, settings.output_dir / point_file(subject)]


def _main_file(file: Path) -> Path:
    """The .obj file that a material or a texture belongs to; other files themselves."""
    if file.suffix == ".png":
        return file.with_name(f"{file.stem.removesuffix('_texture')}.obj")
    return file.with_suffix(".obj") if file.suffix == ".mtl" else file


def _is_textured(file: Path, settings: ExportSettings) -> bool:
    """Whether the file of an object's mesh has a texture."""
    return settings.mesh_texture and file.suffix in (".obj", ".glb")


class _Meshes:
    """The mesh of each object, taken once, when a file needs it."""

    def __init__(self, run: Run, settings: ExportSettings, textured: bool):
        self._run, self._settings, self._textured = run, settings, textured
        self._taken: dict[Subject, trimesh.Trimesh] = {}

    def __call__(self, subject: Subject) -> trimesh.Trimesh:
        """The mesh of an object.

        Raises:
            ExportError: it has no surface.
        """
        from surface_sos_ns.models.surface_sos.mesh import MeshError

        settings = self._settings
        if subject not in self._taken:
            try:
                self._taken[subject] = self._take(subject)
            except MeshError as error:
                others = " ".join(name for name in settings.objects if name != subject.name)
                of = "" if subject.name is None else f" of {subject.name}"
                leave = "Leave mesh out of --what" + (f", or export the others: --objects {others}" if others else "")
                raise ExportError(f"No mesh{of}: {error}. {leave}.") from error
        return self._taken[subject]

    def _take(self, subject: Subject) -> trimesh.Trimesh:
        settings = self._settings
        if not self._textured:
            return self._run.mesh(subject.name, settings.mesh_resolution, faces=settings.mesh_faces)
        faces = settings.mesh_faces or TEXTURED_FACES
        return self._run.textured_mesh(subject.name, settings.mesh_resolution, faces, settings.texture_size)


def _is_points(file: Path) -> bool:
    return file.parent.name == "points" or file.name == Path(point_file(Subject())).name


def _write_textured(mesh: trimesh.Trimesh, file: Path) -> None:
    if file.suffix == ".obj":
        write_textured_obj(mesh, file)
    else:
        write_mesh(mesh, [file])


def _write_coloured(mesh: trimesh.Trimesh, file: Path) -> None:
    if _is_points(file):
        write_points(mesh, file)
    else:
        write_mesh(mesh, [file])


def _joined(run: Run, meshes: Mapping[str, trimesh.Trimesh]) -> trimesh.Trimesh:
    """Meshes of objects as one, whose vertices have the attribute `object`: the identities in the run."""
    import trimesh

    joined = trimesh.util.concatenate(list(meshes.values()))
    assert isinstance(joined, trimesh.Trimesh)
    identities = [np.full(len(mesh.vertices), run.objects.index(name) + 1) for name, mesh in meshes.items()]
    joined.vertex_attributes["object"] = np.concatenate(identities).astype(np.uint8)
    return joined
