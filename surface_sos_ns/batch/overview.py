"""The overview of a batch: one page with a row a capture, and the same as CSV and JSON."""

from __future__ import annotations

import csv
import datetime
import html
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from surface_sos_ns.batch.outcome import PICTURE, Outcome, concerns
from surface_sos_ns.utils.files import write_text
from surface_sos_ns.utils.progress import duration
from surface_sos_ns.utils.text import printable

__all__ = ["FILES", "overview", "write_overview"]

FILES = ("index.html", "results.csv", "results.json")
"""What is written."""
COLUMNS = (
    ("Capture", "text"),
    ("State", "text"),
    ("Look at it", "number"),
    ("Photos", "number"),
    ("Agreement", "number"),
    ("Votes", "number"),
    ("Mask IoU", "number"),
    ("PSNR", "number"),
    ("Time", "number"),
)
"""Titles, and how a column is sorted. The first has the picture."""
WORDS = {"done": "done", "begun": "not done yet", "failed": "failed"}
UNKNOWN = "-"


def write_overview(folder: Path, outcomes: Sequence[Outcome], pictures: Collection[str]) -> None:
    """Writes all `FILES`.

    Args:
        folder: of the batch.
        outcomes: of all captures, in their order.
        pictures: names of the captures that have a picture.
    """
    write_text(folder / "index.html", overview(folder.resolve().name, outcomes, pictures))
    write_text(folder / "results.csv", _csv(outcomes))
    content = [{**asdict(outcome), "look_at": concerns(outcome)} for outcome in outcomes]
    write_text(folder / "results.json", json.dumps(content, indent=1))


def overview(title: str, outcomes: Sequence[Outcome], pictures: Collection[str]) -> str:
    """The whole page. Captures that are to be looked at come first."""
    style, script = (files(__package__).joinpath(f"overview.{kind}").read_text("utf-8") for kind in ("css", "js"))
    order = sorted(outcomes, key=lambda outcome: (-_urgency(outcome), outcomes.index(outcome)))
    rows = "".join(_row(outcome, outcome.name in pictures) for outcome in order)
    heads = "".join(f'<th scope="col" data-sort="{kind}"><button>{name}</button></th>' for name, kind in COLUMNS)
    states = [outcome.state for outcome in outcomes]
    said = ", ".join(f"{states.count(state)} {words}" for state, words in WORDS.items() if state in states)
    urgent = sum(bool(concerns(outcome)) for outcome in outcomes)
    look = f" <b>{urgent} to look at first.</b>" if urgent else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}: {len(outcomes)} captures</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(title)}</h1>\n<p>{len(outcomes)} captures: {said}.{look} "
        f'<span class="soft">{datetime.datetime.now():%Y-%m-%d %H:%M}</span></p>\n'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
        '<p class="soft">Agreement: mean IoU of the masks with those that training started from. Votes: how far those '
        "agree with their own vote in space. Mask IoU and PSNR: on photos held out, where the capture has truth. "
        'The table is also in <a href="results.csv">results.csv</a> and <a href="results.json">results.json</a>.</p>\n'
        f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _row(outcome: Outcome, has_picture: bool) -> str:
    folder = quote(outcome.name)
    name = _text(outcome.name)
    if "report" in outcome.seconds:
        name = f'<a href="{folder}/report/index.html">{name}</a>'
    picture = f'<img src="{folder}/{PICTURE}" alt="" loading="lazy">' if has_picture else '<span class="none"></span>'
    found = concerns(outcome)
    tags = "".join(f'<span class="tag">{_text(one)}</span>' for one in found if one != "failed")
    state = WORDS[outcome.state] + (f" ({outcome.stage})" if outcome.stage and outcome.state != "done" else "")
    problem = ""
    if outcome.problem:
        log = f' <a href="{folder}/{quote(outcome.log)}">log</a>' if outcome.log else ""
        problem = f'<p class="problem">{_text(outcome.problem)}{log}</p>'
    seconds = sum(outcome.seconds.values())
    placed = UNKNOWN
    if outcome.photos is not None:
        placed = str(outcome.photos) if outcome.placed is None else f"{outcome.placed} of {outcome.photos}"
    cells = [
        (
            f'<div class="who">{picture}<span class="name">{name}<br>'
            f'<span class="soft">{_text(outcome.kind)}</span></span></div>',
            outcome.name,
        ),
        (f'<span class="{outcome.state}">{state}</span>{problem}', outcome.state),
        (tags or UNKNOWN, _urgency(outcome)),
        (placed, outcome.placed),
        _number(outcome.agreement, "{:.2f}"),
        _number(outcome.confidence, "{:.2f}"),
        _number(outcome.mask_iou, "{:.3f}"),
        _number(outcome.psnr, "{:.1f}"),
        (duration(seconds) if seconds else UNKNOWN, seconds),
    ]
    inside = "".join(
        f'<td data-title="{title}" data-value="{_text("" if value is None else value)}">{words}</td>'
        for (words, value), (title, _) in zip(cells, COLUMNS, strict=True)
    )
    return f"<tr>{inside}</tr>\n"


def _urgency(outcome: Outcome) -> int:
    return len(concerns(outcome)) + 10 * (outcome.state == "failed")


def _number(value: float | None, form: str) -> tuple[str, float | None]:
    return (UNKNOWN if value is None else form.format(value)), value


def _csv(outcomes: Sequence[Outcome]) -> str:
    out = io.StringIO()
    plain = [one.name for one in fields(Outcome) if one.name not in ("seconds", "cpu_seconds")]
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*plain, "seconds", "cpu_seconds", "look_at"])
    for outcome in outcomes:
        values = ["" if getattr(outcome, name) is None else getattr(outcome, name) for name in plain]
        times = [f"{sum(spent.values()):.1f}" for spent in (outcome.seconds, outcome.cpu_seconds)]
        table.writerow([*map(_safe, values), *times, "; ".join(concerns(outcome))])
    return out.getvalue()


def _safe(value: object) -> object:
    """A spreadsheet takes text that begins with these signs for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _text(words: object) -> str:
    return html.escape(printable(str(words)), quote=True)
