// Blind votes on pairs. They are kept in the browser; with an address in `data.url` also sent to the studio, in order.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const items = new Map(data.pairs.map((item) => [item.id, item]));
  const prefix = `spyhop-vote/${data.page}/`;
  const OUTBOX = `${prefix}outbox`;
  let rater = "";
  let votes = [];
  let isSending = false;

  // A 32-bit hash (FNV-1a with a final mix): sides and order are random by person and item.
  function hash(text) {
    let value = 0x811c9dc5;
    for (const char of text) value = Math.imul(value ^ char.codePointAt(0), 0x01000193);
    value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
    return (value ^ (value >>> 13)) >>> 0;
  }
  const note = (text) => { byId("note").textContent = text; };
  const list = (key) => { try { return JSON.parse(kept.get(key) ?? "[]"); } catch { return []; } };
  function keep(key, rows) {
    if (!kept.set(key, JSON.stringify(rows))) note("This browser keeps no progress: save your votes before you close the page.");
  }
  const known = (rows) => rows.filter((row) => items.has(row.item_id) && row.winner);

  async function begin(name) {
    rater = name;
    votes = known(list(prefix + "by/" + name));
    kept.set(`${prefix}rater`, name);
    if (data.url) {
      try {
        const reply = await fetch(`${data.url}?rater=${encodeURIComponent(name)}`);
        const waiting = list(OUTBOX).filter((row) => row.judge === name);
        const changed = new Set(waiting.map((row) => row.item_id));
        if (reply.ok) votes = known([...(await reply.json()).filter((row) => !changed.has(row.item_id)), ...waiting]);
      } catch { /* the votes that this browser kept */ }
      keep(prefix + "by/" + name, votes);
    }
    byId("start").hidden = true;
    byId("tools").hidden = byId("bar").hidden = false;
    show();
    flush();
  }

  function current() {
    const done = new Set(votes.map((vote) => vote.item_id));
    const rank = (item) => hash(`order/${rater}/${item.id}`);
    const due = data.pairs.filter((item) => !done.has(item.id));
    return due.sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1))[0];
  }
  const orderOf = (item) => (hash(`side/${rater}/${item.id}`) & 1 ? "ab" : "ba");

  function show() {
    const item = current();
    byId("bar").value = votes.length / data.pairs.length;
    byId("where").textContent = `${rater}: ${votes.length} of ${data.pairs.length} votes given`;
    byId("voting").hidden = !item;
    byId("end").hidden = Boolean(item);
    byId("undo").disabled = !votes.length;
    if (item) {
      const [left, right] = orderOf(item);
      byId("question").textContent = item.question;
      byId("left").textContent = item[left];
      byId("right").textContent = item[right];
    }
    window.scrollTo(0, 0);
    byId(item ? "asked" : "done").focus({ preventScroll: true });
  }

  function change(row) {
    votes = known(list(prefix + "by/" + rater)).filter((vote) => vote.item_id !== row.item_id);
    if (row.winner) votes.push(row);
    keep(prefix + "by/" + rater, votes);
    if (data.url) keep(OUTBOX, [...list(OUTBOX), { ...row, at: crypto.getRandomValues(new Uint32Array(2)).join() }]);
    note("");
    show();
    flush();
  }

  function cast(choice) {
    const item = rater && current();
    if (!item) return;
    const order = orderOf(item);
    const [a, b] = item.suite ? ["better", "worse"] : [data.a, data.b];
    const winner = choice === "0" ? "tie" : order[Number(choice) - 1];
    change({ id: `${item.id}/${rater}`, item_id: item.id, judge: rater, a, b, order, winner, suite: item.suite });
  }

  async function flush() {
    if (isSending || !data.url) return;
    isSending = true;
    try {
      for (let row; (row = list(OUTBOX)[0]);) {
        const { at, ...body } = row;
        const reply = await fetch(data.url, { method: "POST", body: JSON.stringify(body) });
        if (reply.status >= 500) throw new Error(reply.statusText);
        if (!reply.ok) note(`Not accepted: ${await reply.text()}`);
        keep(OUTBOX, list(OUTBOX).filter((each) => each.at !== at));
        document.body.dispatchEvent(new Event("voted"));
      }
      if (byId("note").textContent.startsWith("The studio")) note("The studio answers again; all votes are saved.");
    } catch {
      note(`The studio does not answer. ${list(OUTBOX).length} votes wait in this browser and are sent when it runs again.`);
      setTimeout(flush, 1500);
    }
    isSending = false;
  }

  function save() {
    const text = votes.map((vote) => `${JSON.stringify(vote)}\n`).join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    link.download = `votes-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    note(`Saved ${votes.length} votes as ${link.download}.`);
  }

  byId("who").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("rater").value.trim();
    if (name) begin(name);
  });
  for (const button of document.querySelectorAll("[data-vote]")) button.addEventListener("click", () => cast(button.dataset.vote));
  byId("undo").addEventListener("click", () => { if (rater && votes.length) change({ ...votes.at(-1), winner: null }); });
  byId("save").addEventListener("click", save);
  byId("change").addEventListener("click", () => {
    rater = "";
    for (const id of ["voting", "end", "tools", "bar"]) byId(id).hidden = true;
    byId("where").textContent = "";
    byId("start").hidden = false;
    byId("rater").value = "";
    byId("rater").focus();
  });
  window.addEventListener("storage", () => { if (rater) { votes = known(list(prefix + "by/" + rater)); show(); } });
  const last = kept.get(`${prefix}rater`);
  if (last) begin(last);
});
