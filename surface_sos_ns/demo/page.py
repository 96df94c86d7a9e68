"""The demo's page: pictures of every held-out view beside the truth, and the measured figures.

One HTML file with the pictures inside it (it can be mailed), and the same pictures as a contact sheet in PNG.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from surface_sos_ns.pictures import data_url

COLUMNS = (
    ("photo", "photo"),
    ("coarse", "coarse mask (input)"),
    ("mask", "our mask"),
    ("truth", "true mask"),
    ("error", "error: red extra, blue missed"),
    ("cutout", "object, cut out"),
    ("plate", "our clean plate"),
    ("true_plate", "true clean plate"),
    ("depth", "depth"),
    ("normals", "normals"),
)
MISSED, EXTRA = (50, 110, 230), (220, 60, 50)


@dataclass(frozen=True)
class Figure:
    """One line of the table of measured figures: what, the value as text, and where or how it was measured."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ViewPictures:
    """The pictures of one view, (H, W, 3) uint8 by column name of `COLUMNS` (absent ones are left out), and its IoU."""

    name: str
    tiles: dict[str, np.ndarray]
    mask_iou: float | None


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: no readable picture there.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"{path}: no readable picture there; was the render or the capture interrupted?")
    return picture[..., ::-1]


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two (H, W) bool masks; 1 where both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0


def checkerboard(height: int, width: int, cell: int = 8) -> np.ndarray:
    """(H, W, 3) float32 light grey checkerboard in 0..255."""
    y, x = np.mgrid[0:height, 0:width] // cell
    return np.repeat(np.where((x + y) % 2, 232.0, 200.0)[..., None], 3, axis=-1).astype(np.float32)


def over_checkerboard(foreground: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a foreground over black (premultiplied) put on a checkerboard; alpha (H, W) in 0..1."""
    board = checkerboard(*alpha.shape) * (1 - alpha[..., None])
    return np.clip(foreground + board, 0, 255).astype(np.uint8)


def error_map(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: object pixels white, extra ones red, missed ones blue; masks (H, W) bool."""
    picture = np.full((*mask.shape, 3), 24, np.uint8)
    picture[mask & truth] = 225
    picture[truth & ~mask] = MISSED
    picture[mask & ~truth] = EXTRA
    return picture


def collect_pictures(capture: Path, renders: Path) -> list[ViewPictures]:
    """The pictures of the held-out views, from a capture and the folder that `ns-render dataset` wrote.

    Raises:
        FileNotFoundError: a picture is missing.
    """
    transforms = json.loads((capture / "transforms.json").read_text())
    frames = {frame["file_path"]: frame for frame in transforms["frames"]}
    views = []
    for file_path in transforms["test_filenames"]:
        frame, name = frames[file_path], Path(file_path).stem
        tiles = {"photo": read_picture(capture / file_path)}
        rendered = {k: read_picture(renders / "test" / k / f"{name}.png") for k in RENDERED}
        tiles |= {"mask": rendered["mask"], "plate": rendered["background"]}
        alpha = rendered["mask"][..., 0].astype(np.float32) / 255
        tiles["cutout"] = over_checkerboard(rendered["foreground"], alpha)
        tiles |= {"depth": rendered["depth"], "normals": rendered["normals"]}
        for tile, key in (
            ("coarse", "coarse_mask_path"),
            ("truth", "gt_mask_path"),
            ("true_plate", "clean_plate_path"),
        ):
            if key in frame:
                tiles[tile] = read_picture(capture / frame[key])
        iou = None
        if "truth" in tiles:
            found, truth = rendered["mask"][..., 0] > 127, tiles["truth"][..., 0] > 127
            iou = intersection_over_union(found, truth)
            tiles["error"] = error_map(found, truth)
        views.append(ViewPictures(name, tiles, iou))
    return views


RENDERED = ("rgb", "mask", "foreground", "background", "depth", "normals")


def contact_sheet(views: list[ViewPictures], scale: int = 1) -> np.ndarray:
    """(H, W, 3) uint8: one row per view, one column per kind of picture, with a heading."""
    columns = [(key, label) for key, label in COLUMNS if any(key in v.tiles for v in views)]
    height, width = (s * scale for s in views[0].tiles["photo"].shape[:2])
    gap, head = 6, 26
    sheet = np.full((head + len(views) * (height + gap), gap + len(columns) * (width + gap), 3), 250, np.uint8)
    for c, (key, label) in enumerate(columns):
        x = gap + c * (width + gap)
        font = min(0.45, 0.45 * width / max(cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0], 1))
        cv2.putText(sheet, label, (x, 18), cv2.FONT_HERSHEY_SIMPLEX, font, (40, 40, 40), 1, cv2.LINE_AA)
        for r, view in enumerate(views):
            if key in view.tiles:
                y = head + r * (height + gap)
                tile = view.tiles[key]
                sheet[y : y + height, x : x + width] = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
    return sheet


STYLE = """
:root { color-scheme: light dark; --ink: #1d2420; --soft: #5c665f; --paper: #f6f5f0; --card: #ffffff; --line: #dcdcd3;
        --accent: #2f6b4a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e9e4; --soft: #a0aaa2; --paper: #161a18; --card: #1f2522; --line: #333b36; --accent: #7cc49a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.2rem 1rem 4rem; }
h1 { font-size: clamp(1.4rem, 4vw, 2.1rem); line-height: 1.15; margin: .6rem 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 70ch; }
.soft { color: var(--soft); font-size: .92rem; }
video { width: 100%; max-width: 800px; border-radius: 8px; background: #000; display: block; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
td, th { text-align: left; padding: .42rem .7rem; border-top: 1px solid var(--line); vertical-align: top; }
td.value { font-variant-numeric: tabular-nums; font-weight: 600; white-space: nowrap; color: var(--accent); }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(200px, 46%), 1fr)); gap: .6rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
figure img { display: block; width: 100%; height: auto; }
figcaption { padding: .25rem .5rem .35rem; font-size: .8rem; color: var(--soft); }
section { margin-top: 1.8rem; }
section h3 { font-size: 1rem; margin: 0 0 .5rem; }
section h3 span { color: var(--accent); font-weight: 600; }
"""


def write_page(
    folder: Path, views: list[ViewPictures], figures: list[Figure], *, title: str, intro: str, video: Path | None = None
) -> Path:
    """Writes index.html and contact_sheet.png into the folder; returns the path of index.html.

    Args:
        folder: made if absent; existing files of these two names are replaced.
        views: held-out views, see `collect_pictures`.
        figures: the table of measured figures, in order.
        title, intro: heading and first paragraph, plain text.
        video: a file in the folder (or below) to show at the top.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if views and not cv2.imwrite(str(folder / "contact_sheet.png"), contact_sheet(views)[..., ::-1]):
        raise OSError(f"could not write {folder / 'contact_sheet.png'}")
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(intro)}</p>"]
    if video is not None:
        link = html.escape(video.relative_to(folder).as_posix())
        parts.append(f'<video src="{link}" controls autoplay loop muted playsinline></video>')
        parts.append(
            f'<p class="soft">Every photo in turn: photo and mask, object cut out and clean plate. '
            f'<a href="{link}">{link}</a></p>'
        )
    parts.append("<h2>Measured</h2><table>")
    for figure in figures:
        parts.append(
            f"<tr><td>{html.escape(figure.name)}</td><td class='value'>{html.escape(figure.value)}</td>"
            f"<td class='soft'>{html.escape(figure.note)}</td></tr>"
        )
    parts.append("</table><h2>Held-out views</h2>")
    parts.append(
        '<p class="soft">None of these photos was used in training. The same pictures in one file: '
        '<a href="contact_sheet.png">contact_sheet.png</a></p>'
    )
    for view in views:
        score = "" if view.mask_iou is None else f" <span>mask IoU {view.mask_iou:.3f}</span>"
        parts.append(f"<section><h3>{html.escape(view.name)}{score}</h3><div class='views'>")
        for key, label in COLUMNS:
            if key in view.tiles:
                flat = key in ("coarse", "mask", "truth", "error")
                source = data_url(view.tiles[key], lossless=flat)
                parts.append(
                    f"<figure><img src='{source}' alt='{html.escape(view.name)}: {html.escape(label)}'>"
                    f"<figcaption>{html.escape(label)}</figcaption></figure>"
                )
        parts.append("</div></section>")
    document = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )
    page = folder / "index.html"
    page.write_text(document, encoding="utf-8")
    return page
