// Keeps an open page up to date: elements marked data-live are fetched again after each event, and
// every 15 s for ages and budgets. The page is complete without this script.
"use strict";

const QUIET = 15000;
const GATHER = 400;
const live = document.getElementById("live");
let timer = null;
let asking = false;

function replace(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const left = old.querySelector(".scroll")?.scrollLeft ?? 0;
  const open = [...old.querySelectorAll("details[open]")].map((each) => each.id);
  old.innerHTML = fresh.innerHTML;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  if (left) old.querySelector(".scroll").scrollLeft = left;
}

async function refresh() {
  timer = null;
  if (asking) return soon(GATHER);
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) return location.reload();
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (fresh) replace(old, fresh);
      }
      document.querySelector("footer time").replaceWith(page.querySelector("footer time"));
    }
    live.textContent = answer.ok ? "" : "· the page answers " + answer.status;
  } catch {
    live.textContent = "· no connection, trying again";
  } finally {
    asking = false;
  }
  soon(QUIET);
}

function soon(wait) {
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

const events = new EventSource("/events");
events.onmessage = () => soon(GATHER);
addEventListener("pagehide", () => events.close());
document.addEventListener("visibilitychange", () => document.hidden || soon(0));
addEventListener("keydown", (key) => {
  const field = document.getElementById("q");
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (key.key !== "/" || !field || typing || key.ctrlKey || key.metaKey || key.altKey) return;
  key.preventDefault();
  field.focus();
});
// The browser alone knows its time zone: its name goes into the link that chooses it.
const local = document.getElementById("zone-local");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (local && zone) {
  const query = new URLSearchParams(location.search);
  query.set("zone", zone);
  local.href = `?${query}`;
  local.title = zone;
  local.hidden = false;
}
soon(QUIET);
