// Photos in a grid: arrows move, m and l search on, more photos come when the end is near.

import { isForPage, say } from "./app.js";

const grid = document.getElementById("grid");
const opened = () => [...grid.querySelectorAll(".tile:not([hidden]) > .open")];

// ---- keys

/** The link to move to from one, by an arrow: beside it, or the nearest in the row above or below. */
function beside(links, from, key) {
  const at = links.indexOf(from);
  if (key === "ArrowRight") return links[at + 1];
  if (key === "ArrowLeft") return links[at - 1];
  const here = from.getBoundingClientRect();
  const middle = here.left + here.width / 2;
  const places = links.map((link) => [link, link.getBoundingClientRect()]);
  const beyond = places.filter(([, box]) => (key === "ArrowDown" ? box.top > here.top + 4 : box.top < here.top - 4));
  if (!beyond.length) return undefined;
  const tops = beyond.map(([, box]) => box.top);
  const row = key === "ArrowDown" ? Math.min(...tops) : Math.max(...tops);
  const off = (box) => Math.abs(box.left + box.width / 2 - middle);
  return beyond.filter(([, box]) => Math.abs(box.top - row) < 4).sort(([, a], [, b]) => off(a) - off(b))[0][0];
}

function move(event) {
  const links = opened();
  const from = document.activeElement?.closest(".tile")?.querySelector(".open");
  const to = from ? beside(links, from, event.key) : links[0];
  if (!to) return;
  event.preventDefault();
  to.focus();
  to.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (!grid) return;
  const inBox = event.target.id === "q" && event.key === "ArrowDown";
  if (!isForPage(event) && !inBox) return;
  const tile = document.activeElement?.closest(".tile");
  if (event.key.startsWith("Arrow") && (tile || inBox || event.target === document.body)) move(event);
  else if (event.key === "m") tile?.querySelector(".more")?.click();
  else if (event.key === "l") tile?.querySelector(".less")?.click();
});

// ---- photos that show the same

grid?.addEventListener("click", (event) => {
  const badge = event.target.closest(".same");
  if (!badge || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const hide = badge.getAttribute("aria-expanded") === "true";
  badge.setAttribute("aria-expanded", String(!hide));
  for (const id of badge.dataset.same.split(" ")) {
    const tile = document.getElementById(`photo-${id}`);
    if (tile) tile.hidden = hide;
  }
});
for (const badge of grid?.querySelectorAll(".same") ?? []) badge.setAttribute("aria-expanded", "false");

// ---- more

const near = new IntersectionObserver(
  (seen) => seen.some((one) => one.isIntersecting) && more(),
  { rootMargin: "1200px 0px" },
);
let loading = false;

async function more() {
  const next = grid.querySelector(".next");
  if (!next || loading) return;
  loading = true;
  near.disconnect();
  const address = new URL(next.querySelector("a").href);
  address.searchParams.set("part", "hits");
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const part = document.createElement("template");
    part.innerHTML = await answer.text();
    for (const badge of part.content.querySelectorAll(".same")) badge.setAttribute("aria-expanded", "false");
    const known = new Set([...grid.children].map((tile) => tile.id));
    for (const tile of [...part.content.querySelectorAll(".tile")]) if (known.has(tile.id)) tile.remove();
    next.replaceWith(part.content);
    watch();
  } catch {
    say("More photos can't be fetched now.");
  } finally {
    loading = false;
  }
}

function watch() {
  const next = grid?.querySelector(".next");
  if (next) near.observe(next);
}
watch();

// ---- filters: open again where they were left open, closed by Escape

const filters = document.querySelector(".filters");
if (filters) {
  const isWide = matchMedia("(min-width: 761px)").matches; // else nothing would be seen of the photos
  filters.open = isWide && sessionStorage.getItem("filters") === "open";
  filters.addEventListener("toggle", () => sessionStorage.setItem("filters", filters.open ? "open" : ""));
  filters.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      filters.open = false;
      filters.querySelector("summary").focus();
    }
  });
}
