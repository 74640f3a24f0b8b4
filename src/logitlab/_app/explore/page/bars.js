// One row of logits: bars to drag on the left, the probabilities they give on the right.

import * as state from "./state.js";
import { html, number, percent, text } from "./svg.js";

const list = document.getElementById("bars");
const rows = new Map(); // class -> its elements
let axis = { low: -1, high: 1, digits: 2 }; // of the logits
let dragging = null;

function edits() {
  return new Map(state.get("edit").split(",").filter(Boolean).map((e) => e.split(":")));
}

// A logit as it stands on the track, after shift and scale, becomes one of the row.
function move(k, shown) {
  const own = Number.isFinite(shown) ? (shown - Number(state.get("shift"))) / Number(state.get("scale")) : shown;
  const value = Number.isFinite(own) ? String(Number(own.toPrecision(12))) : own > 0 ? "inf" : "-inf";
  const all = edits().set(String(k), value);
  state.set({ edit: [...all].map((pair) => pair.join(":")).join(",") });
}

const onGrid = (value) => Number(value.toFixed(axis.digits));

function make(k) {
  const name = html("span", { class: "name" });
  const bar = html("i"), knob = html("b");
  const track = html("div", { class: "track", role: "slider", tabindex: "0" }, bar, knob);
  const field = html("input", { type: "text", inputmode: "text", autocomplete: "off" });
  const fill = html("i"), ghost = html("u"), whisker = html("s"), dot = html("em");
  const chance = html("div", { class: "chance", "aria-hidden": "true" }, fill, ghost, whisker, dot);
  const share = html("span", { class: "share" });
  const item = html("li", { "data-class": k }, name, track, field, chance, share);
  const at = (event) => {
    const box = track.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    move(k, onGrid(axis.low + part * (axis.high - axis.low)));
  };
  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    track.focus();
    track.setPointerCapture(event.pointerId);
    dragging = k;
    at(event);
  });
  track.addEventListener("pointermove", (event) => { if (dragging === k) at(event); });
  for (const end of ["pointerup", "pointercancel"]) {
    track.addEventListener(end, () => { dragging = null; state.set({}); });
  }
  track.addEventListener("keydown", (event) => {
    const step = 10 ** -axis.digits;
    const now = rows.get(k).value;
    const from = Number.isFinite(now) ? now : axis.low;
    const to = { ArrowRight: from + step, ArrowUp: from + step, ArrowLeft: from - step,
      ArrowDown: from - step, PageUp: from + 10 * step, PageDown: from - 10 * step,
      Home: axis.low, End: axis.high, Delete: -Infinity }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(k, Number.isFinite(to) ? onGrid(to) : to);
  });
  field.addEventListener("change", () => {
    const given = field.value.trim().replace("−", "-").replace("∞", "inf").toLowerCase();
    const value = given === "inf" ? Infinity : given === "-inf" ? -Infinity : Number(given);
    if (given === "" || Number.isNaN(value)) { state.set({}); return; }
    move(k, value);
  });
  return { item, name, track, bar, knob, field, fill, ghost, whisker, dot, share, value: 0 };
}

function fit(view) {
  const all = [...view.z, ...view.scaled].map(number).filter(Number.isFinite);
  if (!all.length) all.push(-1, 1);
  let low = Math.min(...all), high = Math.max(...all);
  const span = high - low || Math.max(1, Math.abs(high) / 4);
  if (low > 0 && low <= 2 * span) low = 0;
  if (high < 0 && high >= -2 * span) high = 0;
  const room = 0.15 * (high - low || span);
  axis = { low: low === 0 ? low : low - room, high: high === 0 ? high : high + room };
  axis.digits = Math.max(0, Math.min(12, 2 - Math.floor(Math.log10(axis.high - axis.low))));
}

// The smallest round number that no probability exceeds.
function reach(view) {
  const most = Math.max(...view.p.map(number).filter(Number.isFinite), ...view.before.map(number), 0);
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((limit) => most <= limit) ?? 1;
}

const share = (x) => `${(100 * Math.min(1, Math.max(0, x))).toFixed(3)}%`;

export function drawBars(view, draws) {
  if (dragging === null) fit(view);
  const high = reach(view);
  document.getElementById("axis").textContent = `probability to ${percent(high)}`;
  const place = (z) => (number(z) - axis.low) / (axis.high - axis.low);
  const zero = axis.low > 0 ? 0 : axis.high < 0 ? 1 : place(0);
  const seen = new Set();
  view.place.forEach((k, i) => {
    if (!rows.has(k)) rows.set(k, make(k));
    seen.add(k);
    const row = rows.get(k), z = number(view.scaled[i]);
    row.value = z;
    if (list.children[i] !== row.item) list.insertBefore(row.item, list.children[i] ?? null);
    row.name.textContent = view.names[i];
    row.name.title = view.names[i];
    const at = z === -Infinity ? 0 : z === Infinity ? 1 : Math.min(1, Math.max(0, place(z)));
    row.bar.style.left = share(Math.min(at, zero));
    row.bar.style.width = share(Math.abs(at - zero));
    row.knob.style.left = share(at);
    row.item.classList.toggle("cut", view.cut[i]);
    row.item.classList.toggle("excluded", z === -Infinity);
    if (document.activeElement !== row.field || dragging !== null) row.field.value = text(z, Math.abs(z) < 0.01 || Math.abs(z) >= 1e6 ? 3 : 4);
    row.field.setAttribute("aria-label", `logit of class ${view.names[i]}`);
    row.fill.style.width = share(number(view.p[i]) / high || 0);
    row.ghost.hidden = state.get("shift") === "0" && state.get("scale") === "1";
    row.ghost.style.left = share(number(view.before[i]) / high || 0);
    const drawn = draws && !draws.refused;
    row.dot.hidden = row.whisker.hidden = !drawn;
    if (drawn) {
      const f = draws.frequency[i], r = draws.reach[i];
      row.dot.style.left = share(f / high);
      row.whisker.style.left = share((f - r) / high);
      row.whisker.style.width = share(Math.min(1, (f + r) / high) - Math.max(0, (f - r) / high));
    }
    const rank = `#${view.rank[i]}`;
    row.share.replaceChildren(html("span", {}, view.cut[i] ? "cut" : percent(view.p[i])), html("small", {}, rank));
    const track = row.track;
    track.setAttribute("aria-label", `logit of class ${view.names[i]}`);
    track.setAttribute("aria-valuemin", axis.low.toFixed(axis.digits));
    track.setAttribute("aria-valuemax", axis.high.toFixed(axis.digits));
    track.setAttribute("aria-valuenow", Number.isFinite(z) ? z : at ? axis.high : axis.low);
    track.setAttribute("aria-valuetext",
      `${text(z, 5)}; probability ${percent(view.p[i])}${view.cut[i] ? ", cut" : ""}; rank ${view.rank[i]}`);
  });
  for (const [k, row] of rows) if (!seen.has(k)) { row.item.remove(); rows.delete(k); }
}
