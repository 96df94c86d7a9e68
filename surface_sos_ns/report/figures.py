"""A report's figures as JSON values, for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from surface_sos_ns.report.content import Content, ViewReport

__all__ = ["figures"]


def figures(content: Content) -> dict[str, Any]:
    """What a page says in numbers; None is what is not known.

    Returns:
        title, method, date, sentences; agreement: mean IoU of the found masks with those that training started from;
        confidence: how far these agree with their own vote in space; found: share of the photos with an object;
        at_edge: share of these whose mask reaches the picture's edge; views: of each photo its name, held_out, found,
        at_edge, agreement and metrics; figures and versions: name, value as text, note.
    """
    agreements = [view.agreement for view in content.views if view.agreement is not None]
    shown = [view for view in content.views if view.found > 0]
    return {
        "title": content.title,
        "method": content.method,
        "date": content.date,
        "sentences": list(content.sentences),
        "agreement": float(np.mean(agreements)) if agreements else None,
        "confidence": content.confidence,
        "found": len(shown) / len(content.views) if content.views else None,
        "at_edge": float(np.mean([view.at_edge for view in shown])) if shown else None,
        "views": [_view(view) for view in content.views],
        "figures": [asdict(figure) for figure in content.figures],
        "versions": [asdict(figure) for figure in content.versions],
    }


def _view(view: ViewReport) -> dict[str, Any]:
    names = ("name", "held_out", "found", "at_edge", "agreement", "metrics")
    return {name: getattr(view, name) for name in names}
