"use strict";
const main = document.querySelector("main");

for (const choice of document.querySelectorAll("input[name=layer]")) {
  const show = () => { if (choice.checked) main.dataset.layer = choice.value; };
  choice.addEventListener("change", show);
  show(); // a reloaded page keeps its choice
}

for (const slider of document.querySelectorAll(".stack input")) {
  const cut = () => slider.parentElement.style.setProperty("--cut", slider.value + "%");
  slider.addEventListener("input", cut);
  cut();
}

for (const table of document.querySelectorAll(".turntable")) {
  const frames = Number(table.dataset.frames), columns = Number(table.dataset.columns);
  const rows = Math.ceil(frames / columns);
  const slider = document.querySelector(".turn");
  const show = (turn) => {
    const frame = ((Math.round(turn) % frames) + frames) % frames;
    const x = columns > 1 ? 100 * (frame % columns) / (columns - 1) : 0;
    const y = rows > 1 ? 100 * Math.floor(frame / columns) / (rows - 1) : 0;
    for (const sheet of table.children) sheet.style.backgroundPosition = `${x}% ${y}%`;
    table.dataset.frame = frame;
    slider.value = frame;
  };
  let held = null;
  table.addEventListener("pointerdown", (event) => {
    held = { x: event.clientX, frame: Number(table.dataset.frame) };
    table.setPointerCapture(event.pointerId);
  });
  table.addEventListener("pointermove", (event) => {
    // Half a turn from edge to edge; the surface follows the finger, so the camera goes the other way.
    if (held) show(held.frame - (event.clientX - held.x) / table.clientWidth * frames / 2);
  });
  for (const end of ["pointerup", "pointercancel"]) table.addEventListener(end, () => { held = null; });
  slider.addEventListener("input", () => show(Number(slider.value)));
  for (const look of document.querySelectorAll(".grey, input.objects")) {
    const toggle = () => table.classList.toggle(look.className, look.checked);
    look.addEventListener("change", toggle);
    toggle();
  }
  show(Number(slider.value));
}
