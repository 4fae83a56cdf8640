// A photo's own page: arrows lead to its neighbours in the results, Escape back to them.

import { isForPage } from "./app.js";

const KEYS = { ArrowLeft: '[rel="prev"]', ArrowRight: '[rel="next"]', Escape: "#back", m: "#more" };

document.addEventListener("keydown", (event) => {
  if (isForPage(event) && KEYS[event.key]) document.querySelector(KEYS[event.key])?.click();
});

// The next one is there before it is asked for.
for (const link of document.querySelectorAll('.turn [rel="next"]')) {
  document.head.append(Object.assign(document.createElement("link"), { rel: "prefetch", href: link.href }));
}
