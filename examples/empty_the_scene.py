"""The held-out photos without the object (all, where none is held out): python examples/empty_the_scene.py CONFIG"""

import sys
from pathlib import Path

from PIL import Image

from surface_sos_ns import load_run

run = load_run(sys.argv[1])
for view in [view for view in run.views if view.held_out] or run.views:
    plate = run.clean_plate(view)  # (H, W, 3) float32, 0 to 1
    Image.fromarray((plate * 255).round().astype("uint8")).save(f"{Path(view.name).stem}_empty.png")
