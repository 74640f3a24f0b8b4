// The settings are the text after the # in the address; defaults are not included.

export const PANELS = ["simplex", "reliability", "jacobian", "precision", "gradient"];
const DEFAULTS = {
  T: "1", shift: "0", scale: "1", p: "1", minp: "0", order: "transformers", n: "0", seed: "0",
  typical: "1", epsilon: "0", eta: "0", nsigma: "inf", topa: "0", dynatemp: "0", exponent: "1",
  row: "0", by: "number", edit: "", open: PANELS.join(","),
};

let state = new URLSearchParams(location.hash.slice(1));
let onChange = () => {};

export const get = (name) => state.get(name) ?? DEFAULTS[name] ?? "";
export const has = (name) => state.has(name);
export const address = () => {
  const settings = new URLSearchParams(state);
  if (!settings.has("open")) settings.set("open", DEFAULTS.open);
  return settings.toString();
};

export function set(values) {
  for (const [name, value] of Object.entries(values)) {
    if (value === null || String(value) === (DEFAULTS[name] ?? null)) state.delete(name);
    else state.set(name, value);
  }
  history.replaceState(null, "", `#${state.toString().replaceAll("%2C", ",").replaceAll("%3A", ":")}`);
  onChange();
}

export function reset(kept) {
  for (const name of [...state.keys()]) if (!kept.includes(name)) state.delete(name);
  set({});
}

export function listen(callback) {
  onChange = callback;
  addEventListener("hashchange", () => {
    state = new URLSearchParams(location.hash.slice(1));
    callback();
  });
}

// One request at a time; during a request only the latest settings wait.
const setBusy = (busy) => document.getElementById("picture").setAttribute("aria-busy", busy);
let running = false, waiting = null;

export async function request(show) {
  setBusy(true);
  if (running) { waiting = show; return; }
  running = true;
  try {
    const answer = await fetch("view", { method: "POST", body: address() });
    show(await answer.json());
  } catch (error) {
    show({ error: `The server does not answer: ${error.message}. Is logitlab explore still running?` });
  }
  running = false;
  if (waiting) { const next = waiting; waiting = null; request(next); } else setBusy(false);
}
