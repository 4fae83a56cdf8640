// A job as it goes on: its bar moves by server-sent events, and the page is made anew when it ends.

import { say } from "./app.js";

const STAGES = {
  scanning: "Looking for photos", recognising: "Recognising what is known", encoding: "Learning what photos show",
  labelling: "Labelling", reading: "Reading what photos say of themselves",
};
const AGAIN_MS = 5000;
let events = null;
const number = new Intl.NumberFormat("en");

function show(job) {
  const bar = document.getElementById("job-bar");
  const stage = document.getElementById("job-stage");
  if (!bar || !stage) return;
  if (job.total) bar.value = Math.min(1, job.done / job.total);
  else bar.removeAttribute("value");
  const said = STAGES[job.stage] ?? "Starting";
  const total = job.total === null ? "" : ` of ${number.format(job.total)}`;
  stage.textContent = job.done || job.total !== null ? `${said}: ${number.format(job.done)}${total}` : said;
  if (job.stopping) document.getElementById("job-title").textContent = "Stopping";
}

/** Put what the page says now in the place of what it said; whoever was in a field stays there. */
async function renew() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const focused = document.activeElement?.id;
  const typed = document.getElementById("folder")?.value;
  document.getElementById("live").replaceWith(page.getElementById("live"));
  const field = document.getElementById("folder");
  if (field && focused === "folder") field.value = typed;
  if (focused) document.getElementById(focused)?.focus();
  const ended = document.getElementById("job");
  say([...(ended?.querySelectorAll("#job-title, #job-counts") ?? [])].map((one) => one.textContent).join(": "));
}

/** Follow the job while it can be seen: browsers have six connections to a server, for all tabs together. */
function follow() {
  if (events || document.hidden || !document.querySelector("#job.running")) return;
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
    setTimeout(follow, AGAIN_MS); // too many watch
  });
}

function leave() {
  events?.close();
  events = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
follow();
