// What htmx does not do: announcements, events of an open page, and keys.
"use strict";

// announce(text): read aloud by screen readers, shown nowhere.
function announce(text) {
  document.getElementById("live").textContent = text;
}

// An element with data-events="/address" replaces the elements whose ids its events name.
// An event `part` holds HTML with ids at its roots; `add` holds children for the element that
// data-into names; `say` a text to announce; `end` closes.
function listen(root) {
  const source = new EventSource(root.dataset.events);
  source.addEventListener("part", (event) => {
    const made = document.createElement("template");
    made.innerHTML = event.data;
    for (const part of [...made.content.children]) {
      const old = document.getElementById(part.id);
      if (!old) continue;
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      old.replaceWith(part);
      htmx.process(part);
      if (focused) document.getElementById(focused)?.focus();
    }
  });
  source.addEventListener("add", (event) => {
    const made = document.createElement("template");
    made.innerHTML = event.data;
    for (const part of made.content.querySelectorAll("[data-into]")) {
      document.getElementById(part.dataset.into)?.append(...part.children);
    }
  });
  source.addEventListener("say", (event) => announce(event.data));
  source.addEventListener("end", () => source.close());
  source.addEventListener("error", () => {
    root.classList.add("offline");
    if (source.readyState === EventSource.CLOSED) announce("The studio does not answer.");
  });
  source.addEventListener("open", () => root.classList.remove("offline"));
  window.addEventListener("pagehide", () => source.close());
}

function prepare(root) {
  for (const element of root.querySelectorAll("[data-events]")) {
    if (element.dataset.isOpen) continue;
    element.dataset.isOpen = "1";
    listen(element);
  }
}

document.addEventListener("DOMContentLoaded", () => prepare(document));
// A list with data-fills="id" writes the chosen value into that field.
document.addEventListener("change", (event) => {
  const field = document.getElementById(event.target.dataset.fills);
  if (field) field.value = event.target.value;
});
document.addEventListener("htmx:load", (event) => {
  prepare(event.detail.elt.parentElement || document);
  const said = event.detail.elt.dataset?.say;
  if (said) announce(said);
});
