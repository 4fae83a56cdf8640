// A photo's own page: arrows lead to its neighbours in the results, Escape back to them.

import { isForPage } from "./app.js";

const KEYS = { ArrowLeft: '[rel="prev"]', ArrowRight: '[rel="next"]', Escape: "#back", m: "#more" };

document.addEventListener("keydown", (event) => {
  if (isForPage(event) && KEYS[event.key]) document.querySelector(KEYS[event.key])?.click();
});

// The next picture is there before it is asked for.
for (const { dataset } of document.querySelectorAll(".turn [data-srcset]")) {
  Object.assign(new Image(), { sizes: dataset.sizes, srcset: dataset.srcset });
}
