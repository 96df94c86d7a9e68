"""How Sphinx makes the site of these pages: `make docs`. It needs no network, and this package installed.

The pages are written for two readers, GitHub and Sphinx, and their links are those that GitHub follows. Sphinx cannot
follow a link out of `docs/`, so such links are led to a page of the site here, see `PAGES`.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

project = "surface_sos_ns"
author = "the authors of surface_sos_ns"
copyright = "the authors of surface_sos_ns, Apache-2.0"
release = version = version_of("surface-sos-ns")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = [
    "_build",
    "nerfstudio",  # for nerfstudio's site
]
smartquotes = False  # it would make a dash of the two in front of an option
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False

myst_heading_anchors = 6  # as GitHub makes them: links to headings work there and here

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpick_ignore_regex = [
    # Of other packages, whose pages would have to be fetched.
    (r"py:.*", r"(np|numpy|torch|trimesh|nerfstudio|pathlib|collections|typing|contextlib)\..*"),
    # Of this package, but not meant to be used from outside.
    (r"py:class", r"surface_sos_ns\..*\.(SurfaceSOSModel|CaptureDataManagerConfig|PartHead)"),
]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "guides/security.md",
    "configs/README.md": "reference/recipes.md",
    "configs/bench/README.md": "reference/benchmark_recipes.md",
    "examples": "reference/examples.md",
}
"""Pages of the site that stand for what is outside `docs/`."""
SHOWN = {
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "reference/recipes": "configs/README.md",
    "reference/benchmark_recipes": "configs/bench/README.md",
}
"""Pages that are no more than a link on GitHub: in the site they have the text that it leads to."""
CODE = re.compile(r"^(```.*?^```)", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)\s#]+)")


def with_links_of_the_site(text: str, folder: Path, page: Path) -> str:
    """A page's text, with links that Sphinx can follow.

    Args:
        text: Markdown whose links are relative to `folder`.
        folder: where it comes from.
        page: the file of the page that it is shown on, in `docs/`.
    """

    def led(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if target.is_relative_to(ROOT):
            inside = PAGES.get(target.relative_to(ROOT).as_posix())
            target = target if inside is None else HERE / inside
        return Path(os.path.relpath(target, page.parent)).as_posix()

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(led, part) for part in parts[::2]]
    return "".join(parts)


def read(app: Any, name: str, source: list[str]) -> None:
    """Called by Sphinx with the text of each page before it is parsed."""
    page = HERE / f"{name}.md"
    origin = ROOT / SHOWN[name] if name in SHOWN else page
    text = origin.read_text(encoding="utf-8") if name in SHOWN else source[0]
    source[0] = with_links_of_the_site(text, origin.parent, page)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read)
