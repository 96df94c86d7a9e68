"""A video as the scene's images: the sharpest frame of each of equal stretches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from surface_sos_ns.process.error import ProcessError

__all__ = ["count_frames", "extract_frames"]

SHARPNESS_WIDTH = 640
"""Frames are shrunk to this width before their sharpness is compared."""


def count_frames(video: Path) -> int:
    """How many frames a video has, counted and not taken from its header, which may lack the number.

    Raises:
        ProcessError: the file is no video.
    """
    import av

    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise ProcessError(f"{video} has no picture; expected a video or a folder of photos.")
            return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, ProcessError):
            raise
        raise ProcessError(
            f"{video} cannot be read as a video ({error}); expected a video or a folder of photos."
        ) from error


def extract_frames(
    video: Path, count: int, folder: Path, frames: int, reach: Callable[[float], None] = lambda done: None
) -> int:
    """Writes the sharpest frame of each of ``count`` equal stretches as ``frame_00001.jpg`` and so on, upright.

    Args:
        video: the file.
        count: frames wanted; a shorter video gives all it has.
        folder: exists.
        frames: how many the video has, as `count_frames` says.
        reach: called with the number of frames looked at so far.

    Returns:
        How many were written.

    Raises:
        ProcessError: the video cannot be decoded.
        WriteError: a frame cannot be written.
    """
    import av

    from surface_sos_ns.capture.sharpness import sharpness
    from surface_sos_ns.utils.files import writing

    count = min(count, frames)
    written = 0
    best: tuple[float, Any] | None = None
    stretch = 0

    def keep() -> None:
        nonlocal written, best
        if best is not None:
            written += 1
            path = folder / f"frame_{written:05d}.jpg"
            with writing(path):
                _upright(best[1]).save(path, quality=95, subsampling=0)
        best = None

    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for index, frame in enumerate(container.decode(stream)):
                if min(index * count // frames, count - 1) != stretch:
                    keep()
                    stretch = min(index * count // frames, count - 1)
                shrink = min(1.0, SHARPNESS_WIDTH / frame.width)
                size = {"width": round(frame.width * shrink), "height": round(frame.height * shrink)}
                score = sharpness(frame.reformat(**size, format="gray").to_ndarray())
                if best is None or score > best[0]:
                    best = (score, frame)
                reach(index + 1)
            keep()
    except av.FFmpegError as error:
        raise ProcessError(
            f"{video} cannot be decoded ({error}); convert it to another format, such as H.264."
        ) from error
    return written


def _upright(frame: Any) -> Any:
    """The frame as a PIL image, turned as the video's header says."""
    image = frame.to_image()
    turn = round(getattr(frame, "rotation", 0)) % 360  # counter-clockwise
    return image.rotate(turn, expand=True) if turn else image
