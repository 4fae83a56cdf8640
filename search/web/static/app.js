// What every page has: keys that lead somewhere, and a voice for what happens without a new page.

/** Say something to everybody: shown for a moment, and read out. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.classList.toggle("seen", Boolean(text));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("seen"), 5000);
}

/** What a form or a request that changes something must send back, as `form_token`. */
export const formToken = document.querySelector('meta[name="form-token"]').content;

/** Whether a key is meant for the page rather than for a field or for the browser. */
export function isForPage(event) {
  const inField = event.target.closest?.("input, textarea, select, [contenteditable], dialog");
  return !inField && !event.ctrlKey && !event.metaKey && !event.altKey && !event.defaultPrevented;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && isForPage(event)) {
    const box = document.getElementById("q");
    if (box) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  }
});
