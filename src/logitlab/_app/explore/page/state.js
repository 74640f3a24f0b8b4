// The settings are the text after the # in the address; defaults are not included.
// ?embed=NAME shows only some blocks of the page, for a frame in another page.

export const PANELS = ["simplex", "reliability", "jacobian", "precision", "gradient"];
export const EMBEDS = {
  temperature: ["temperature", "bars", "numbers"],
  scaling: ["scales", "bars"],
  sampling: ["temperature", "truncation", "sampling", "bars", "samples"],
  jacobian: ["temperature", "bars", "jacobian"],
  calibration: ["temperature", "reliability"],
};
export const requested = new URLSearchParams(location.search).get("embed");
export const embed = Object.hasOwn(EMBEDS, requested ?? "") ? requested : null;
const DEFAULTS = {
  T: "1", shift: "0", scale: "1", p: "1", minp: "0", order: "transformers", n: "0", seed: "0",
  typical: "1", epsilon: "0", eta: "0", nsigma: "inf", topa: "0", dynatemp: "0", exponent: "1",
  row: "0", by: "number", edit: "", set: embed === "calibration" ? "digits" : "",
  open: PANELS.filter((name) => !embed || EMBEDS[embed].includes(name)).join(",") || "none",
};

let state = new URLSearchParams(location.hash.slice(1));
let onChange = () => {};

export const get = (name) => state.get(name) ?? DEFAULTS[name] ?? "";
export const has = (name) => state.has(name);
export const initial = (name) => DEFAULTS[name] ?? "";
const readable = (settings) => settings.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");

// The settings as the text that Python reads; a set of "" is the first one.
export function address() {
  const settings = new URLSearchParams(state);
  for (const name of ["open", "set"]) if (!settings.has(name) && DEFAULTS[name]) settings.set(name, DEFAULTS[name]);
  return readable(settings);
}

export function set(values) {
  for (const [name, value] of Object.entries(values)) {
    if (value === null || String(value) === (DEFAULTS[name] ?? null)) state.delete(name);
    else state.set(name, value);
  }
  history.replaceState(null, "", `#${readable(state)}`);
  onChange();
}

export function reset(kept, values = {}) {
  for (const name of [...state.keys()]) if (!kept.includes(name)) state.delete(name);
  set(values);
}

export function listen(callback) {
  onChange = callback;
  addEventListener("hashchange", () => {
    state = new URLSearchParams(location.hash.slice(1));
    callback();
  });
}
