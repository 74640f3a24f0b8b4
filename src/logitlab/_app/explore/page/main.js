// Connects the controls to the settings in the address, and shows what the server answers.

import { drawBars } from "./bars.js";
import { drawPanels } from "./panels.js";
import * as state from "./state.js";
import { count, html, parse, percent, text } from "./svg.js";

const at = (id) => document.getElementById(id);
const HINT = at("T-hint").textContent; // for T >= 0
const DYNAMIC_HINT = at("dynatemp-hint").textContent;
let latest = null;

function share() {
  return { value: (position) => String(position), position: (value) => value };
}

// 0, and 1e-4 to 1 on a logarithmic scale.
function smallShare() {
  return {
    value: (position) => position <= 0 ? "0" : rounded(10 ** (position / 25 - 4)),
    position: (value) => value <= 0 ? 0 : Math.max(1, 25 * (Math.log10(value) + 4)),
  };
}

// Conversions between the position of a slider and its value. An empty value is the default.
const SLIDERS = {
  T: {
    value: (position) => position <= 0 ? "0" : position >= 1000 ? "inf" : rounded(10 ** (-2 + (4 * (position - 1)) / 998)),
    position: (value) => value <= 0 ? 0 : value === Infinity ? 1000 : 1 + ((Math.log10(value) + 2) / 4) * 998,
  },
  shift: { value: (position) => String(position), position: (value) => value },
  scale: { value: (position) => rounded(10 ** (position / 100)), position: (value) => 100 * Math.log10(value) },
  k: {
    value: (position) => position >= 100 ? "" : String(Math.max(1, Math.round(classes() ** (position / 100)))),
    position: (value) => value === "" ? 100 : classes() > 1 ? (100 * Math.log(value)) / Math.log(classes()) : 100,
  },
  p: share(),
  minp: share(),
  typical: share(),
  epsilon: smallShare(),
  eta: smallShare(),
  nsigma: { value: (position) => position >= 5 ? "inf" : String(position), position: (value) => Math.min(value, 5) },
  topa: share(),
  xtc: { value: (position) => position > 0.5 ? "" : String(position), position: (value) => value === "" ? 0.51 : value },
  dynatemp: share(),
  exponent: share(),
};
const STAGES = ["k", "p", "minp", "typical", "epsilon", "eta", "nsigma", "topa", "xtc", "dynatemp"]; // off by default
const MORE = ["typical", "epsilon", "eta", "nsigma", "topa", "xtc", "dynatemp"];
const rounded = (value) => String(Number(value.toPrecision(3)));
const classes = () => latest?.bars?.classes ?? 2;

const set = (name, value) => state.set({ [name]: value === "" ? null : value });

// T = 0 has no sign, so -0.01 stands for it.
const withSign = (T) => at("negative").checked ? `-${parse(T) === 0 ? "0.01" : T}` : T;

for (const [name, slider] of Object.entries(SLIDERS)) {
  at(name).addEventListener("input", () => {
    const value = slider.value(Number(at(name).value));
    set(name, name === "T" ? withSign(value) : value);
  });
  at(`${name}-text`).addEventListener("change", (event) => {
    const value = parse(event.target.value);
    set(name, Number.isNaN(value) ? "" : String(value).replace("Infinity", "inf"));
  });
}

at("negative").addEventListener("change", () => {
  state.set({ T: withSign(state.get("T").replace("-", "")) });
});
at("order").addEventListener("change", () => state.set({ order: at("order").value }));
at("seed").addEventListener("change", () => state.set({ seed: Math.max(0, Math.trunc(Number(at("seed").value))) }));
for (const button of document.querySelectorAll("[data-samples]")) {
  button.addEventListener("click", () => {
    const repeated = state.get("n") === button.dataset.samples && button.dataset.samples !== "0";
    state.set({ n: button.dataset.samples, ...(repeated && { seed: Number(state.get("seed")) + 1 }) });
  });
}
at("reset").addEventListener("click", () => state.reset(["set", "z", "row", "by", "open"]));
at("undo").addEventListener("click", () => state.set({ edit: "" }));

// The dataset and the row.
const firstRow = { row: null, by: null, edit: null, label: null, z: null };
at("set").addEventListener("change", () => {
  if (at("set").value === "typed") {
    state.set({ ...firstRow, z: latest?.bars?.classes <= 40 ? latest.bars.z.join(", ") : "2, 1, 3, 5, 4" });
    at("z").focus();
  } else state.set({ ...firstRow, set: at("set").value === at("set").options[0].value ? null : at("set").value });
});
at("z").addEventListener("change", () => state.set({ ...firstRow, z: at("z").value || "0" }));
at("by").addEventListener("change", () => state.set({ by: at("by").value, row: null, edit: null, label: null }));
const last = () => (latest ? latest.n_ranked ?? latest.rows : Infinity) - 1;
const position = () => Math.min(Number(state.get("row")), last());
const goTo = (row) => {
  at("row").value = Math.min(Math.max(0, row), last());
  state.set({ row: at("row").value, edit: null, label: null });
};
at("row").addEventListener("change", () => goTo(Math.trunc(Number(at("row").value))));
at("previous").addEventListener("click", () => goTo(position() - 1));
at("next").addEventListener("click", () => goTo(position() + 1));

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("code").textContent);
    at("copied").textContent = "copied";
  } catch {
    getSelection().selectAllChildren(at("code"));
    at("copied").textContent = "selected: press Ctrl-C to copy";
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
  at("T-hint").textContent = T < 0 ? "Near 0: all probability on the smallest logit." : HINT;
  for (const [name, slider] of Object.entries(SLIDERS)) {
    const setting = state.get(name);
    const value = setting === "" ? "" : parse(setting);
    at(name).value = slider.position(name === "T" ? Math.abs(value) : value);
    const shown = STAGES.includes(name) && !state.has(name) ? "off" : text(value, 6);
    if (document.activeElement !== at(`${name}-text`)) at(`${name}-text`).value = shown;
    at(name).setAttribute("aria-valuetext", shown);
  }
  const used = MORE.filter(state.has).length;
  at("used").textContent = used ? `(${used} on)` : "";
  at("order").value = state.get("order");
  at("stages").textContent = at("order").selectedOptions[0]?.dataset.stages ?? "";
  at("seed").value = state.get("seed");
  for (const button of document.querySelectorAll("[data-samples]")) {
    button.setAttribute("aria-pressed", button.dataset.samples === state.get("n"));
  }
  const typed = state.has("z");
  at("set").value = typed ? "typed" : state.get("set") || at("set").options[0].value;
  at("typed").hidden = !typed;
  if (document.activeElement !== at("z")) at("z").value = state.get("z");
  at("undo").hidden = !state.get("edit");
  at("by").value = state.get("by");
  if (document.activeElement !== at("row")) at("row").value = position();
  const open = state.get("open").split(",");
  for (const name of state.PANELS) at(name).open = open.includes(name);
}

// The temperature that the entropy of the row gives.
function showDynamicTemperature(bars) {
  at("dynatemp-hint").textContent = state.has("dynatemp") ? `${DYNAMIC_HINT} This row: T = ${text(bars.temperature)}.` : DYNAMIC_HINT;
}

function tile(title, value, note) {
  return html("div", {}, html("dt", {}, title), html("dd", {}, value, html("small", {}, note)));
}

function showNumbers(bars) {
  at("numbers").replaceChildren(
    tile("entropy", bars.entropy === null ? "NaN" : bars.entropy.toFixed(4), `nats, ${percent(bars.relative_entropy)} of the maximum`),
    tile("perplexity", text(bars.perplexity), "effective number of classes"),
    tile("largest p", percent(bars.max_p), bars.n_kept < bars.classes
      ? `${count(bars.n_kept)} of ${count(bars.classes)} classes kept` : `${count(bars.classes)} classes`),
    tile("effect of shift", text(bars.shift_change, 2), "largest change of p"),
    tile("effect of scale", text(bars.scale_change, 2), "largest change of p"));
  at("original-key").hidden = state.get("shift") === "0" && state.get("scale") === "1";
  at("sample-key").hidden = state.get("n") === "0";
  at("rest").hidden = !bars.omitted.classes;
  at("rest").textContent = `${count(bars.omitted.classes)} more classes, not shown: total probability ${percent(bars.omitted.p)}.`;
  at("ranking").textContent = !bars.same_order ? "Probabilities and logits are not in the same order."
    : bars.reversed ? "T < 0 reverses the order: the smallest logit has rank #1 and the largest probability."
    : "Probabilities and logits are in the same order; # is the rank.";
}

function show(view) {
  if (view.progress !== undefined) {
    at("message").hidden = false;
    at("message").textContent = `Reading all rows: ${Math.round(100 * view.progress)} %`;
    setTimeout(() => state.request(show), 300);
    return;
  }
  at("message").hidden = !view.error;
  at("message").textContent = view.error ?? "";
  document.body.toggleAttribute("data-error", Boolean(view.error));
  if (view.error) return;
  latest = view;
  showControls();
  showNumbers(view.bars);
  showDynamicTemperature(view.bars);
  drawBars(view.bars, view.samples);
  drawPanels(view);
  at("code").textContent = view.code;
  at("picker").hidden = state.has("z") || view.rows < 2;
  at("by").querySelector("[value=mistake]").disabled = !view.labelled;
  const total = view.n_ranked ?? view.rows;
  at("row").max = last();
  at("previous").disabled = position() <= 0;
  at("next").disabled = position() >= last();
  at("picked").textContent = `of ${count(total)}${view.n_ranked === null ? "" : `: row ${view.row}`}` +
    (view.true_class === null ? "" : `, true class ${view.true_class}`);
}

if (matchMedia("(max-width: 44rem)").matches) {
  for (const group of document.querySelectorAll("#settings details")) group.open = false;
} else if (MORE.some(state.has)) at("more").open = true;
state.listen(() => { showControls(); state.request(show); });
showControls();
state.request(show);
