// One row: draggable bars of the logits on the left, bars of the probabilities on the right.

import * as state from "./state.js";
import { count, html, number, parse, percent, text } from "./svg.js";

const list = document.getElementById("bars");
const rows = new Map(); // class -> its elements
let axis = { low: -1, high: 1, digits: 2 }; // of the logits
let dragging = null;

function edits() {
  return new Map(state.get("edit").split(",").filter(Boolean).map((edit) => edit.split(":")));
}

// Converts a logit shown, which includes shift and scale, to a logit of the row, and stores it.
function setLogit(k, shown) {
  const logit = Number.isFinite(shown) ? (shown - Number(state.get("shift"))) / Number(state.get("scale")) : shown;
  const value = Number.isFinite(logit) ? String(Number(logit.toPrecision(12))) : logit > 0 ? "inf" : "-inf";
  const all = edits().set(String(k), value);
  state.set({ edit: [...all].map((pair) => pair.join(":")).join(",") });
}

const roundToStep = (value) => Number(value.toFixed(axis.digits));

function createRow(k) {
  const name = html("span", { class: "name" });
  const bar = html("i"), knob = html("b");
  const track = html("div", { class: "track", role: "slider", tabindex: "0" }, bar, knob);
  const field = html("input", { type: "text", inputmode: "text", autocomplete: "off" });
  const fill = html("i"), original = html("u"), margin = html("s"), dot = html("em");
  const probability = html("div", { class: "probability", "aria-hidden": "true" }, fill, original, margin, dot);
  const value = html("button", { type: "button", class: "value" });
  const item = html("li", { "data-class": k }, name, field, track, probability, value);
  const dragTo = (event) => {
    const box = track.getBoundingClientRect();
    const fraction = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    setLogit(k, roundToStep(axis.low + fraction * (axis.high - axis.low)));
  };
  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    track.focus();
    track.setPointerCapture(event.pointerId);
    dragging = k;
    dragTo(event);
  });
  track.addEventListener("pointermove", (event) => { if (dragging === k) dragTo(event); });
  for (const end of ["pointerup", "pointercancel"]) {
    track.addEventListener(end, () => { dragging = null; state.set({}); });
  }
  track.addEventListener("keydown", (event) => {
    const step = 10 ** -axis.digits;
    const logit = rows.get(k).logit;
    const from = Number.isFinite(logit) ? logit : axis.low;
    const to = { ArrowRight: from + step, ArrowUp: from + step, ArrowLeft: from - step,
      ArrowDown: from - step, PageUp: from + 10 * step, PageDown: from - 10 * step,
      Home: axis.low, End: axis.high, Delete: -Infinity }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    setLogit(k, Number.isFinite(to) ? roundToStep(to) : to);
  });
  field.addEventListener("change", () => {
    const logit = parse(field.value);
    if (Number.isNaN(logit)) state.set({}); else setLogit(k, logit);
  });
  return { item, name, track, bar, knob, field, fill, original, margin, dot, value, logit: 0 };
}

// The axis of the logits: all of them with a margin, and 0 if it is near.
function setAxis(bars) {
  const all = [...bars.z, ...bars.scaled].map(number).filter(Number.isFinite);
  if (!all.length) all.push(-1, 1);
  let low = Math.min(...all), high = Math.max(...all);
  const span = high - low || Math.max(1, Math.abs(high) / 4);
  if (low > 0 && low <= 2 * span) low = 0;
  if (high < 0 && high >= -2 * span) high = 0;
  const margin = 0.15 * (high - low || span);
  axis = { low: low === 0 ? low : low - margin, high: high === 0 ? high : high + margin };
  axis.digits = Math.max(0, Math.min(12, 2 - Math.floor(Math.log10(axis.high - axis.low))));
}

// The end of the axis of the probabilities: a round number >= all of them.
function axisEnd(bars) {
  const largest = Math.max(...bars.p.map(number).filter(Number.isFinite), ...bars.original_p.map(number), 0);
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((limit) => largest <= limit) ?? 1;
}

const cssPercent = (x) => `${(100 * Math.min(1, Math.max(0, x))).toFixed(3)}%`;

export function drawBars(bars, samples) {
  if (dragging === null) setAxis(bars);
  const end = axisEnd(bars);
  document.getElementById("axis").textContent = `probability, 0 to ${100 * end} %`;
  const position = (z) => (number(z) - axis.low) / (axis.high - axis.low);
  const zero = axis.low > 0 ? 0 : axis.high < 0 ? 1 : position(0);
  const shown = new Set();
  bars.indices.forEach((k, i) => {
    if (!rows.has(k)) rows.set(k, createRow(k));
    shown.add(k);
    const row = rows.get(k), z = number(bars.scaled[i]);
    row.logit = z;
    if (list.children[i] !== row.item) list.insertBefore(row.item, list.children[i] ?? null);
    row.name.textContent = bars.names[i];
    row.name.title = bars.names[i];
    const at = z === -Infinity ? 0 : z === Infinity ? 1 : Math.min(1, Math.max(0, position(z)));
    row.bar.style.left = cssPercent(Math.min(at, zero));
    row.bar.style.width = cssPercent(Math.abs(at - zero));
    row.knob.style.left = cssPercent(at);
    row.item.classList.toggle("removed", bars.removed[i]);
    row.item.classList.toggle("excluded", z === -Infinity);
    if (document.activeElement !== row.field || dragging !== null) row.field.value = text(z, Math.abs(z) < 0.01 || Math.abs(z) >= 1e6 ? 3 : 4);
    row.field.setAttribute("aria-label", `logit of class ${bars.names[i]}`);
    row.fill.style.width = cssPercent(number(bars.p[i]) / end || 0);
    row.original.hidden = state.get("shift") === "0" && state.get("scale") === "1";
    row.original.style.left = cssPercent(number(bars.original_p[i]) / end || 0);
    const sampled = samples && !samples.unavailable;
    row.dot.hidden = row.margin.hidden = !sampled;
    if (sampled) {
      const f = samples.frequency[i], m = samples.margin[i];
      row.dot.style.left = cssPercent(f / end);
      row.margin.style.left = cssPercent((f - m) / end);
      row.margin.style.width = cssPercent(Math.min(1, (f + m) / end) - Math.max(0, (f - m) / end));
    }
    const name = bars.names[i], probability = bars.removed[i] ? "removed" : percent(bars.p[i]);
    row.value.replaceChildren(html("span", { class: "hidden" }, `class ${name}: `), html("span", {}, probability), html("small", {}, `#${bars.rank[i]}`));
    row.value.dataset.tip = bars.removed[i]
      ? `Class ${name} is removed by the truncation: its probability is 0.`
      : `Class ${name}: probability ${text(bars.p[i], 6)}, which is exp(z/T) divided by the sum of exp(z/T) over the ${count(bars.n_kept)} ` +
        `${bars.n_kept < bars.classes ? "classes that are kept" : "classes"}, with z = ${text(z)} and T = ${text(bars.temperature)}.` +
        ` #${bars.rank[i]}: its rank by logit${bars.reversed ? ", smallest first, as T < 0" : ""}.`;
    const track = row.track;
    track.setAttribute("aria-label", `logit of class ${bars.names[i]}`);
    track.setAttribute("aria-valuemin", axis.low.toFixed(axis.digits));
    track.setAttribute("aria-valuemax", axis.high.toFixed(axis.digits));
    track.setAttribute("aria-valuenow", Number.isFinite(z) ? z : at ? axis.high : axis.low);
    track.setAttribute("aria-valuetext",
      `${text(z, 5)}; probability ${percent(bars.p[i])}${bars.removed[i] ? ", removed by truncation" : ""}; rank ${bars.rank[i]}`);
  });
  for (const [k, row] of rows) if (!shown.has(k)) { row.item.remove(); rows.delete(k); }
}
