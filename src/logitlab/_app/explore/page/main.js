// Controls and the address on one side, what the server answers on the other.

import { drawBars } from "./bars.js";
import { drawPanels } from "./panels.js";
import * as state from "./state.js";
import { count, html, percent, text } from "./svg.js";

const at = (id) => document.getElementById(id);
const HINT = at("T-hint").textContent; // at T of 0 and above
let latest = null;

// How the place of a slider and a value belong together. An empty value is the default.
const SLIDERS = {
  T: {
    value: (place) => place <= 0 ? "0" : place >= 1000 ? "inf" : tidy(10 ** (-2 + (4 * (place - 1)) / 998)),
    place: (value) => value <= 0 ? 0 : value === Infinity ? 1000 : 1 + ((Math.log10(value) + 2) / 4) * 998,
  },
  shift: { value: (place) => String(place), place: (value) => value },
  scale: { value: (place) => tidy(10 ** (place / 100)), place: (value) => 100 * Math.log10(value) },
  k: {
    value: (place) => place >= 100 ? "" : String(Math.max(1, Math.round(classes() ** (place / 100)))),
    place: (value) => value === "" ? 100 : classes() > 1 ? (100 * Math.log(value)) / Math.log(classes()) : 100,
  },
  p: { value: (place) => String(place), place: (value) => value },
  minp: { value: (place) => String(place), place: (value) => value },
};
const tidy = (value) => String(Number(value.toPrecision(3)));
const classes = () => latest?.bars?.classes ?? 2;
const parse = (written) => {
  const given = written.trim().replace("−", "-").replace("∞", "inf").toLowerCase();
  return given === "inf" ? Infinity : given === "-inf" ? -Infinity : given === "" ? NaN : Number(given);
};

const set = (name, value) => state.set({ [name]: value === "" ? null : value });

// 0 has no sign: next to it the smallest logit takes all.
const signed = (T) => at("negative").checked ? `-${parse(T) === 0 ? "0.01" : T}` : T;

for (const [name, slider] of Object.entries(SLIDERS)) {
  at(name).addEventListener("input", () => {
    const value = slider.value(Number(at(name).value));
    set(name, name === "T" ? signed(value) : value);
  });
  at(`${name}-text`).addEventListener("change", (event) => {
    const value = parse(event.target.value);
    set(name, Number.isNaN(value) ? "" : String(value).replace("Infinity", "inf"));
  });
}

at("negative").addEventListener("change", () => {
  state.set({ T: signed(state.get("T").replace("-", "")) });
});
at("order").addEventListener("change", () => state.set({ order: at("order").value }));
at("seed").addEventListener("change", () => state.set({ seed: Math.max(0, Math.trunc(Number(at("seed").value))) }));
for (const button of document.querySelectorAll("[data-draw]")) {
  button.addEventListener("click", () => {
    const again = state.get("n") === button.dataset.draw && button.dataset.draw !== "0";
    state.set({ n: button.dataset.draw, ...(again && { seed: Number(state.get("seed")) + 1 }) });
  });
}
at("reset").addEventListener("click", () => state.reset(["set", "z", "row", "by", "open"]));
at("undo").addEventListener("click", () => state.set({ edit: "" }));

// Which row.
const fresh = { row: null, by: null, edit: null, label: null, z: null };
at("set").addEventListener("change", () => {
  if (at("set").value === "typed") {
    state.set({ ...fresh, z: latest?.bars?.classes <= 40 ? latest.bars.z.join(", ") : "2, 1, 3, 5, 4" });
    at("z").focus();
  } else state.set({ ...fresh, set: at("set").value === at("set").options[0].value ? null : at("set").value });
});
at("z").addEventListener("change", () => state.set({ ...fresh, z: at("z").value || "0" }));
at("by").addEventListener("change", () => state.set({ by: at("by").value, row: null, edit: null, label: null }));
const last = () => (latest ? latest.ranked ?? latest.rows : Infinity) - 1;
const place = () => Math.min(Number(state.get("row")), last());
const go = (row) => {
  at("row").value = Math.min(Math.max(0, row), last());
  state.set({ row: at("row").value, edit: null, label: null });
};
at("row").addEventListener("change", () => go(Math.trunc(Number(at("row").value))));
at("previous").addEventListener("click", () => go(place() - 1));
at("next").addEventListener("click", () => go(place() + 1));

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("code").textContent);
    at("copied").textContent = "copied";
  } catch {
    getSelection().selectAllChildren(at("code"));
    at("copied").textContent = "selected: copy it with the keyboard";
  }
  setTimeout(() => { at("copied").textContent = ""; }, 2500);
});
at("skip").addEventListener("click", (event) => { event.preventDefault(); at("bars").focus(); });

for (const name of state.PANELS) {
  at(name).addEventListener("toggle", () => {
    const open = new Set(state.get("open").split(",").filter((panel) => panel && panel !== "none"));
    if (at(name).open === open.has(name)) return;
    if (at(name).open) open.add(name); else open.delete(name);
    state.set({ open: state.PANELS.filter((panel) => open.has(panel)).join(",") || "none" });
  });
}

function showControls() {
  const T = parse(state.get("T"));
  at("negative").checked = T < 0;
  at("T-hint").textContent = T < 0 ? "Near 0 the smallest takes all." : HINT;
  for (const [name, slider] of Object.entries(SLIDERS)) {
    const written = state.get(name);
    const value = written === "" ? "" : parse(written);
    at(name).value = slider.place(name === "T" ? Math.abs(value) : value);
    const shown = written === "" ? "off" : text(value, 6);
    if (document.activeElement !== at(`${name}-text`)) at(`${name}-text`).value = shown;
    at(name).setAttribute("aria-valuetext", shown);
  }
  at("order").value = state.get("order");
  at("stages").textContent = at("order").selectedOptions[0]?.dataset.stages ?? "";
  at("seed").value = state.get("seed");
  for (const button of document.querySelectorAll("[data-draw]")) {
    button.setAttribute("aria-pressed", button.dataset.draw === state.get("n"));
  }
  const typed = state.has("z");
  at("set").value = typed ? "typed" : state.get("set") || at("set").options[0].value;
  at("typed").hidden = !typed;
  if (document.activeElement !== at("z")) at("z").value = state.get("z");
  at("undo").hidden = !state.get("edit");
  at("by").value = state.get("by");
  if (document.activeElement !== at("row")) at("row").value = place();
  const open = state.get("open").split(",");
  for (const name of state.PANELS) at(name).open = open.includes(name);
  document.body.classList.toggle("still", Number.isNaN(T));
}

function tile(title, value, note) {
  return html("div", {}, html("dt", {}, title), html("dd", {}, value, html("small", {}, note)));
}

function showNumbers(bars) {
  at("numbers").replaceChildren(
    tile("entropy", bars.entropy === null ? "NaN" : bars.entropy.toFixed(4), `nats, ${percent(bars.share)} of its most`),
    tile("perplexity", text(bars.perplexity), "classes, in effect"),
    tile("largest p", percent(bars.top), bars.kept < bars.classes
      ? `${count(bars.kept)} of ${count(bars.classes)} classes left` : `of ${count(bars.classes)} classes`),
    tile("shift", text(bars.shift_moves, 2), "is the most it moves p"),
    tile("scale", text(bars.scale_moves, 2), "is the most it moves p"));
  at("ghosts").hidden = state.get("shift") === "0" && state.get("scale") === "1";
  at("dots").hidden = state.get("n") === "0";
  at("rest").hidden = !bars.rest.classes;
  at("rest").textContent = `The other ${count(bars.rest.classes)} classes together: ${percent(bars.rest.p)}.`;
  at("laws").textContent = !bars.ordered ? "The order is broken."
    : bars.reversed ? "The order is reversed: the smaller a logit, the larger its probability. Rank #1 is the smallest logit."
    : "The order is kept: the rank (#) of a logit is that of its probability.";
}

function show(view) {
  if (view.waiting !== undefined) {
    at("message").hidden = false;
    at("message").textContent = `Reading all rows: ${Math.round(100 * view.waiting)} %`;
    setTimeout(() => state.ask(show), 300);
    return;
  }
  at("message").hidden = !view.error;
  at("message").textContent = view.error ?? "";
  document.body.toggleAttribute("data-error", Boolean(view.error));
  if (view.error) return;
  latest = view;
  showControls();
  showNumbers(view.bars);
  drawBars(view.bars, view.draws);
  drawPanels(view);
  at("code").textContent = view.program;
  at("picker").hidden = state.has("z") || view.rows < 2;
  at("by").querySelector("[value=mistake]").disabled = !view.labelled;
  const of = view.ranked ?? view.rows;
  at("row").max = last();
  at("previous").disabled = place() <= 0;
  at("next").disabled = place() >= last();
  at("picked").textContent = `of ${count(of)}${view.ranked === null ? "" : `: row ${view.row}`}` +
    (view.true === null ? "" : `, true class ${view.true_name}`);
}

if (matchMedia("(max-width: 44rem)").matches) {
  for (const group of document.querySelectorAll("#settings details")) group.open = false;
}
state.listen(() => { showControls(); state.ask(show); });
showControls();
state.ask(show);
