"""The page on which the object is clicked: one photo at a time on a plane in viser's scene, and a few buttons.

The plane stands in the scene like a picture on a wall. A click comes with the ray from the user's camera, wherever
that is, so the pixel is where the ray meets the plane: it holds for any zoom, window size and lens.
"""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from surface_sos_ns.web.listening import address

__all__ = ["ClickPage", "pixel_of_ray"]

HELP = """Click the object in **two or three photos from different sides**, a few times in each: once on every part
that looks different. What is bright is selected. Where too much is, tick *not the object* and click that.

Scroll to zoom, drag with the right button to move."""

UPRIGHT = (np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0)
"""Quaternion (w, x, y, z) that stands a picture (x right, y down) up in the plane y = 0, to be seen from -y."""

HELP_OBJECTS = """Choose an object (or press its number on the keyboard), then click it in **two or three photos from
different sides**, a few times in each: once on every part that looks different. What belongs to an object has its
colour. Where too much has, tick *not the object* and click that.

Scroll to zoom, drag with the right button to move."""

BUTTON_COLOURS = ("orange", "blue", "green", "red", "violet", "yellow", "cyan", "pink", "dark", "lime")
"""Of viser's colours for buttons those that are next to `identity_colours.FIRST`; further buttons are grey."""

KEYS = """
if (!window.chooseByKey) {
  window.chooseByKey = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input, textarea")) return;
    if (!/^[1-9]$/.test(event.key)) return;
    const named = [...document.querySelectorAll("button")].filter(
      (button) => button.textContent.trim().startsWith(event.key + " "));
    if (named.length) named[0].click();
  };
  document.addEventListener("keydown", window.chooseByKey);
}
"""
"""Presses the button whose text begins with the number of the key."""

FIELD = np.radians(40.0)
"""Vertical field of view, so narrow that a tilted photo is hardly distorted."""

LOADING = 0.15
"""Seconds in which a browser loads a picture; until then the old one stays, so that nothing flickers."""


def pixel_of_ray(
    origin: Sequence[float], direction: Sequence[float], height: int, width: int
) -> tuple[float, float] | None:
    """Where a ray meets the photo, which is one unit high and stands around the scene's origin in the plane y = 0.

    Returns:
        x, y in pixels (pixel centres at +0.5), also outside the photo; None where the ray does not meet its plane.
    """
    if abs(direction[1]) < 1e-9 or (along := -origin[1] / direction[1]) <= 0:
        return None
    right, up = origin[0] + along * direction[0], origin[2] + along * direction[2]
    return float(width / 2 + right * height), float(height / 2 - up * height)


class ClickPage:
    """Serves the page. What the user does is put into ``events``, for one thread to answer in its order.

    Events are tuples: ("click", view, x, y, positive) in pixels, ("undo",), ("show", view), ("step", by),
    ("choose", identity), ("propagate",), ("done",). Any number of browsers may be open; they show the same.

    Args:
        sizes: (height, width) of each photo, pixels.
        host, port: where to listen; if the port is taken, at the next free one.
        progress: told when the last browser has gone.
        names: of several objects, which get a button each; empty for one object.
        task: what the user has to do (markdown), where it is something else than to click the object in a few photos.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, ...]],
        host: str,
        port: int,
        progress: Callable[[str], None],
        names: Sequence[str] = (),
        task: str | None = None,
    ) -> None:
        import viser

        from surface_sos_ns.web.guard import guard_viser, port_of

        guard_viser()
        self.events: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._sizes, self._progress = sizes, progress
        self._drawn = 0
        self._view = 0
        self._image: Any = None
        self._watching: set[int] = set()
        self._server = viser.ViserServer(
            host=host, port=port, label="Click the objects" if names else "Click the object", verbose=False
        )
        self.port = port_of(self._server)
        self.address = address(host, self.port)
        # A panel beside the photo rather than over it.
        self._server.gui.configure_theme(control_layout="fixed", show_share_button=False, show_logo=False)
        self._server.scene.world_axes.visible = False
        self._add_controls(len(sizes), names, task)
        self._server.on_client_connect(self._welcome)
        self._server.on_client_disconnect(self._farewell)

    def show(self, view: int, picture: np.ndarray, status: str) -> None:
        """Replaces the photo by ``picture`` (H, W, 3) uint8, and the words next to it by ``status`` (markdown)."""
        height, width = self._sizes[view]
        other_shape = self._sizes[view] != self._sizes[self._view]
        self._view = view
        if self._photo.value != view + 1:
            self._photo.value = view + 1
        self._drawn += 1
        image = self._server.scene.add_image(
            f"/photo_{self._drawn}",
            picture,
            render_width=width / height,
            render_height=1.0,
            jpeg_quality=90,
            wxyz=UPRIGHT,
            visible=False,
        )

        @image.on_click
        def _(event: Any) -> None:
            pixel = pixel_of_ray(event.ray_origin, event.ray_direction, height, width)
            if pixel is not None:
                self.events.put(("click", view, *pixel, not self._negative.value))

        time.sleep(LOADING)
        image.visible = True
        if self._image is not None:
            self._image.remove()
        self._image = image
        if other_shape:
            self._fit_all()
        self.say(status)

    def say(self, status: str) -> None:
        """Replaces the words next to the photo (markdown)."""
        self._status.content = status

    def close(self) -> None:
        """Stops listening; browsers that are still open say that the connection is lost."""
        self._server.flush()
        time.sleep(LOADING)  # the last words still have to get there
        self._server.stop()

    def _add_controls(self, count: int, names: Sequence[str], task: str | None) -> None:
        gui = self._server.gui
        gui.add_markdown(task or (HELP_OBJECTS if names else HELP))
        if names:
            self._add_objects(names)
            self._status = gui.add_markdown("")  # above the buttons for photos: it says what the next click is for
        self._photo = gui.add_slider("Photo", min=1, max=count, step=1, initial_value=1)
        plain: Any = "gray" if names else None  # colours are the objects'
        # Two buttons, because a button group drops equal clicks.
        back, on = gui.add_button("Previous photo", color=plain), gui.add_button("Next photo", color=plain)
        self._negative = gui.add_checkbox("not the object", False, hint="What the next clicks mark")
        undo = gui.add_button("Undo the last click", color=plain)
        propagate = gui.add_button("Propagate", hint="Find the object in all other photos", color=plain)
        done = gui.add_button("Done", color="green", hint="Hand the masks back and end")
        fit = gui.add_button("Fit the photo to the window", color=plain)
        if not names:
            self._status = gui.add_markdown("")
        self._photo.on_update(lambda _: self._slide())
        back.on_click(lambda _: self.events.put(("step", -1)))
        on.on_click(lambda _: self.events.put(("step", 1)))
        undo.on_click(lambda _: self.events.put(("undo",)))
        propagate.on_click(lambda _: self.events.put(("propagate",)))
        done.on_click(lambda _: self.events.put(("done",)))
        fit.on_click(lambda _: self._fit_all())

    def _add_objects(self, names: Sequence[str]) -> None:
        """A button for each object, in its colour, and the keys that press them."""
        for identity, name in enumerate(names, start=1):
            colour: Any = BUTTON_COLOURS[identity - 1] if identity <= len(BUTTON_COLOURS) else "gray"
            button = self._server.gui.add_button(f"{identity} {name.replace('_', ' ')}", color=colour)
            button.on_click(functools.partial(self._choose, identity))
        from viser import _messages

        self._server._websock_server.queue_message(_messages.RunJavascriptMessage(source=KEYS))

    def _choose(self, identity: int, _event: Any) -> None:
        self.events.put(("choose", identity))

    def _slide(self) -> None:
        if self._photo.value != self._view + 1:  # else it was set to what is shown
            self.events.put(("show", int(self._photo.value) - 1))

    def _welcome(self, client: Any) -> None:
        """Places a new browser's camera in front of the photo, and again when its window changes."""
        self._watching.add(client.client_id)
        aspect = 0.0

        @client.camera.on_update
        def _(camera: Any) -> None:
            nonlocal aspect
            if abs(camera.aspect - aspect) > 0.01:
                aspect = camera.aspect
                self._fit(client)

        aspect = client.camera.aspect
        self._fit(client)

    def _farewell(self, client: Any) -> None:
        self._watching.discard(client.client_id)  # get_clients() would wait for the lock that viser holds here
        if not self._watching:
            self._progress(f"the page was closed; nothing is lost: open {self.address} again, or give up with Ctrl-C")

    def _fit_all(self) -> None:
        for client in self._server.get_clients().values():
            self._fit(client)

    def _fit(self, client: Any) -> None:
        height, width = self._sizes[self._view]
        half = 0.52 * max(1.0, width / height / client.camera.aspect)  # half of what has to be seen, with a margin
        with client.atomic():
            client.camera.fov = FIELD
            client.camera.up_direction = (0.0, 0.0, 1.0)
            client.camera.position = (0.0, -half / np.tan(FIELD / 2), 0.0)
            client.camera.look_at = (0.0, 0.0, 0.0)
