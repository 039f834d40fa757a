// Fetches the page that is shown every two seconds and puts the parts marked data-live, and the
// charts, in place of the old ones. When the server is gone the page stays as it was, greyed out.
"use strict";

const PERIOD_MS = 2000;

function swapImage(image) {
  const next = new Image();
  const source = image.currentSrc || image.src;
  const url = new URL(source);
  url.searchParams.set("at", Date.now().toString());
  next.onload = () => {
    for (const candidate of image.parentElement.querySelectorAll("source, img")) {
      const attribute = candidate.tagName === "SOURCE" ? "srcset" : "src";
      const other = new URL(candidate.getAttribute(attribute), location.href);
      other.searchParams.set("at", url.searchParams.get("at"));
      candidate.setAttribute(attribute, other.pathname + other.search);
    }
  };
  next.src = url.href;
}

async function refresh() {
  const response = await fetch(location.href, { cache: "no-store" });
  if (!response.ok) throw new Error(response.statusText);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next && next.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(next));
  }
  document.querySelectorAll("[data-live-image]").forEach(swapImage);
}

async function loop() {
  const main = document.querySelector("main");
  try {
    if (!document.hidden) await refresh();
    delete main.dataset.stale;
  } catch {
    main.dataset.stale = "";
  }
  setTimeout(loop, PERIOD_MS);
}

setTimeout(loop, PERIOD_MS);
