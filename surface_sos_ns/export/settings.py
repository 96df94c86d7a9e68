"""What `surface-sos export` is asked for, and what can be wrong with it before a run is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.files import check_writable

Kind = Literal["masks", "mattes", "cutouts", "clean-plates", "video", "mesh", "parts"]
KINDS: tuple[Kind, ...] = ("masks", "mattes", "cutouts", "clean-plates", "video", "mesh", "parts")
MeshFormat = Literal["ply", "obj", "glb"]


@dataclass
class ExportSettings:
    """Which of a run's findings are written, and how."""

    load_config: Path
    """The run's config.yml."""
    output_dir: Path
    """Folder of the export. The same command again completes what was interrupted, and adds what was not asked for."""
    what: tuple[Literal["masks", "mattes", "cutouts", "clean-plates", "video", "mesh", "parts", "all"], ...] = (
        "masks",
        "mattes",
        "cutouts",
    )
    """masks: black and white PNG, and COCO RLE; of several objects also identities/, PNG with a palette whose index is
    the object's number, 0 for none. mattes: 16-bit PNG. cutouts: the object with transparency, PNG.
    clean-plates: the view without the object, and how sure that is. video: mask, side by side, and the object with
    transparency (writes the cut-outs too). mesh: the object's surface with colours. parts: what surface-sos parts has
    found, as PNG of part numbers, COCO RLE and meshes. all: everything; parts where some were found."""
    objects: tuple[str, ...] = ()
    """Of a run with several objects, the names of those that are exported; all by default. Each gets folders and files
    of its name: masks/cup/, cutouts/cup/, video/cup/, mesh/cup.ply, points/cup.ply, transforms_object_cup.json. What is
    of all of them together is called all: mesh/all.ply and points/all.ply have the property object, mesh/all.glb has a
    node an object."""
    remove: tuple[str, ...] = ()
    """Of a run with several objects, the names of those that clean plates are without; all by default. The others stay
    in the picture, also where a removed one hid them."""
    views: tuple[str, ...] = ("all",)
    """all photos, train (those trained on) or test (those held out); or path FILE: a camera path of the viewer."""
    size: Literal["original", "training"] = "original"
    """Size of the pictures: of the photos, or as training used them where it used smaller ones."""
    lens: Literal["original", "undistorted"] = "original"
    """The photos' own lens, or without distortion; then the photos are written without it too, for trainers that want
    pinhole cameras."""
    plates: Literal["composited", "rendered"] = "composited"
    """Clean plates: the photo, completed where the object stands; or rendered throughout, as those of paths are."""
    fps: int = 24
    """Pictures per second of the videos."""
    transparent_video: Literal["mov", "webm"] = "mov"
    """ProRes 4444 (.mov, for editing) or VP9 with alpha (.webm, small, for browsers)."""
    mesh_format: tuple[MeshFormat, ...] = ("ply",)
    """Files of the mesh: ply, obj, glb."""
    mesh_resolution: int = 192
    """Cells per axis of the grid that the mesh is taken from."""
    mesh_faces: int | None = None
    """Triangles of a mesh, at most. By default as many as the grid gives; 50 000 where it gets a texture."""
    mesh_texture: bool = True
    """Give obj and glb files a texture from the photos; without it they have colours at the vertices, as ply files."""
    texture_size: int | None = None
    """Pixels along each side of the texture; by default about as many as the photos have of the object."""
    parts: int | None = None
    """Which result of surface-sos parts is exported, by its number of parts; the latest if this is not given."""
    data: Path | None = None
    """The capture's folder, where it was moved since training."""
    overwrite: bool = False
    """Replace the files of another export, or of anything else, that are in the way."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What is asked for, once each, with what that is made of."""
        asked = set(KINDS) if "all" in self.what else set(self.what)
        if "video" in asked:
            asked.add("cutouts")
        return tuple(kind for kind in KINDS if kind in asked)

    @property
    def path(self) -> Path | None:
        """The file of the camera path; None where photos are exported."""
        return Path(self.views[1]) if self.views[0] == "path" else None

    def check(self) -> None:
        """Looks at what can be wrong without opening the run.

        Raises:
            ExportError: an option that cannot work.
            WriteError: nothing can be written there.
            MissingPackageError: a package that what is asked for needs is not installed.
        """
        if not self.what:
            raise ExportError(f"--what names nothing; expected some of {', '.join(KINDS)}, or all.")
        known = ("all", "train", "test")
        if not (len(self.views) == 1 and self.views[0] in known) and not (
            len(self.views) == 2 and self.views[0] == "path"
        ):
            raise ExportError(
                f"--views is '{' '.join(self.views)}'; expected one of {', '.join(known)}, or path FILE, where FILE "
                "is a camera path (viewer, tab Render, or what ns-render camera-path takes)."
            )
        if self.path is not None and not self.path.is_file():
            raise ExportError(f"{self.path} does not exist; expected the json file of a camera path.")
        if self.fps < 1:
            raise ExportError(f"--fps is {self.fps}; expected at least 1 picture per second.")
        if not 16 <= self.mesh_resolution <= 1024:
            raise ExportError(f"--mesh-resolution is {self.mesh_resolution}; expected 16 to 1024 cells per axis.")
        if self.mesh_faces is not None and self.mesh_faces < 100:
            raise ExportError(f"--mesh-faces is {self.mesh_faces}; expected at least 100 triangles.")
        if self.texture_size is not None and not 64 <= self.texture_size <= 16384:
            raise ExportError(f"--texture-size is {self.texture_size}; expected 64 to 16384 pixels.")
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise ExportError(f"{self.output_dir} is a file; expected a folder, or one that is to be made.")
        if self.parts is not None and "parts" not in self.kinds:
            raise ExportError(f"--parts {self.parts} chooses a result of parts; add parts to --what, or leave it out.")
        if self.remove and "clean-plates" not in self.kinds:
            raise ExportError(
                f"--remove {' '.join(self.remove)} is about clean plates; add clean-plates to --what, or leave it out."
            )
        for kind in ("masks", "parts"):
            if kind in self.kinds:
                require_package("pycocotools", f"surface-sos export --what {kind}")
        if "cutouts" in self.kinds and self.path is None:
            require_package("pymatting", "surface-sos export --what cutouts")
        check_writable(self.output_dir)
