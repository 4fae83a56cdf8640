"use strict";
const photos = [...document.querySelectorAll("a.photo")];
const box = document.querySelector("dialog");
const picture = box.querySelector("img");
const words = box.querySelector("footer");
const original = box.querySelector("header a");
let shown = 0; // the photo in the box, or else the one that has the focus

let closing = false; // then the browser puts the focus where it was before

function close() {
  closing = true;
  box.close();
  closing = false;
  photos[shown].focus();
}

function show(number) {
  shown = Math.max(0, Math.min(photos.length - 1, number));
  const photo = photos[shown];
  const small = photo.querySelector("img");
  picture.src = small ? small.src : "data:,";
  picture.alt = small ? small.alt : "";
  words.textContent = `${photo.title} — ${shown + 1} of ${photos.length}`;
  original.href = photo.href;
  box.querySelector(".back").disabled = shown === 0;
  box.querySelector(".on").disabled = shown === photos.length - 1;
  const whole = new Image(); // what a browser can't decode stays small
  whole.onload = () => { if (photos[shown] === photo) picture.src = whole.src; };
  whole.src = photo.href;
  if (!box.open) box.showModal();
}

function inRow(step) {
  const from = photos[shown].getBoundingClientRect();
  const rows = photos.map((photo) => photo.getBoundingClientRect());
  const tops = rows.map((row) => row.top).filter((top) => (top - from.top) * step > 1);
  if (!tops.length) return shown;
  const top = step > 0 ? Math.min(...tops) : Math.max(...tops);
  let best = shown;
  let least = Infinity;
  rows.forEach((row, number) => {
    const away = Math.abs(row.left - from.left);
    if (Math.abs(row.top - top) < 1 && away < least) { best = number; least = away; }
  });
  return best;
}

const keys = {
  ArrowLeft: () => shown - 1,
  ArrowRight: () => shown + 1,
  ArrowUp: () => (box.open ? shown - 1 : inRow(-1)),
  ArrowDown: () => (box.open ? shown + 1 : inRow(1)),
  Home: () => 0,
  End: () => photos.length - 1,
};

document.addEventListener("keydown", (event) => {
  if (!(event.key in keys) || !photos.length || event.altKey || event.ctrlKey || event.metaKey) return;
  if (!box.open && !photos.includes(document.activeElement)) {
    if (event.key !== "ArrowRight" && event.key !== "ArrowDown") return; // the page scrolls as pages do
    photos[shown].focus();
    event.preventDefault();
    return;
  }
  event.preventDefault();
  const next = Math.max(0, Math.min(photos.length - 1, keys[event.key]()));
  if (box.open) show(next);
  else photos[next].focus();
});

photos.forEach((photo, number) => {
  photo.addEventListener("focus", () => { if (!closing) shown = number; });
  photo.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens the original in a tab or window
    event.preventDefault();
    show(number);
  });
});

box.querySelector(".back").addEventListener("click", () => show(shown - 1));
box.querySelector(".on").addEventListener("click", () => show(shown + 1));
box.querySelector(".close").addEventListener("click", close);
box.addEventListener("click", (event) => { if (event.target.matches(".stage, .stage img")) close(); });
box.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
box.addEventListener("close", () => {
  picture.removeAttribute("src");
  photos[shown].focus(); // a browser may close it without asking
});
