"""Videos through PyAV, one of them with transparency; any size, any number of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.utils.files import atomic_file

__all__ = ["MP4", "PRORES", "VP9", "Format", "write_video"]


@dataclass(frozen=True)
class Format:
    """A container with a codec.

    Attributes:
        container: ffmpeg's name.
        codec: ffmpeg's name of the encoder.
        pixels: ffmpeg's name of how they are stored.
        options: the encoder's.
        even: whether width and height have to be.
    """

    container: str
    codec: str
    pixels: str
    options: dict[str, str] = field(default_factory=dict)
    even: bool = True


# Without the last option x264's output for equal pictures sometimes differs.
MP4 = Format("mp4", "libx264", "yuv420p", {"crf": "16", "preset": "medium", "x264-params": "cpu-independent=1"})
PRORES = Format("mov", "prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "16"}, even=False)
VP9 = Format("webm", "libvpx-vp9", "yuva420p", {"crf": "18", "b": "0", "auto-alt-ref": "0"})


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: int, form: Format) -> None:
    """Writes a video, whole or not at all; equal pictures give equal files.

    Pictures of odd sizes get their last row or column twice where need be.

    Args:
        path: of the file.
        pictures: all of one size, (H, W, 3) uint8 RGB, or (H, W, 4) with alpha, colours not premultiplied.
        fps: pictures per second.
        form: how it is stored; alpha needs `PRORES` or `VP9`.

    Raises:
        ExportError: this installation of PyAV lacks the encoder.
    """
    try:
        av.codec.Codec(form.codec, "w")
    except ValueError as error:  # what PyAV raises for a codec it does not know
        raise ExportError(
            f"{path} cannot be written: PyAV was built without {form.codec}. Take its wheel: pip install av."
        ) from error
    exact = {"fflags": "+bitexact"}  # no random track identifiers
    with (
        atomic_file(path) as temporary,
        av.open(str(temporary), "w", format=form.container, options=exact) as container,
    ):
        stream = container.add_stream(form.codec, rate=fps, options=form.options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = form.pixels
        stream.time_base = Fraction(1, fps)
        # Said in the file as well, or players guess by the picture's size.
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        stream.codec_context.color_range = 1
        for index, picture in enumerate(pictures):
            odd = [length % 2 if form.even else 0 for length in picture.shape[:2]]
            padded = np.pad(picture, [(0, odd[0]), (0, odd[1]), (0, 0)], mode="edge")
            if index == 0:
                stream.height, stream.width = padded.shape[:2]
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(padded), format="rgba" if padded.shape[2] == 4 else "rgb24"
            )
            stored = frame.reformat(format=form.pixels, dst_colorspace=Colorspace.ITU709)
            stored.pts, stored.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(stored))
        container.mux(stream.encode(None))
