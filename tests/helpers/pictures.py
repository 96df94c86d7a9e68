"""Pictures that tests look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read(path: Path, flag: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """A picture as OpenCV reads it, with the channels in its order."""
    picture = cv2.imread(str(path), flag)
    assert picture is not None, path
    return picture
