// A job as it goes on: its bar moves by server-sent events, and the page is made anew when it ends.

import { say } from "./app.js";

const AGAIN_MS = 4000;
let events = null;
const number = new Intl.NumberFormat("en");

function show(job) {
  const bar = document.getElementById("job-bar");
  const stage = document.getElementById("job-stage");
  if (!bar || !stage) return;
  if (job.total) bar.value = Math.min(1, job.done / job.total);
  else bar.removeAttribute("value");
  const words = JSON.parse(stage.dataset.words);
  const said = words[job.stage] ?? words.starting;
  const total = job.total === null ? "" : ` of ${number.format(job.total)}`;
  stage.textContent = job.done || job.total !== null ? `${said}: ${number.format(job.done)}${total}` : said;
  if (job.stopping) document.getElementById("job-title").textContent = "Stopping";
}

/** The field of a page that is the same as one of another page. */
function twin(page, field) {
  const form = page.querySelector(`form[action="${field.form?.getAttribute("action")}"]`);
  return form?.querySelector(`[name="${CSS.escape(field.name)}"]:not([type="hidden"])`);
}

/** Put what the page says now in the place of what it said; what was typed stays, and whoever typed. */
function replace(page) {
  const focused = document.activeElement;
  let to = focused?.id ? page.getElementById(focused.id) : null;
  for (const field of document.querySelectorAll("#live form [name]:not([type='hidden'])")) {
    const same = twin(page, field);
    if (!same) continue;
    if (same.type === "checkbox") same.checked = field.checked;
    else same.value = field.value;
    if (field === focused) to = same;
  }
  const caret = focused?.selectionStart;
  document.getElementById("live").replaceWith(page.getElementById("live"));
  to?.focus({ preventScroll: true });
  if (caret !== undefined && caret !== null) to?.setSelectionRange?.(caret, caret);
}

async function renew() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) {
    say("The server does not answer now.");
    setTimeout(renew, AGAIN_MS);
    return;
  }
  replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
  if (!watch()) {
    const ended = document.querySelectorAll("#job-title, #job-counts");
    say([...ended].map((one) => one.textContent).join(": "));
  }
}

/**
 * Tell whether a job is under way, and follow it while it can be seen: browsers have six connections to a server, for
 * all tabs together.
 */
function watch() {
  if (!document.querySelector("#job.running")) return false;
  if (events || document.hidden) return true;
  events = new EventSource("/api/job/events");
  events.addEventListener("job", (event) => {
    const { job } = JSON.parse(event.data);
    if (job?.state === "running") return show(job);
    leave();
    renew();
  });
  events.addEventListener("error", () => {
    if (events?.readyState !== EventSource.CLOSED) return; // else the browser tries again
    leave();
    setTimeout(renew, AGAIN_MS); // too many watch: look now and then
  });
  return true;
}

function leave() {
  events?.close();
  events = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? leave() : watch()));
watch();
