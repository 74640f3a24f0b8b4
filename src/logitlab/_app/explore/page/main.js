// Connects the controls to the settings in the address, and shows their values: first those of
// JavaScript, then those of Python.

import { drawBars } from "./bars.js";
import { refresh } from "./help.js";
import { drawPanels } from "./panels.js";
import { PRESETS } from "./presets.js";
import { hasDigits, loadDigits, preview } from "./preview.js";
import * as state from "./state.js";
import { count, html, parse, percent, text } from "./svg.js";
import { connect } from "./transport.js";

const TOLERANCE = 1e-12; // between the probabilities of JavaScript and of Python
const page = document.documentElement;
const at = (id) => document.getElementById(id);
at("unstarted").remove();
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
at("restore").addEventListener("click", () => state.reset([]));
for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => {
    const { settings, story } = PRESETS[button.dataset.preset];
    state.reset([], settings);
    showStory(story);
  });
}
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
  at("T-hint").textContent = T < 0 ? "Divides the logits and reverses their order; near 0: all probability on the smallest logit." : HINT;
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
  at("open-all").href = `./#${state.address()}`;
  const open = state.get("open").split(",");
  for (const name of state.PANELS) at(name).open = open.includes(name);
}

// The temperature that the entropy of the row gives.
function showDynamicTemperature(bars) {
  at("dynatemp-hint").textContent = state.has("dynatemp") ? `${DYNAMIC_HINT} This row: T = ${text(bars.temperature)}.` : DYNAMIC_HINT;
}

function showStory(story) {
  at("story").hidden = !story;
  at("story").textContent = story;
}

function card(title, value, note, tip) {
  return html("li", {}, html("button", { type: "button", "data-tip": tip }, html("span", {}, title), html("b", {}, value), html("span", {}, note)));
}

function showNumbers(bars) {
  const equal = text(Math.log(bars.n_kept));
  const kept = bars.n_kept < bars.classes ? `${count(bars.n_kept)} of ${count(bars.classes)} classes are kept` : `${count(bars.classes)} classes`;
  const cards = [
    ["Entropy", bars.entropy === null ? "NaN" : bars.entropy.toFixed(4), `nats, from 0 to ${equal}`,
      `How uncertain the distribution is: −Σ p ln p. It is 0 if one class has probability 1, and ln ${count(bars.n_kept)} = ${equal} if all ${count(bars.n_kept)} classes are equally probable.`],
    ["Perplexity", text(bars.perplexity), `from 1 to ${count(bars.n_kept)}`,
      `exp(entropy): as uncertain as a choice among ${text(bars.perplexity)} equally probable classes.`],
    ["Largest probability", percent(bars.max_p), kept, `The probability of the most probable class. ${kept}.`],
  ];
  if (state.get("shift") !== "0") cards.push(["Effect of the shift", text(bars.shift_change, 2), "change of p, at most",
    "The largest change of a probability when the shift is added to all logits. In exact arithmetic it is 0: exp(shift) cancels in the quotient."]);
  if (state.get("scale") !== "1") cards.push(["Effect of the scale", text(bars.scale_change, 2), "change of p, at most",
    "The largest change of a probability when the logits are multiplied by the scale."]);
  const focused = [...at("numbers").querySelectorAll("button")].indexOf(document.activeElement);
  at("numbers").replaceChildren(...cards.map((values) => card(...values)));
  if (focused >= 0) at("numbers").querySelectorAll("button")[focused]?.focus();
  at("original-key").hidden = state.get("shift") === "0" && state.get("scale") === "1";
  at("sample-key").hidden = state.get("n") === "0";
  at("p-key").hidden = at("original-key").hidden && at("sample-key").hidden;
  at("rest").hidden = !bars.omitted.classes;
  at("rest").textContent = `${count(bars.omitted.classes)} more classes are not shown; their total probability is ${percent(bars.omitted.p)}.`;
  at("ranking").textContent = !bars.same_order ? "The truncation removes a larger logit than it keeps: probabilities and logits are not in the same order."
    : bars.reversed ? "T < 0 reverses the order: the smallest logit has the largest probability. # is the rank."
    : "Probabilities and logits are in the same order. # is the rank.";
}

const EMBED_ERROR = state.requested === null || state.embed ? ""
  : `embed must be one of ${Object.keys(state.EMBEDS).join(", ")}, got '${state.requested}'`;

function showError(error) {
  at("message").hidden = !(error || EMBED_ERROR);
  at("message").firstElementChild.textContent = error || EMBED_ERROR;
  at("restore").hidden = false;
  document.body.toggleAttribute("data-error", Boolean(error));
}

function show(view) {
  if (view.progress !== undefined) {
    showError(`Reading all rows: ${Math.round(100 * view.progress)} %`);
    at("restore").hidden = true;
    document.body.removeAttribute("data-error");
    setTimeout(update, 300);
    return;
  }
  showError(view.error);
  if (view.error && latest) return;
  if (view.error) view = preview(state.initial, [...at("set").options], true);
  if (!view || view.error) return;
  latest = view;
  showControls();
  showNumbers(view.bars);
  showDynamicTemperature(view.bars);
  drawBars(view.bars, view.samples);
  drawPanels(view);
  if (view.code !== undefined) at("code").textContent = view.code;
  at("picker").hidden = state.has("z") || view.rows < 2;
  at("by").querySelector("[value=mistake]").disabled = !view.labelled;
  const total = view.n_ranked ?? view.rows;
  at("row").max = last();
  at("previous").disabled = position() <= 0;
  at("next").disabled = position() >= last();
  at("picked").textContent = `of ${count(total)}${view.n_ranked === null ? "" : `: row ${view.row}`}` +
    (view.true_class === null ? "" : `, true class ${view.true_class}`);
  refresh();
  fitFrame();
}

// A frame of the same site gets the height of what is embedded.
function fitFrame() {
  if (!state.embed) return;
  try { frameElement.style.height = `${Math.ceil(document.body.getBoundingClientRect().height)}px`; } catch { /* another site */ }
}

// Python: loading, checked against JavaScript, or not available.
let ask = null, largestDifference = 0;

function showStatus(name, status, explanation) {
  at("status").dataset.status = name;
  at("status").textContent = `Python: ${status}. ${explanation}`;
}

const removesClasses = (bars) => bars.removed.some(Boolean) || state.has("dynatemp");

// Compares probabilities; those without truncation, if classes are removed.
function check(mine, theirs) {
  if (!theirs.bars) return;
  if (!mine?.bars) {
    if (at("status").dataset.status === "loading") showStatus("ready", "ready", "logitlab computes every number.");
    return;
  }
  const name = removesClasses(theirs.bars) ? "original_p" : "p";
  const differences = mine.bars[name].map((x, i) => Math.abs(x - theirs.bars[name][i]));
  largestDifference = Math.max(largestDifference, ...differences.filter(Number.isFinite));
  const difference = largestDifference ? text(largestDifference, 2) : "0";
  const agree = largestDifference <= TOLERANCE;
  showStatus(agree ? "checked" : "differs", agree ? "checked" : "JavaScript differs",
    `The probabilities of JavaScript differ by at most ${difference} from those of logitlab in Python, which are shown; the tolerance is ${text(TOLERANCE, 1)}.`);
}

const setBusy = (busy) => at("picture").setAttribute("aria-busy", busy);
let running = false, again = false;

// Shows the values of JavaScript at once, and those of Python when they are there. One request at a
// time; during a request only the latest settings wait.
async function update() {
  setBusy(true);
  showControls();
  const alone = page.dataset.python === "none";
  if (page.dataset.python !== "server" && state.get("set") === "digits" && !hasDigits()) await loadDigits().catch(() => {}); // then they need Python
  const first = preview(state.get, [...at("set").options], alone);
  if (first && (ask === null || !(first.error || state.has("n")))) show(first);
  if (running) { again = true; return; }
  if (ask === null) { setBusy(!alone); return; }
  running = true;
  const answer = await ask(state.address());
  running = false;
  if (again) { again = false; update(); return; }
  check(first, answer);
  show(answer);
  setBusy(false);
}

if (state.embed) {
  page.dataset.embed = state.embed;
  for (const block of document.querySelectorAll("[data-block]")) {
    const kept = state.EMBEDS[state.embed];
    block.classList.toggle("outside", ![...block.querySelectorAll("[data-block]"), block].some((part) => kept.includes(part.dataset.block)));
  }
  for (const group of document.querySelectorAll("#settings details")) group.open = true;
  at("open-all").hidden = false;
  new ResizeObserver(fitFrame).observe(document.body);
} else if (matchMedia("(max-width: 44rem)").matches) {
  for (const group of document.querySelectorAll("#settings details")) group.open = false;
} else if (MORE.some(state.has)) at("more").open = true;
state.listen(() => { showStory(""); update(); });
showStatus("loading", "loading", "Until it is ready, the numbers are those of JavaScript.");
update();
// Python starts after the first picture.
new Promise((painted) => requestAnimationFrame(() => setTimeout(painted))).then(() => connect(page.dataset)).then((connected) => { ask = connected; }, (error) => {
  page.dataset.python = "none";
  showStatus("unavailable", "not available",
    `Probabilities, samples and the Jacobian are computed in JavaScript; more ways of truncation, the other panels and the long-tail example need Python (${error.message}).`);
}).then(update);
