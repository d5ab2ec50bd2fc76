"use strict";
// Shows what the stream sends: the page's body, drawn and escaped by bulkimg. Nothing else is asked, stored or sent.
const live = document.getElementById("live"), line = document.getElementById("line");
let source = null, latest = null, ended = false, failed = 0;

function say(text, kind) {
  line.textContent = text;
  line.className = kind;
}

// The same section before and after: the first two words of its summary.
const name = section => section.firstElementChild.textContent.split(" ", 2).join(" ");
const parts = kind => [...live.querySelectorAll(kind)];

function show() {
  if (latest === null || !getSelection().isCollapsed) return;  // somebody marks text to copy it
  const open = new Map(parts("details").map(section => [name(section), section.open]));
  const places = parts("figure, section").map(part => part.scrollLeft), place = scrollY;
  const focus = document.activeElement, at = parts("summary, a").indexOf(focus);
  live.innerHTML = latest;
  latest = null;
  for (const section of parts("details")) if (open.has(name(section))) section.open = open.get(name(section));
  parts("figure, section").forEach((part, index) => { if (places[index]) part.scrollLeft = places[index]; });
  if (at >= 0) parts("summary, a")[at]?.focus({preventScroll: true});
  scrollTo(scrollX, place);
}

function open() {
  if (source || ended || document.hidden) return;
  source = new EventSource(live.dataset.stream);
  source.addEventListener("open", () => { failed = 0; say("watching", "on"); });
  source.addEventListener("body", event => { latest = JSON.parse(event.data); show(); });
  source.addEventListener("end", () => { ended = true; close("This run is over."); });
  source.addEventListener("error", lost);
}

function close(text) {
  source?.close();
  source = null;
  say(text, "");
}

// Where the connection broke the browser tries again by itself; where the server refused, it has to be asked why.
async function lost() {
  if (source?.readyState !== EventSource.CLOSED) return say("bulkimg ui does not answer; trying again", "off");
  close("");
  let why = "bulkimg ui does not answer; trying again";
  try {
    const answer = await fetch(live.dataset.stream, {method: "HEAD"});
    why = answer.headers.get("X-Why") ?? why;
  } catch { /* it does not answer */ }
  say(why, "off");
  setTimeout(open, Math.min(30, 2 ** ++failed) * 1000);
}

document.addEventListener("selectionchange", show);
document.addEventListener("visibilitychange", () => document.hidden ? ended || close("paused while this page is hidden") : open());
addEventListener("pagehide", () => close(""));
addEventListener("pageshow", open);
open();
