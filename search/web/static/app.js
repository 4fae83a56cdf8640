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

// ---- the list of keys

const keys = document.getElementById("keys");

document.addEventListener("keydown", (event) => {
  if (event.key === "?" && isForPage(event)) keys.showModal();
});
keys.addEventListener("click", (event) => {
  if (event.target === keys) keys.close();
});

// ---- a picture to search by: chosen, dropped or pasted; sent by the form of the page, or by one like it

const PICTURE = /^image\//;

function send(file) {
  if (!PICTURE.test(file.type) && file.type) {
    say("That is no picture.");
    return;
  }
  const form = document.getElementById("send") ?? bareForm();
  const files = new DataTransfer();
  files.items.add(file);
  form.elements.image.files = files.files;
  say("Looking…");
  form.submit();
}

function bareForm() {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: "/pictures", enctype: "multipart/form-data", hidden: true });
  for (const [name, type] of [["form_token", "hidden"], ["image", "file"]]) {
    form.append(Object.assign(document.createElement("input"), { name, type }));
  }
  form.elements.form_token.value = formToken;
  document.body.append(form);
  return form;
}

const choose = document.getElementById("choose");
if (choose) {
  const chooser = Object.assign(document.createElement("input"), { type: "file", accept: "image/*" });
  chooser.addEventListener("change", () => chooser.files.length && send(chooser.files[0]));
  choose.addEventListener("click", () => chooser.click());
  choose.hidden = false;
}
document.getElementById("send")?.classList.add("hidden");
if (document.getElementById("send")) document.getElementById("send").inert = true;

document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) {
    event.preventDefault();
    send(file);
  }
});

const drop = document.getElementById("drop");
let depth = 0;

function hasFiles(event) {
  return Boolean(drop) && [...(event.dataTransfer?.types ?? [])].includes("Files");
}

document.addEventListener("dragenter", (event) => {
  if (hasFiles(event)) drop.hidden = !++depth;
});
document.addEventListener("dragleave", (event) => {
  if (hasFiles(event)) drop.hidden = !(depth = Math.max(0, depth - 1));
});
document.addEventListener("dragover", (event) => {
  if (hasFiles(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  drop.hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) send(file);
});
