"""A report as one HTML page: style, pictures and a few lines of script inside it, nothing fetched from anywhere."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import PurePosixPath

import numpy as np

from surface_sos_ns.report.content import (
    ADDED,
    REMOVED,
    Content,
    Figure,
    ObjectReport,
    ObjectsReport,
    PartsReport,
    Setting,
    ViewReport,
)
from surface_sos_ns.report.curves import Curve, curve_svg
from surface_sos_ns.report.turntable import COLUMNS, Turntable
from surface_sos_ns.utils.encoding import data_uri
from surface_sos_ns.utils.pictures import embedded
from surface_sos_ns.utils.text import printable

__all__ = ["page"]

LAYERS = (("mask", "Mask"), ("cutout", "Cut-out"), ("plate", "Clean plate"), ("coarse", "{}"), ("normals", "Surface"))
STRIP_PICTURES = 4  # cut-outs in the header
TRUTH = ("mask_iou", "mask_sad", "clean_plate_psnr", "psnr")
TRUTH_NAMES = {"mask_iou": "mask IoU", "mask_sad": "SAD", "clean_plate_psnr": "clean plate PSNR", "psnr": "photo PSNR"}
PART_METRICS = (
    ("parts_nmi", "NMI", "1 where both divide the object alike"),
    ("parts_ari", "adjusted Rand index", "the same; about 0 for a division by chance"),
    ("parts_share", "compared", "share of the true parts' pixels that have a found one"),
)


def page(content: Content) -> str:
    """The whole page."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    script = files(__package__).joinpath("page.js").read_text(encoding="utf-8")
    shown = [view for view in content.views if view.pictures]
    sections = [
        _header(content, shown),
        _video(content.video),
        _before_and_after(content, shown),
        _agreement(content, shown),
        _truth([view for view in shown if view.metrics]),
        _objects(content.objects),
        _parts(content.parts),
        _mesh(content.mesh),
        _curves(content),
        _section("figures", "Figures", _table(content.figures)),
        _section("settings", "Settings", _settings(content.settings)),
        _section("versions", "Versions", _table(content.versions)),
    ]
    title = _text(f"{content.title}, {content.method}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<main data-layer="mask">\n{"".join(sections)}</main>\n<script>\n{script}</script>\n</body>\n</html>\n'
    )


def _text(words: object) -> str:
    return html.escape(printable(str(words)), quote=True)


def _section(name: str, title: str, inside: str) -> str:
    return f'<section id="{name}">\n<h2>{title}</h2>\n{inside}</section>\n' if inside else ""


def _picture(picture: np.ndarray, words: str, more: str = "", quality: int = 78) -> str:
    height, width = picture.shape[:2]
    return (
        f'<img src="{embedded(picture, quality)}" alt="{_text(words)}" width="{width}" height="{height}" '
        f'decoding="async"{more}>'
    )


def _short(view: ViewReport) -> str:
    return PurePosixPath(view.name).name


# ------------------------------------------------------------------ what came out


def _header(content: Content, shown: Sequence[ViewReport]) -> str:
    best = [view for view in shown if view.found > 0]
    places = np.linspace(0, len(best) - 1, min(STRIP_PICTURES + 1, len(best)))[:STRIP_PICTURES]
    chosen = [best[round(place)] for place in places]
    strip = "".join(
        _picture(_trimmed(view.pictures["cutout"]), f"{_short(view)}: the object, cut out") for view in chosen
    )
    words = " ".join(content.sentences)
    return (
        f'<header>\n<p class="method">{_text(content.method)} · {_text(content.date)}</p>\n'
        f"<h1>{_text(content.title)}</h1>\n<p>{_text(words)}</p>\n"
        f'<div class="strip">{strip}</div>\n</header>\n'
    )


def _trimmed(picture: np.ndarray) -> np.ndarray:
    """The part of a picture (H, W, 4) that is not transparent, with a margin."""
    rows, columns = (np.flatnonzero((picture[..., 3] > 20).any(axis=axis)) for axis in (1, 0))
    margin = 4
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return np.ascontiguousarray(picture[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1])


def _video(video: bytes | None) -> str:
    if video is None:
        return ""
    return _section(
        "video",
        "Every photo in turn",
        f'<video src="{data_uri("video/mp4", video)}" controls autoplay loop muted playsinline></video>\n'
        '<p class="soft">Photo and mask above, the object cut out and the clean plate below.</p>\n',
    )


def _before_and_after(content: Content, shown: Sequence[ViewReport]) -> str:
    names = {key: words.format(content.masks.capitalize()) for key, words in LAYERS}
    present = [key for key in names if any(key in view.pictures for view in shown)]
    tabs = "".join(
        f'<label><input type="radio" name="layer" value="{key}"{" checked" if key == "mask" else ""}>'
        f"<span>{names[key]}</span></label>"
        for key in present
    )
    cards = "".join(_card(view, {key: names[key] for key in present}) for view in shown)
    count = f"{len(shown)} of {len(content.views)} photos" if len(shown) < len(content.views) else "All photos"
    return _section(
        "views",
        "Before and after",
        f'<fieldset class="tabs"><legend class="hidden">What is shown beside the photo</legend>{tabs}</fieldset>\n'
        f'<p class="soft">{count}. Drag across a picture: the photo on the left, what was found on the right.</p>\n'
        f'<div class="views">\n{cards}</div>\n',
    )


def _card(view: ViewReport, names: dict[str, str]) -> str:
    after = "".join(
        _picture(view.pictures[key], f"{view.name}: {words.lower()}", f' class="after" data-layer="{key}"')
        if key in view.pictures
        else f'<span class="after none" data-layer="{key}">no {words.lower()}</span>'
        for key, words in names.items()
    )
    held = ' <span class="tag">held out</span>' if view.held_out else ""
    return (
        f'<figure class="compare" data-view="{_text(view.name)}">\n<div class="stack">'
        f"{_picture(view.pictures['photo'], f'{view.name}: photo')}{after}"
        f'<input type="range" min="0" max="100" value="50" aria-label="{_text(view.name)}: how much of the photo is '
        f'shown"></div>\n<figcaption><span class="name">{_text(_short(view))}</span>{held}</figcaption>\n</figure>\n'
    )


# ------------------------------------------------------------------ masks


def _agreement(content: Content, shown: Sequence[ViewReport]) -> str:
    if content.masks == "nothing":
        return ""
    compared = [view for view in content.views if view.agreement is not None]
    if not compared:
        return _section("agreement", "Agreement with the coarse masks", "<p>There were no masks to compare with.</p>\n")
    guessed = content.masks == "first guess"
    others = [view for view in content.views if view.agreement is None and not (guessed and view.held_out)]
    worst_first = [*others, *sorted(compared, key=lambda view: view.agreement or 0.0)]
    said = (
        "There were no coarse masks: the object was looked for in the geometry of the capture, and these first guesses "
        "are what training started from. "
        if guessed
        else ""
    )
    if content.confidence is not None:
        said += (
            f"The masks that training started from agree with their own vote in 3D at IoU {content.confidence:.2f}. "
        )
    said += "Low agreement means that much was repaired, or that something is wrong: look at those."
    title = "Agreement with the first guesses" if guessed else "Agreement with the coarse masks"
    return _section(
        "agreement",
        title,
        f'<p class="soft">{_text(said)}</p>\n<ol class="bars">\n{"".join(map(_bar, worst_first))}</ol>\n',
    ) + _repairs([view for view in worst_first if view.pictures], content.masks)


def _bar(view: ViewReport) -> str:
    if view.agreement is None:
        words = {"missing": "had none: filled in", "empty": "was empty: filled in"}[view.given]
        return f'<li><span class="name">{_text(_short(view))}</span><span class="filled">{words}</span></li>\n'
    return (
        f'<li><span class="name">{_text(_short(view))}</span>'
        f'<span class="bar"><i style="width:{100 * view.agreement:.1f}%"></i></span>'
        f'<span class="value">{view.agreement:.3f}</span></li>\n'
    )


def _repairs(views: Sequence[ViewReport], masks: str) -> str:
    def of(view: ViewReport) -> str:
        said = "filled in" if view.agreement is None else f"{_share(view.added)} added, {_share(view.removed)} removed"
        words = f"{view.name}: where the mask differs from the {masks}"
        return (
            f"<figure>{_picture(view.pictures['repair'], words)}"
            f'<figcaption><span class="name">{_text(_short(view))}</span><br>{said}</figcaption></figure>\n'
        )

    first, rest = views[:8], views[8:]
    more = (
        f'<details><summary>{len(rest)} more</summary>\n<div class="small">\n{"".join(map(of, rest))}</div></details>\n'
        if rest
        else ""
    )
    return _section(
        "repairs",
        "Where they were repaired",
        f'<p class="soft">{_swatch(ADDED)} added &nbsp; {_swatch(REMOVED)} removed &nbsp; bright: both say object. '
        "The greatest differences come first; shares are of the whole photo.</p>\n"
        f'<div class="small">\n{"".join(map(of, first))}</div>\n{more}',
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f}\u00a0%"


def _truth(views: Sequence[ViewReport]) -> str:
    held = [view for view in views if view.held_out]
    measured = held or list(views)
    if not measured:
        return ""
    height, width = measured[0].pictures["photo"].shape[:2]
    names = [name for name in TRUTH if any(name in view.metrics for view in measured)]
    head = "".join(f'<th scope="col">{TRUTH_NAMES[name]}</th>' for name in names)

    def cell(view: ViewReport, name: str) -> str:
        value = view.metrics.get(name)
        shown = "" if value is None else f"{value:.2f}" if name.endswith("psnr") else f"{value:.3f}"
        return f'<td class="value">{shown}</td>'

    rows = "".join(
        f'<tr><th scope="row">{_text(_short(view))}</th>{"".join(cell(view, name) for name in names)}</tr>\n'
        for view in measured
    )
    maps = "".join(
        f"<figure>{_picture(view.pictures['error'], f'{view.name}: errors of the mask')}"
        f'<figcaption><span class="name">{_text(_short(view))}</span></figcaption></figure>\n'
        for view in measured
        if "error" in view.pictures
    )
    which = "Photos that training never saw" if held else "No photo was held out: these are photos of training"
    return _section(
        "truth",
        "Against the truth",
        f'<p class="soft">{which}, measured at {width} x {height} pixels. In the pictures, red is surplus and blue is '
        f'missed.</p>\n<div class="wide"><table><thead><tr><th scope="col">photo</th>{head}</tr></thead>\n'
        f'<tbody>\n{rows}</tbody></table></div>\n<div class="small">\n{maps}</div>\n',
    )


# ------------------------------------------------------------------ parts, mesh, curves, tables


def _objects(found: ObjectsReport | None) -> str:
    if found is None:
        return ""
    count, unseen = found.measured
    head = ["object", "photos", "area", "agreement", *(["IoU", "true pixels"] if count else [])]

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    def row(one: ObjectReport) -> str:
        values = [str(one.photos), _share(one.area), number(one.agreement)]
        values += [number(one.iou), f"{one.true_pixels:,}"] if count else []
        cells = "".join(f'<td class="value">{value}</td>' for value in values)
        return f'<tr><th scope="row">{_swatch(one.colour)} {_text(one.name)}</th>{cells}</tr>\n'

    cutouts = "".join(
        f"<figure>{_picture(_trimmed(one.picture), f'{one.name}, cut out')}"
        f"<figcaption>{_swatch(one.colour)} {_text(one.name)}</figcaption></figure>\n"
        for one in found.objects
        if one.picture is not None and (one.picture[..., 3] > 20).any()
    )
    said = [
        "Area: share of the photos that show the object. Agreement: IoU with the coarse masks that training started "
        "from, over all pixels of these photos."
    ]
    if count:
        which = "that training never saw" if unseen else "of training"
        photos = "1 photo" if count == 1 else f"{count} photos"
        said.append(f"IoU: with the truth, over all pixels of {photos} {which}.")
    if found.wrong_identity is not None:
        said.append(
            f"Of the pixels that are an object's in masks and truth, {100 * found.wrong_identity:.2f}\u00a0% are of "
            "different ones."
        )
    columns = "".join(f'<th scope="col">{words}</th>' for words in head)
    return _section(
        "objects",
        "Objects",
        f'<p class="soft">{_text(" ".join(said))}</p>\n<div class="small objects">\n{cutouts}</div>\n'
        f'<div class="wide"><table><thead><tr>{columns}</tr></thead>\n'
        f"<tbody>\n{''.join(map(row, found.objects))}</tbody></table></div>\n",
    )


def _parts(found: PartsReport | None) -> str:
    if found is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_swatch(part.colour)} part {part.number}</th><td class="value">{_share(part.share)}</td>'
        f'<td class="value">{part.pieces}</td></tr>\n'
        for part in found.parts
    )
    head = "".join(f'<th scope="col">{words}</th>' for words in ("part", "share of the surface", "pieces"))
    pictures = "".join(
        f"<figure>{_picture(picture, f'{name}: the parts over the photo')}"
        f'<figcaption><span class="name">{_text(PurePosixPath(name).name)}</span></figcaption></figure>\n'
        for name, picture in found.pictures.items()
    )
    said = [
        f"Found without labels on the object's surface, from its shape and from {found.features}. A part has the same "
        "number in all views."
    ]
    if found.others:
        said.append(f"There are also results of {' and '.join(map(str, found.others))} parts.")
    return _section(
        "parts",
        "Parts" if found.object is None else f"Parts of {_text(found.object)}",
        f'<p class="soft">{_text(" ".join(said))}</p>\n'
        f'<div class="small">\n{pictures}</div>\n'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n'
        f"{_true_parts(found)}",
    )


def _true_parts(found: PartsReport) -> str:
    """How the parts agree with the true ones, where those are known."""
    count, unseen = found.measured
    if not found.metrics:
        return ""
    which = "that training never saw" if unseen else "of training"
    return (
        "<p>"
        + _text(f"Against the true parts, over all pixels of {count} photos {which}:")
        + "</p>\n"
        + _table(
            Figure(name, "" if math.isnan(found.metrics[key]) else f"{found.metrics[key]:.3f}", note)
            for key, name, note in PART_METRICS
        )
    )


def _swatch(colour: tuple[int, int, int]) -> str:
    return f'<span class="swatch" style="background:rgb{colour}"></span>'


def _mesh(mesh: Turntable | str) -> str:
    if isinstance(mesh, str):
        return _section("mesh", "The surface", f"<p>{_text(mesh)}</p>\n")
    rows = -(-mesh.frames // COLUMNS)
    extent = " x ".join(f"{side:.3g}" for side in mesh.extent)
    sheets = "".join(
        f'<div class="sheet {name}" style="background-image:url({embedded(picture, 80)})"></div>'
        for name, picture in (("coloured", mesh.coloured), ("plain", mesh.plain), ("by-object", mesh.by_object))
        if picture is not None
    )
    objects = "" if mesh.by_object is None else '<label><input type="checkbox" class="objects"> by object</label> '
    return _section(
        "mesh",
        "The surface",
        f'<div class="turntable" data-frames="{mesh.frames}" data-columns="{COLUMNS}" '
        f'style="--columns:{COLUMNS};--rows:{rows}" role="img" aria-label="The mesh from all around">{sheets}</div>\n'
        f'<p class="controls"><label>turn <input type="range" class="turn" min="0" max="{mesh.frames - 1}" value="0">'
        f'</label> {objects}<label><input type="checkbox" class="grey"> shape alone</label></p>\n'
        f'<p class="soft">Drag to turn. {mesh.vertices:,} vertices, {mesh.faces:,} faces in these pictures; {extent} '
        "in the capture's units and axes.</p>\n",
    )


def _curves(content: Content) -> str:
    if isinstance(content.losses, str):
        return _section("losses", "Losses", f"<p>{_text(content.losses)}</p>\n")

    def of(curve: Curve) -> str:
        name = curve.name.replace("_", " ")
        label = _text(f"{name} over training, from {curve.values[0]:.3g} to {curve.values[-1]:.3g}")
        return (
            f"<figure>{curve_svg(curve, content.last_step, label)}"
            f"<figcaption>{_text(name)} <b>{curve.values[-1]:.3g}</b></figcaption></figure>\n"
        )

    curves = "".join(map(of, [*content.losses, *content.measures]))
    last = max(curve.steps[-1] for curve in content.losses)
    return _section(
        "losses",
        "Losses",
        f'<p class="soft">Steps 0 to {content.last_step + 1:,}, from left to right'
        f"{'' if last >= content.last_step * 0.98 else f'; the run has come to step {last:,}'}. Losses on a "
        "logarithmic scale, weighted as they are summed up; figures of the batch below. Last values in bold.</p>\n"
        f'<div class="curves">\n{curves}</div>\n',
    )


def _table(figures: Iterable[Figure]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(figure.name)}</th><td class="value">{_text(figure.value)}</td>'
        f'<td class="soft">{_text(figure.note)}</td></tr>\n'
        for figure in figures
    )
    return f'<div class="wide"><table><tbody>\n{rows}</tbody></table></div>\n' if rows else ""


def _settings(settings: Sequence[Setting]) -> str:
    def rows(of: Sequence[Setting]) -> str:
        return "".join(
            f'<tr><th scope="row">{_text(setting.name)}</th><td class="value">{_text(setting.value)}</td>'
            f'<td class="soft">{"" if setting.default in (None, setting.value) else _text(setting.default)}</td></tr>\n'
            for setting in of
        )

    head = '<thead><tr><th scope="col">option</th><th scope="col">here</th><th scope="col">default</th></tr></thead>'
    changed = [setting for setting in settings if setting.value != setting.default]
    same = [setting for setting in settings if setting.value == setting.default]
    return "".join(
        f"<details{' open' if which is changed and len(changed) <= 12 else ''}><summary>{len(which)} {words}"
        "</summary>\n"
        f'<div class="wide"><table class="settings">{head}<tbody>\n{rows(which)}</tbody></table></div>\n</details>\n'
        for which, words in ((changed, "that differ from the method's defaults"), (same, "as the method has them"))
        if which
    )
