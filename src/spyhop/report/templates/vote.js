"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const store = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, text) {
    try { localStorage.setItem(key, text); } catch {
      byId("note").textContent = "This browser keeps no progress: save your votes before you close the page.";
    }
  },
};
const prefix = `spyhop-vote/${data.page}/`;
let rater = "";
let votes = [];

/** A 32-bit hash (FNV-1a with a final mix): sides and order are random by person and item. */
function hash(text) {
  let value = 0x811c9dc5;
  for (const char of text) value = Math.imul(value ^ char.codePointAt(0), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  return (value ^ (value >>> 13)) >>> 0;
}
const orderOf = (item) => (hash(`side/${rater}/${item.id}`) & 1 ? "ab" : "ba");

function read(name) {
  try {
    const found = JSON.parse(store.get(prefix + name) ?? "[]");
    const known = new Map(data.items.map((item) => [item.id, item]));
    return found.filter((vote) => known.has(vote.id) && ["a", "b", "tie"].includes(vote.winner));
  } catch { return []; }
}

function begin(name) {
  rater = name;
  votes = read(name);
  store.set(`${prefix}rater`, name);
  byId("start").hidden = true;
  byId("tools").hidden = byId("bar").hidden = false;
  show();
}

function current() {
  const done = new Set(votes.map((vote) => vote.id));
  const due = data.items.filter((item) => !done.has(item.id));
  const rank = (item) => hash(`order/${rater}/${item.id}`);
  return due.sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1))[0];
}

function show() {
  const item = current();
  const total = data.items.length;
  byId("bar").value = votes.length / total;
  byId("where").textContent = `${rater}: ${votes.length} of ${total} votes given`;
  byId("voting").hidden = !item;
  byId("end").hidden = Boolean(item);
  byId("undo").disabled = !votes.length;
  if (item) {
    const order = orderOf(item);
    byId("question").textContent = item.question;
    byId("left").textContent = order === "ab" ? item.a : item.b;
    byId("right").textContent = order === "ab" ? item.b : item.a;
  }
  window.scrollTo(0, 0);
  byId(item ? "asked" : "done").focus({ preventScroll: true });
}

function keep() {
  store.set(prefix + rater, JSON.stringify(votes));
  show();
}

function cast(choice) {
  const item = current();
  if (!item || !rater) return;
  const order = orderOf(item);
  const winner = choice === "0" ? "tie" : order[Number(choice) - 1];
  votes.push({ id: item.id, order, winner, expected: item.expected });
  byId("note").textContent = "";
  keep();
}

function undo() {
  if (!rater || !votes.length) return;
  votes.pop();
  keep();
}

function save() {
  const file = { format: data.format, page: data.page, a: data.a, b: data.b, rater, votes };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
  link.download = `votes-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  byId("note").textContent = `Saved ${votes.length} votes as ${link.download}.`;
}

byId("who").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("rater").value.trim();
  if (name) begin(name);
});
for (const button of document.querySelectorAll("[data-vote]")) {
  button.addEventListener("click", () => cast(button.dataset.vote));
}
byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", save);
byId("change").addEventListener("click", () => {
  rater = "";
  for (const id of ["voting", "end", "tools", "bar"]) byId(id).hidden = true;
  byId("where").textContent = "";
  byId("start").hidden = false;
  byId("rater").value = "";
  byId("rater").focus();
});
byId("keys").checked = store.get(`${prefix}keys`) !== "off";
byId("keys").addEventListener("change", (event) => store.set(`${prefix}keys`, event.target.checked ? "on" : "off"));
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=checkbox])");
  if (!rater || isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !byId("keys").checked) return;
  if (["0", "1", "2"].includes(event.key)) cast(event.key);
  else if (event.key === "u") undo();
});
const last = store.get(`${prefix}rater`);
if (last) begin(last);
