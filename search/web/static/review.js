// The review: an answer by key or button, the next question in its place without a new page.

import { isForPage, say } from "./app.js";

const KEYS = {
  y: "yes", ArrowRight: "yes", n: "no", ArrowLeft: "no", s: "skip", " ": "skip", z: "undo", u: "undo",
};
const place = document.getElementById("review");
let busy = false;

async function answer(form, button) {
  if (busy) return;
  busy = true;
  place.setAttribute("aria-busy", "true");
  try {
    const fields = new URLSearchParams(new FormData(form));
    if (button?.name) fields.set(button.name, button.value);
    const focused = place.contains(document.activeElement) ? document.activeElement.id || "question" : null;
    const reply = await fetch(form.action, { method: "POST", body: fields, headers: { "X-Part": "1", Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    if (page.querySelector("main") || !page.querySelector(".ask, .empty")) { // refused: no part of this page
      say(page.querySelector(".empty p")?.textContent ?? "That did not arrive; say it again.");
      return;
    }
    place.replaceChildren(...page.body.childNodes);
    settle(focused);
  } catch {
    say("That did not arrive; say it again.");
  } finally {
    busy = false;
    place.removeAttribute("aria-busy");
  }
}

/** Keep whoever pressed a button on that button, and say what was answered and what is asked. */
function settle(focused) {
  if (focused) {
    const same = focused !== "other" && document.getElementById(focused);
    const to = same && !same.disabled ? same : place.querySelector("#question, a");
    to?.focus({ preventScroll: true });
  }
  const asked = place.querySelector(".question")?.textContent ?? place.querySelector("h1")?.textContent ?? "";
  const said = place.querySelector(".ask")?.dataset.said ?? "";
  say(said ? `${said}. Next: ${asked}` : asked);
}

place.addEventListener("submit", (event) => {
  event.preventDefault();
  answer(event.target, event.submitter);
});

document.addEventListener("keydown", (event) => {
  if (!isForPage(event) || event.repeat) return;
  if (event.key === "c" && document.getElementById("other")) {
    event.preventDefault();
    document.getElementById("other").focus();
    return;
  }
  const isButton = event.target.closest?.("button, a") && event.key === " ";
  const button = KEYS[event.key] && !isButton && place.querySelector(`[data-answer="${KEYS[event.key]}"]`);
  if (button && !button.disabled) {
    event.preventDefault();
    answer(button.form, button);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.id === "other") event.target.blur();
});
