"""The object of one photo over another colour: python examples/cut_out_a_photo.py CONFIG PHOTO"""

import sys

from PIL import Image

from surface_sos_ns import load_run

run = load_run(sys.argv[1])
cutout = run.cutout(sys.argv[2])  # (H, W, 4) float32, 0 to 1, at the photo's size
colours, alpha = cutout[..., :3], cutout[..., 3:]
over_green = alpha * colours + (1 - alpha) * (0.0, 1.0, 0.0)
Image.fromarray((over_green * 255).round().astype("uint8")).save("over_green.png")
