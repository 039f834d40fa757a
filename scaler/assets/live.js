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

// Whoever moves by keyboard stays on the link that was reached: its row may be another one now.
function swap(part, next) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  part.replaceWith(document.adoptNode(next));
  if (!focused) return;
  const name = focused.id ? "id" : "href";
  const same = [...next.querySelectorAll(`[${name}]`)];
  const value = focused.getAttribute(name);
  same.find((one) => one.getAttribute(name) === value)?.focus({ preventScroll: true });
}

function names(page) {
  return [...page.querySelectorAll("[data-live]")].map((part) => part.dataset.live).join();
}

async function refresh() {
  const response = await fetch(location.href, { cache: "no-store" });
  if (!response.ok) throw new Error(response.statusText);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  if (names(fresh) !== names(document)) return location.reload();
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next && next.innerHTML !== part.innerHTML) swap(part, next);
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
