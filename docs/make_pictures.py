"""Makes the README's pictures from a run of the demo: `python docs/make_pictures.py demo_output`.

Needs what `make demo` left (the newest run is taken), Playwright, and a Chromium to photograph the report with.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from surface_sos_ns.utils.image_io import read_image, write_image
from surface_sos_ns.utils.pictures import ViewPictures, contact_sheet, over_checkerboard

IMAGES = Path(__file__).with_name("images")
VIEWS = 3


def newest_run(output: Path) -> Path:
    """The newest run of a demo's folder that came to its end."""
    runs = sorted(report.parent for report in output.glob("run-*/report.html"))
    if not runs:
        raise SystemExit(f"{output} holds no finished run of the demo; run `surface-sos demo --output {output}` first.")
    return runs[-1]


def sheet(output: Path, run: Path) -> np.ndarray:
    """(H, W, 3) uint8: photo, coarse mask, mask, cut-out and clean plate of photos that were held out, a row each."""
    (capture,) = {path.parent for path in output.glob("capture*/transforms.json")}
    meta = json.loads((capture / "transforms.json").read_text())
    frames = {frame["file_path"]: frame for frame in meta["frames"]}
    names = meta["test_filenames"]
    views = []
    for name in [names[round(place)] for place in np.linspace(0, len(names) - 1, VIEWS)]:
        folder, file = run / "renders" / "test", f"{Path(name).stem}.png"
        mask = read_image(folder / "mask" / file)
        tiles = {
            "photo": read_image(capture / name),
            "coarse": read_image(capture / frames[name]["coarse_mask_path"]),
            "mask": mask,
            "cutout": over_checkerboard(
                read_image(folder / "foreground" / file), mask[..., 0].astype(np.float32) / 255
            ),
            "plate": read_image(folder / "background" / file),
        }
        views.append(ViewPictures(Path(name).stem, tiles))
    return contact_sheet(views)


def photographed(page: Path) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8: the top of a report, and its turntable."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as scratch:
        # A Chromium of the system, or the one that Playwright brings.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 1240}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.evaluate("document.querySelector('#video')?.remove()")
        tab.wait_for_timeout(500)
        tab.screenshot(path=f"{scratch}/report.png")
        tab.locator(".turntable").screenshot(path=f"{scratch}/mesh.png")
        browser.close()
        return read_image(Path(scratch) / "report.png"), read_image(Path(scratch) / "mesh.png")


def main() -> None:
    """Writes the pictures and says where."""
    parser = argparse.ArgumentParser(description="Makes the README's pictures from a run of the demo.")
    parser.add_argument("output", type=Path, help="the demo's folder")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go")
    given = parser.parse_args()
    run = newest_run(given.output)
    report, mesh = photographed(run / "report.html")
    given.images.mkdir(parents=True, exist_ok=True)
    for name, picture in (("demo.jpg", sheet(given.output, run)), ("report.jpg", report), ("mesh.jpg", mesh)):
        path = given.images / name
        write_image(path, picture, quality=80)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
