"""The report: its pictures and curves against values found by hand, its page read back, and looked at in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from surface_sos_ns import cli
from surface_sos_ns.report import curves
from surface_sos_ns.report.collect import settings_of
from surface_sos_ns.report.content import (
    ADDED,
    REMOVED,
    Content,
    Figure,
    PartReport,
    PartsReport,
    Setting,
    ViewReport,
    repair_map,
    repairs,
)
from surface_sos_ns.report.curves import Curve, curve_points, curve_svg, curves_of
from surface_sos_ns.report.figures import figures
from surface_sos_ns.report.page import page
from surface_sos_ns.report.turntable import COLUMNS, MARGIN, Turntable, turntable
from surface_sos_ns.utils.pictures import size_within, tinted

UP = np.array([0.0, 0.0, 1.0])
NAMES = [f"images/photo_{index}.jpg" for index in range(5)]


# ------------------------------------------------------------------ pictures


def test_the_repair_map_colours_what_was_added_and_what_was_removed() -> None:
    found, coarse = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    found[1, 1:4], coarse[1, 3:6] = True, True
    added, removed = repairs(found, coarse)
    assert np.argwhere(added).tolist() == [[1, 1], [1, 2]] and np.argwhere(removed).tolist() == [[1, 4], [1, 5]]
    photo = np.full((4, 6, 3), 100, np.uint8)
    picture = repair_map(photo, found, coarse)
    assert picture[1, 1].tolist() == [round(20 + 0.8 * value) for value in ADDED]
    assert picture[1, 5].tolist() == [round(20 + 0.8 * value) for value in REMOVED]
    assert picture[1, 3].tolist() == [150] * 3 and picture[0, 0].tolist() == [50] * 3


def test_a_tinted_photo_is_mixed_inside_and_drawn_around() -> None:
    alpha = np.zeros((9, 9), np.float32)
    alpha[2:7, 2:7] = 1
    picture = tinted(np.full((9, 9, 3), 100, np.uint8), alpha, (200, 0, 0))
    assert picture[4, 4].tolist() == [150, 50, 50] and picture[2, 4].tolist() == [200, 0, 0]
    assert picture[0, 0].tolist() == [100] * 3
    assert size_within(1920, 1080, 480) == (480, 270) and size_within(200, 150, 480) == (200, 150)


def test_settings_that_are_functions_or_classes_are_named() -> None:
    options = {"steps": 3, "collate": json.loads, "loaders": {"kind": Counter}}
    named = {setting.name: setting.value for setting in settings_of(options, None)}
    assert named == {"steps": "3", "collate": "json.loads", "loaders.kind": "collections.Counter"}


def test_a_curve_passes_through_its_points() -> None:
    inner, left, bottom = curves.WIDTH - 2 * curves.MARGIN, curves.MARGIN, curves.HEIGHT - curves.MARGIN
    rise = curves.HEIGHT - 2 * curves.MARGIN
    decades = Curve("loss", [0, 50, 100], [1.0, 0.1, 0.01], log=True)
    expected = [(left, curves.MARGIN), (left + inner / 2, bottom - rise / 2), (left + inner, bottom)]
    assert np.allclose(curve_points(decades, 100), expected)
    numbers = [float(x) for x in re.findall(r"-?[\d.]+", re.search(r' d="([^"]*)"', curve_svg(decades, 100, "a"))[1])]  # type: ignore[index]
    assert numbers == pytest.approx(np.ravel(expected), abs=0.05)
    assert curve_points(Curve("flat", [0, 10], [3.0, 3.0]), 10)[0][1] == pytest.approx(curves.HEIGHT / 2)
    assert len(curve_points(Curve("off", [0, 10, 20], [0.0, 1.0, -1.0], log=True), 20)) == 1
    steps = list(range(1000))
    many = curve_points(Curve("long", steps, [float(step) for step in steps]), 999)
    assert len(many) <= curves.MAX_POINTS and np.allclose(np.diff([y for _, y in many])[:-1], many[1][1] - many[0][1])


def test_curves_begin_where_a_loss_does() -> None:
    records = [(0, {"colour": 1.0}), (10, {"colour": 0.5, "entropy": 0.2}), (20, {"colour": float("nan")})]
    assert curves_of(records, log=True) == [
        Curve("colour", [0, 10], [1.0, 0.5], True),
        Curve("entropy", [10], [0.2], True),
    ]


def shares(mesh: trimesh.Trimesh, frames: int, side: int, elevation: float) -> tuple[np.ndarray, float]:
    """How much of each pixel shows the mesh, (frames, side, side), and the side of a pixel in the mesh's units."""
    turned = turntable(mesh, UP, frames, side, elevation)
    rows = np.split(turned.coloured[..., 3] / 255, len(turned.coloured) // side)
    pictures = [picture for row in rows for picture in np.split(row, COLUMNS, axis=1)]
    radius = np.linalg.norm(mesh.vertices - mesh.bounds.mean(axis=0), axis=1).max()
    return np.stack(pictures[:frames]), 2 * MARGIN * radius / side


@pytest.mark.parametrize("elevation", [0.0, 18.0])
def test_the_turntable_of_a_sphere_shows_a_disc(elevation: float) -> None:
    ball = trimesh.creation.icosphere(4, 0.7)
    ball.apply_translation([3.0, -2.0, 1.0])
    shown, pixel = shares(ball, 5, 200, elevation)
    assert shown.sum(axis=(1, 2)) * pixel**2 == pytest.approx(np.full(5, np.pi * 0.7**2), rel=0.01)


def test_the_turntable_of_a_box_shows_its_faces_upright() -> None:
    box = trimesh.creation.box((1.0, 2.0, 4.0))
    # Turned by 0, 45, 90 and so on: the sides' widths, projected, times the height.
    wide = [abs(1.0 * np.sin(a)) + abs(2.0 * np.cos(a)) for a in np.arange(8) * np.pi / 4]
    shown, pixel = shares(box, 8, 240, elevation=0.0)
    widths, heights = shown.max(axis=1).sum(axis=1) * pixel, shown.max(axis=2).sum(axis=1) * pixel
    assert heights == pytest.approx(np.full(8, 4.0), abs=2 * pixel)
    assert sorted(widths) == pytest.approx(sorted(wide), abs=2 * pixel)
    assert shown.sum(axis=(1, 2)) * pixel**2 == pytest.approx(4.0 * widths, rel=0.03)


def test_the_turntable_keeps_the_colours_where_they_are() -> None:
    ball = trimesh.creation.icosphere(4)
    above = ball.vertices[:, 2] > 0
    ball.visual.vertex_colors = np.where(above[:, None], [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    turned = turntable(ball, UP, frames=3, side=60)
    assert (turned.frames, turned.vertices, turned.faces) == (3, len(ball.vertices), len(ball.faces))
    assert turned.extent == pytest.approx([2, 2, 2])
    assert turned.coloured.shape == turned.plain.shape == (60, COLUMNS * 60, 4)
    picture = turned.coloured[:, :60].astype(int)
    upper, lower = picture[10, 30], picture[52, 30]
    assert upper[0] > 100 > upper[2] and lower[2] > 60 > lower[0] and upper[3] == 255 and picture[1, 1, 3] == 0
    assert not turned.coloured[:, 180:].any(), "the rest of the row is empty"
    plain = turned.plain[:, :60].astype(int)
    assert (plain[..., 0] == plain[..., 1]).all() and plain[20, 20, 0] > plain[45, 45, 0], "lit from above, left"


# ------------------------------------------------------------------ the page


def a_view(index: int, **changes: Any) -> ViewReport:
    photo = np.full((30, 40, 3), 40 + 30 * index, np.uint8)
    cutout = np.zeros((30, 40, 4), np.uint8)
    cutout[5:20, 8:30] = 200
    pictures = {"photo": photo, "mask": photo, "cutout": cutout, "plate": photo, "normals": photo, "repair": photo}
    given = {"given": "given", "agreement": 0.5 + 0.1 * index, "pictures": pictures | {"coarse": photo}}
    return ViewReport(**({"name": NAMES[index], "held_out": False, "found": 0.2} | given | changes))  # type: ignore[arg-type]


@pytest.fixture
def content() -> Content:
    without = {key: value for key, value in a_view(3).pictures.items() if key != "coarse"}
    truth = a_view(4).pictures | {"error": np.zeros((30, 40, 3), np.uint8)}
    views = [
        a_view(0),
        a_view(1, name='images/"><script>alert(1).jpg'),
        a_view(2),
        a_view(3, given="empty", agreement=None, pictures=without),
        a_view(4, held_out=True, metrics={"mask_iou": 0.987}, pictures=truth),
        dataclasses.replace(a_view(0), name="images/measured_only.jpg", pictures={}, agreement=0.123),
    ]
    ball, sheet = trimesh.creation.icosphere(2), np.full((80, 6 * 40, 4), 200, np.uint8)
    return Content(
        title='Bear & "Co" <b>',
        method="surface-sos-lite",
        date="2026-01-02",
        sentences=["The object was found.", "All is well."],
        views=views,
        masks="coarse mask",
        confidence=0.8,
        losses=[Curve("colour", [0, 50, 99], [0.1, 0.02, 0.01], True)],
        measures=[Curve("psnr", [0, 99], [10.0, 25.0])],
        last_step=99,
        mesh=Turntable(12, sheet, sheet, len(ball.vertices), len(ball.faces), np.ones(3)),
        figures=[Figure("photos", "5", "one held out")],
        settings=[Setting("max-num-iterations", "100", "7000"), Setting("vis", "viewer", "viewer")],
        versions=[Figure("Python", "3")],
        parts=PartsReport(
            features="guesses",
            parts=[PartReport(1, (230, 115, 33), 0.755, 1), PartReport(2, (51, 120, 201), 0.245, 3)],
            pictures={name: a_view(0).pictures["photo"] for name in NAMES[:2]},
            metrics={"parts_nmi": 0.6543, "parts_ari": 0.7654, "parts_share": 0.9876},
            measured=(3, True),
            others=[4, 5],
        ),
    )


class Reader(HTMLParser):
    """Tags that are opened and closed in order, attributes, and the text outside of script and style."""

    EMPTY = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        assert len({name for name, _ in attributes}) == len(attributes), f"twice the same attribute in {tag}"
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [], "every tag is closed"
    return reader


def test_the_page_shows_every_view_once_and_needs_nothing_else(content: Content) -> None:
    text = page(content)
    reader = read(text)
    assert text.startswith("<!DOCTYPE html>") and not re.search(
        r"https?:|[\"'(]//", re.sub(r"base64,[\w+/=]+", "", text)
    )
    for _, name, value in reader.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:")
    shown = [value for _, name, value in reader.attributes if name == "data-view"]
    assert shown == [view.name for view in content.views if view.pictures]
    assert reader.tags["script"] == 1, "a file name is no script"
    words = " ".join(reader.text)
    assert '"><script>alert(1).jpg' in words and 'Bear & "Co" <b>' in words
    assert "measured_only.jpg" in words and "0.123" in words and "was empty: filled in" in words
    assert "0.987" in words and "The object was found. All is well." in words and "7000" in words
    alts = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "alt")]
    assert len(alts) == reader.tags["img"] and all(alts)
    identifiers = Counter(value for _, name, value in reader.attributes if name == "id")
    assert max(identifiers.values()) == 1


@pytest.mark.parametrize(
    "markup", ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", '" onload="x']
)
def test_no_text_becomes_markup(content: Content, markup: str) -> None:
    """Names of photos, losses and options, and what they are, may come from files of somebody else's."""
    hostile = dataclasses.replace(
        content,
        title=markup,
        method=markup,
        date=markup,
        sentences=[markup],
        views=[dataclasses.replace(view, name=f"images/{index}{markup}") for index, view in enumerate(content.views)],
        losses=[dataclasses.replace(curve, name=markup) for curve in content.losses],
        measures=[dataclasses.replace(curve, name=markup) for curve in content.measures],
        figures=[Figure(markup, markup, markup)],
        settings=[Setting(markup, markup, "x"), Setting(markup, markup, markup)],
        versions=[Figure(markup, markup)],
    )
    assert content.parts is not None
    pictures = {f"images/{index}{markup}": picture for index, picture in enumerate(content.parts.pictures.values())}
    hostile = dataclasses.replace(hostile, parts=dataclasses.replace(content.parts, features=markup, pictures=pictures))
    usual, reader = read(page(content)), read(page(hostile))
    assert reader.tags == usual.tags
    assert [(tag, name) for tag, name, _ in reader.attributes] == [(tag, name) for tag, name, _ in usual.attributes]
    for broken in (dataclasses.replace(hostile, losses=markup), dataclasses.replace(hostile, mesh=markup)):
        reader = read(page(broken))
        assert reader.tags["script"] == 1 and not any(name.startswith("on") for _, name, _ in reader.attributes)


def test_the_worst_agreement_comes_first(content: Content) -> None:
    text = page(content)
    bars = text[text.index('<ol class="bars">') : text.index("</ol>")]
    names = re.findall(r'class="name">([^<]*)', bars)
    assert [name.removeprefix("photo_") for name in names[:3]] == ["3.jpg", "measured_only.jpg", "0.jpg"]
    assert re.findall(r"width:([\d.]+)%", bars) == ["12.3", "50.0", "60.0", "70.0", "90.0"]


def test_what_is_missing_is_said(content: Content) -> None:
    bare = dataclasses.replace(
        content,
        views=[dataclasses.replace(view, agreement=None, given="missing", metrics={}) for view in content.views],
        losses="No losses.jsonl there.",
        mesh="No mesh: the foreground is a density.",
        confidence=None,
    )
    words = " ".join(read(page(bare)).text)
    for said in ("No losses.jsonl there.", "No mesh: the foreground is a density.", "no masks to compare with"):
        assert said in words
    assert "Against the truth" not in words
    guessed = dataclasses.replace(content, masks="first guess", confidence=0.42)
    words = " ".join(read(page(guessed)).text)
    assert "Agreement with the first guesses" in words and "IoU 0.42" in words
    without = " ".join(read(page(dataclasses.replace(bare, masks="nothing"))).text)  # the method looks at no masks
    assert "Agreement" not in without and "coarse" not in without.lower()


def test_parts_have_a_section_where_there_are_some(content: Content) -> None:
    text = page(content)
    words = " ".join(read(text).text)
    for said in ("guesses", "75.5\u00a0%", "24.5\u00a0%", "results of 4 and 5 parts", "3 photos that training never"):
        assert said in words
    assert "0.654" in words and "0.765" in words and "0.988" in words
    section = text[text.index('<section id="parts">') :].partition("</section>")[0]
    assert re.findall(r"background:rgb\((.*?)\)", section) == ["230, 115, 33", "51, 120, 201"]
    assert section.count("<img") == 2
    assert content.parts is not None
    unknown = dataclasses.replace(content, parts=dataclasses.replace(content.parts, metrics={}))
    assert "true parts" not in " ".join(read(page(unknown)).text)
    nothing_compared = dataclasses.replace(content.parts, metrics=dict.fromkeys(content.parts.metrics, float("nan")))
    words = " ".join(read(page(dataclasses.replace(content, parts=nothing_compared))).text)
    assert "nan" not in words
    assert 'id="parts"' not in page(dataclasses.replace(content, parts=None))


# ------------------------------------------------------------------ in a browser


@pytest.mark.browser
@pytest.mark.seconds(4)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(content: Content, browser: Any, tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(content), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # A slider, by keyboard and by pointer.
    card = tab.locator(".compare").first
    slider = card.locator("input[type=range]")
    slider.focus()
    tab.keyboard.press("Home")
    clip = "node => getComputedStyle(node).clipPath"
    after = card.locator("img.after[data-layer=mask]")
    assert re.fullmatch(r"inset\(0(px|%)? 0(px|%)? 0(px|%)? 0(px|%)\)|inset\(0px\)", after.evaluate(clip))
    box = card.locator(".stack").bounding_box()
    tab.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    assert 75 <= float(slider.input_value()) <= 85
    assert f"{slider.input_value()}%" in after.evaluate(clip)
    # Another layer, for all views.
    assert card.locator("img.after:visible").count() == 1
    tab.get_by_label("Clean plate", exact=True).check()
    shown = tab.locator("img.after:visible").evaluate_all("nodes => nodes.map(node => node.dataset.layer)")
    assert shown == ["plate"] * 5
    # The mesh, dragged by a quarter of its width: a quarter of half a turn.
    table = tab.locator(".turntable")
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = table.locator(".coloured").evaluate("node => node.style.backgroundPosition")
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(middle[0] - box["width"] / 3, middle[1], steps=4)
    tab.mouse.up()
    assert table.get_attribute("data-frame") == "2"
    assert table.locator(".coloured").evaluate("node => node.style.backgroundPosition") != before
    assert said == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []
    tab.close()


# ------------------------------------------------------------------ the command


def test_a_page_that_is_there_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yml").write_text("a run")
    (tmp_path / "report.html").write_text("mine")

    def refused(*options: str) -> str:
        assert cli.main(["report", "--load-config", str(tmp_path / "config.yml"), *options]) == 1
        return capsys.readouterr().err

    assert "report.html exists" in refused() and (tmp_path / "report.html").read_text() == "mine"
    assert "does not exist" in refused("--output", str(tmp_path / "none" / "page.html"))
    assert "at least 1" in refused("--output", str(tmp_path / "page.html"), "--views", "0")
    assert "ns-eval" in refused("--overwrite", "--metrics", str(tmp_path / "none.json"))
    page = ("--output", str(tmp_path / "page.html"))
    assert "report.html exists" in refused(*page, "--figures", str(tmp_path / "report.html"))
    assert "does not exist" in refused(*page, "--figures", str(tmp_path / "none" / "figures.json"))
    assert cli.main(["report", "--load-config", str(tmp_path / "none.yml")]) == 1
    assert "config.yml of a run" in capsys.readouterr().err


# ------------------------------------------------------------------ of a trained run


def test_views_are_chosen_evenly_and_half_of_them_with_truth_at_most() -> None:
    from surface_sos_ns.report.views import chosen_views

    assert chosen_views(10, "all", [3]) == chosen_views(10, 12, []) == list(range(10))
    assert chosen_views(10, 4, []) == [0, 3, 6, 9]
    chosen = chosen_views(48, 8, [4, 12, 20, 28, 36, 44])
    assert len(set(chosen)) == 8 and chosen == sorted(chosen)
    assert len(set(chosen) & {4, 12, 20, 28, 36, 44}) == 4 and {0, 47} <= set(chosen)
    assert set(chosen_views(48, 8, [30])) >= {0, 30, 47}


def test_figures_for_programs_are_those_of_the_page(content: Content) -> None:
    views = [a_view(0, agreement=0.5), a_view(1, agreement=0.9, at_edge=True), a_view(2, agreement=None, found=0.0)]
    found = json.loads(json.dumps(figures(dataclasses.replace(content, views=views))))
    assert (found["agreement"], found["confidence"]) == (pytest.approx(0.7), 0.8)
    assert (found["found"], found["at_edge"]) == (pytest.approx(2 / 3), 0.5)
    assert [view["name"] for view in found["views"]] == NAMES[:3] and "pictures" not in found["views"][0]
    nothing = figures(dataclasses.replace(content, views=[a_view(0, agreement=None, found=0.0)]))
    assert nothing["agreement"] is None and nothing["at_edge"] is None and nothing["found"] == 0.0


@pytest.mark.seconds(12)
def test_the_report_of_a_run_says_what_the_files_say(
    trained: Path, demo_capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2
    from sklearn.metrics import jaccard_score

    from surface_sos_ns import load_run
    from surface_sos_ns.report.collect import collect
    from surface_sos_ns.report.error import ReportError
    from surface_sos_ns.utils.errors import UserError

    run = load_run(trained / "config.yml")
    (tmp_path / "metrics.json").write_text('{"results": {"psnr": 1.0}, "checkpoint": "/another/run/models/a.ckpt"}')
    with pytest.raises(ReportError, match="about another run, /another/run"):
        collect(run, 2, tmp_path / "metrics.json")
    for results in (
        '{"psnr": "21"}',
        '{"psnr": null}',
        '{"psnr": [1]}',
        "[]",
        '"psnr"',
        '{"psnr": 1' + 400 * "0" + "}",
    ):
        (tmp_path / "metrics.json").write_text(f'{{"results": {results}, "checkpoint": "{run.checkpoint}"}}')
        with pytest.raises(ReportError, match="metrics.json is not what ns-eval writes"):
            collect(run, 2, tmp_path / "metrics.json")
    for name, damage in (("object_prior.npz", b"PK no"), ("losses.jsonl", b"null\n")):
        moved = shutil.copytree(trained, tmp_path / name, ignore=shutil.ignore_patterns("nerfstudio_models"))
        (moved / name).write_bytes(damage + (moved / name).read_bytes())
        with pytest.raises(UserError, match=f"{name}.*(cannot be read|line 1 is no record)"):
            collect(dataclasses.replace(run, config=moved / "config.yml"), 2)
    (tmp_path / "metrics.json").write_text(json.dumps({"results": {"psnr": 21.5}, "checkpoint": str(run.checkpoint)}))
    content = collect(run, 2, tmp_path / "metrics.json")
    meta = json.loads((demo_capture / "transforms.json").read_text())
    frames = {frame["file_path"]: frame for frame in meta["frames"]}
    assert [view.name for view in content.views] == sorted(frames)
    assert {view.name for view in content.views if view.held_out} == set(meta["test_filenames"])
    shown = [view for view in content.views if view.pictures]
    assert len(shown) == 2 and sum(view.held_out for view in shown) == 1

    def on_file(name: str, key: str) -> np.ndarray:
        mask = cv2.imread(str(demo_capture / frames[name][key]), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        return mask > 127

    assert any(view.given == "given" for view in shown)
    for view in shown:
        found = run.mask(view.name)
        coarse = on_file(view.name, "coarse_mask_path")
        assert view.found == pytest.approx(found.mean())
        assert (view.given == "given") == bool(coarse.any())
        if view.given == "given":
            assert view.agreement == pytest.approx(jaccard_score(coarse.ravel(), found.ravel()), abs=1e-6)
            assert view.added == pytest.approx((found & ~coarse).mean())
    (held,) = (view for view in shown if view.held_out)
    truth = on_file(held.name, "gt_mask_path")
    assert held.metrics["mask_iou"] == pytest.approx(
        jaccard_score(truth.ravel(), run.mask(held.name).ravel()), abs=1e-6
    )
    empty = [view.name for view in content.views if view.given == "empty"]
    assert empty == [name for name in sorted(frames) if not on_file(name, "coarse_mask_path").any()]
    assert isinstance(content.mesh, Turntable) and content.mesh.faces > 100
    by_name = {figure.name: figure.value for figure in content.figures}
    assert (
        by_name["photos"] == "32"
        and by_name["training steps"] == "500"
        and by_name["ns-eval: photo PSNR"] == "21.50 dB"
    )
    colour = next(curve for curve in content.losses if not isinstance(curve, str) and curve.name == "colour")
    assert colour.steps[0] == 0 and colour.steps[-1] == 499 and colour.values[-1] < 0.5 * colour.values[0]
    changed = {setting.name: setting.value for setting in content.settings if setting.value != setting.default}
    assert changed["max-num-iterations"] == "500" and "pipeline.model.hull-slack" in changed
    assert "steps-per-save" not in changed
    assert read(page(content)).tags["img"] > 10
    assert "Rendering 2 of 32 views" in capsys.readouterr().err
