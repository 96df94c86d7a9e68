"""The command `surface-sos report`: its options, and what can be wrong with them before a run is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surface_sos_ns.report.error import ReportError
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.files import check_writable, remove_leftovers, write_json, write_text


@dataclass
class Report:
    """Write one HTML page about a run, all pictures inside it: masks before and after, losses, mesh, figures."""

    load_config: Path
    """The run's config.yml."""
    output: Path | None = None
    """The page; by default report.html beside config.yml."""
    views: int | Literal["all"] = 24
    """Photos that are shown, evenly chosen (those with truth among them), or all. All are measured in any case."""
    metrics: Path | None = None
    """What ns-eval wrote; by default metrics.json beside config.yml, where it is there."""
    figures: Path | None = None
    """Also write the page's figures, and what is known of each photo, as JSON to this file."""
    data: Path | None = None
    """The capture's folder, where it was moved since training."""
    overwrite: bool = False
    """Replace a page that is there already."""

    @property
    def page(self) -> Path:
        """Where the page goes."""
        return self.output or self.load_config.parent / "report.html"

    def check(self) -> None:
        """Looks at what can be wrong without opening the run.

        Raises:
            ReportError: an option that cannot work.
            WriteError: nothing can be written there.
            MissingPackageError: pymatting is not installed.
        """
        if not self.load_config.is_file():
            raise ReportError(
                f"{self.load_config} does not exist; expected the config.yml of a run, "
                "outputs/CAPTURE/METHOD/TIME/config.yml."
            )
        if self.views != "all" and self.views < 1:
            raise ReportError(f"--views is {self.views}; expected at least 1, or all.")
        if self.metrics is not None and not self.metrics.is_file():
            raise ReportError(f"{self.metrics} does not exist; expected the file that ns-eval --output-path wrote.")
        if self.page.is_dir():
            raise ReportError(f"{self.page} is a folder; expected the name of a page, {self.page / 'report.html'}.")
        if self.page.exists() and not self.overwrite:
            raise ReportError(f"{self.page} exists; give --overwrite to replace it, or another --output.")
        if not self.page.parent.is_dir():
            raise ReportError(f"{self.page.parent} does not exist; make the folder first, or choose another --output.")
        if self.figures is not None and self.figures.exists() and not self.overwrite:
            raise ReportError(f"{self.figures} exists; give --overwrite to replace it, or another --figures.")
        if self.figures is not None and not self.figures.parent.is_dir():
            raise ReportError(f"{self.figures.parent} does not exist; make the folder first.")
        require_package("pymatting", "surface-sos report")
        check_writable(self.page.parent)

    def main(self) -> None:
        """Runs the command."""
        self.check()
        from surface_sos_ns.api import load_run
        from surface_sos_ns.report.collect import collect
        from surface_sos_ns.report.figures import figures
        from surface_sos_ns.report.page import page

        content = collect(load_run(self.load_config, self.data), self.views, self.metrics)
        remove_leftovers(self.page.parent)
        write_text(self.page, page(content))
        if self.figures is not None:
            write_json(self.figures, figures(content))
        print(self.page.resolve())
