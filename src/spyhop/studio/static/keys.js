// Keys that press buttons: an element with data-key="u" is clicked by u, unless the person types or switched keys off.
"use strict";
const kept = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, text) { try { localStorage.setItem(key, text); return true; } catch { return false; } },
};
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("textarea, select, input:not([type=checkbox], [type=radio])");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat || kept.get("spyhop-keys") === "off") return;
  const element = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!element || element.disabled || !element.checkVisibility()) return;
  event.preventDefault();
  element.click();
});
document.addEventListener("change", (event) => {
  if (event.target.id === "keys") kept.set("spyhop-keys", event.target.checked ? "on" : "off");
});
document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("keys");
  if (box) box.checked = kept.get("spyhop-keys") !== "off";
});
for (const kind of ["htmx:sendError", "htmx:afterRequest"]) document.addEventListener(kind, (event) => {
  const problem = document.getElementById("problem");
  if (problem && (kind === "htmx:sendError" || event.detail.successful)) problem.textContent = kind === "htmx:sendError" ? problem.dataset.offline : "";
});
