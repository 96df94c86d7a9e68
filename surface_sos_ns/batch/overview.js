"use strict";
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];

heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.children[column].dataset.value;
  const compare = head.dataset.sort === "number"
    ? (a, b) => Number(value(a)) - Number(value(b))
    : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
  const rows = [...body.children];
  // What is not known comes last, whichever way the column is sorted.
  const known = rows.filter((row) => value(row) !== "").sort((a, b) => (up ? 1 : -1) * compare(a, b));
  body.append(...known, ...rows.filter((row) => value(row) === ""));
}));
