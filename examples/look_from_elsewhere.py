"""A place no photo was taken from, half way between two that were: python examples/look_from_elsewhere.py CONFIG"""

import sys

from PIL import Image

from surface_sos_ns import load_run

run = load_run(sys.argv[1])
pose = run.pose(run.views[0])  # (4, 4) camera-to-world, as in transforms.json
pose[:3, 3] = (pose[:3, 3] + run.pose(run.views[1])[:3, 3]) / 2
images = run.render(run.placed(run.views[0], pose), ["rgb", "mask"])
for name, image in images.items():
    Image.fromarray((image * 255).round().astype("uint8")).save(f"elsewhere_{name}.png")
