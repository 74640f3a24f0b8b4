// The view computed in JavaScript: at once, and without Python. It has the shape of Python's values
// for rows of few classes, with temperature, shift, scale, top-k, top-p and min-p.

import { softmax } from "./softmax.js";
import { initial } from "./state.js";
import { parse } from "./svg.js";

const NEED_PYTHON = ["typical", "epsilon", "eta", "nsigma", "topa", "xtc", "dynatemp", "order", "by"];
let digits = null;

// The logits and labels of an exported page, and their calibration at several temperatures.
export async function loadDigits() {
  digits ??= await (await fetch("digits.json")).json();
}
export const hasDigits = () => digits !== null;

class Invalid extends Error {}

function numberOf(get, name, { low = -Infinity, above = -Infinity, high = Infinity, integer = false } = {}) {
  const value = parse(get(name));
  if (Number.isNaN(value)) throw new Invalid(`${name} must be a number, got '${get(name)}'`);
  if (integer && !Number.isInteger(value)) throw new Invalid(`${name} must be an integer, got ${get(name)}`);
  if (value < low) throw new Invalid(`${name} must be >= ${low}, got ${get(name)}`);
  if (value <= above) throw new Invalid(`${name} must be > ${above}, got ${get(name)}`);
  if (value > high) throw new Invalid(`${name} must be <= ${high}, got ${get(name)}`);
  return value;
}

function finite(get, name, rule) {
  const value = numberOf(get, name, rule);
  if (!Number.isFinite(value)) throw new Invalid(`${name} must be finite, got ${get(name)}`);
  return value;
}

const isTyped = (get) => get("z") !== "";
const isDigits = (get) => !isTyped(get) && get("set") === "digits";

function logits(get, options) {
  let z;
  if (isTyped(get)) {
    const typed = get("z").replaceAll(",", " ").trim().split(/\s+/);
    z = typed.map((value) => numberOf(() => value, "z"));
  } else if (isDigits(get) && digits) {
    z = [...digits.z[finite(get, "row", { low: 0, high: digits.z.length - 1, integer: true })]];
  } else {
    const names = options.map((option) => option.value).filter((name) => name !== "typed");
    const name = get("set") || names[0];
    if (!names.includes(name)) throw new Invalid(`set must be one of ${names.join(", ")}, got '${name}'`);
    const given = options.find((option) => option.value === name).dataset.z;
    if (given === undefined) return null;
    z = given.split(",").map(Number);
  }
  for (const edit of get("edit").split(",").filter(Boolean)) {
    const [k, value] = edit.split(":");
    const index = finite(() => k, "edit", { low: 0, high: z.length - 1, integer: true });
    z[index] = numberOf(() => value ?? "", "edit");
  }
  return z.length <= 40 ? z : null;
}

const order = (z, T) => (T >= 0 ? z : z.map((x) => (x === -Infinity ? x : -x)));
const sum = (values) => values.reduce((a, b) => a + b, 0);
const largestChange = (p, q) => Math.max(0, ...p.map((x, i) => Math.abs(x - q[i]) || 0));

// Which classes top-k, top-p and min-p keep, in this order, after the temperature.
function keptClasses(get, scaled, T) {
  const ranked = order(scaled, T), descending = [...ranked].sort((a, b) => b - a);
  let kept = scaled.map(() => true);
  const restrict = (keep) => { kept = kept.map((was, i) => was && keep(i)); };
  const p = () => softmax(scaled.map((x, i) => (kept[i] ? x : -Infinity)), T);
  if (get("k") !== "") {
    const k = finite(get, "k", { low: 1, integer: true });
    restrict((i) => ranked[i] >= descending[Math.min(k, descending.length) - 1]);
  }
  const topP = numberOf(get, "p", { above: 0, high: 1 }), minP = numberOf(get, "minp", { low: 0, high: 1 });
  if (topP < 1) {
    const now = p(), sorted = now.map((_, i) => i).sort((i, j) => now[j] - now[i]);
    let total = 0;
    const chosen = new Set();
    for (const i of sorted) if (total < topP) { chosen.add(i); total += now[i]; }
    restrict((i) => chosen.has(i));
  }
  if (minP > 0) {
    const now = p(), limit = minP * Math.max(...now);
    restrict((i) => now[i] >= limit);
  }
  return kept;
}

function jacobian(z, p, T) {
  const indices = z.map((_, i) => i).filter((i) => z[i] > -Infinity).slice(0, 12);
  if (T === 0 || !Number.isFinite(T)) {
    return { unavailable: T === 0 ? "At T = 0 softmax has no derivative." : "At an infinite temperature every entry of the Jacobian is 0." };
  }
  const top = p.indexOf(Math.max(...p));
  const scales = Array.from({ length: 61 }, (_, i) => 2 ** (-6 + i / 5));
  return {
    indices, names: indices.map(String), sums: indices.map(() => 0), bound: 0.25 / Math.abs(T), scales,
    entries: indices.map((i) => indices.map((j) => (i === j ? p[i] * (1 - p[i]) : -p[i] * p[j]) / T)),
    max_entries: scales.map((c) => {
      const q = softmax(z, T / c);
      return q[top] * (1 - q[top]);
    }),
  };
}

// mulberry32, https://gist.github.com/tommyettinger/46a874533244883189143505d203312c
function generator(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function sample(get, p) {
  const n = finite(get, "n", { low: 0, high: 100000, integer: true });
  const random = generator(finite(get, "seed", { low: 0, integer: true }));
  if (!n) return undefined;
  if (p.some(Number.isNaN)) return { unavailable: "The row has no distribution." };
  const samples = Array.from({ length: n }, () => {
    let u = random(), k = 0;
    while (k < p.length - 1 && (u -= p[k]) >= 0) k += 1;
    while (p[k] === 0) k -= 1; // rounding errors of the sum
    return k;
  });
  const counts = p.map((_, k) => samples.filter((sampled) => sampled === k).length);
  return {
    counts, frequency: counts.map((count) => count / n), omitted: 0, first: samples.slice(0, 300),
    margin: p.map((x) => 1.96 * Math.sqrt((x * (1 - x)) / n)), distinct: counts.filter(Boolean).length, other_generator: true,
  };
}

function calibration(T, scale) {
  const t = T / scale;
  if (!(t > 0 && t < Infinity)) return { unavailable: "The diagram needs a positive, finite temperature." };
  const distance = (values) => Math.abs(Math.log(values.temperature / t));
  return digits.reliability.reduce((best, values) => (distance(values) < distance(best) ? values : best));
}

// The view of these settings; null if it needs Python, and an error if a setting is invalid.
// Without Python (`alone`) it has samples too.
export function preview(get, options, alone) {
  try {
    const z = logits(get, options);
    const T = numberOf(get, "T"), shift = finite(get, "shift"), scale = finite(get, "scale", { above: 0 });
    const other = NEED_PYTHON.filter((name) => get(name) !== initial(name));
    if (alone && other.length) throw new Invalid(`${other[0]} needs Python, which is not available here`);
    if (alone && z === null) throw new Invalid("this dataset needs Python, which is not available here");
    if (z === null || other.length) return null;
    const shifted = z.map((x) => x + shift), scaled = z.map((x) => scale * x + shift);
    const kept = keptClasses(get, scaled, T), truncated = scaled.map((x, i) => (kept[i] ? x : -Infinity));
    const p = softmax(truncated, T), original_p = softmax(z, T), ranked = order(scaled, T);
    const nats = 0 - sum(p.map((x) => (x === 0 ? 0 : x * Math.log(x))));
    const n_kept = truncated.filter((x) => x > -Infinity).length;
    const indices = z.map((_, i) => i);
    const label = isDigits(get) ? String(digits.labels[Number(get("row"))]) : null;
    return {
      row: Number(get("row")), n_ranked: null, rows: isDigits(get) ? digits.z.length : 1, labelled: label !== null, true_class: label,
      bars: {
        classes: z.length, indices, names: indices.map(String), z, scaled, p, original_p, removed: kept.map((keep) => !keep),
        rank: ranked.map((x) => 1 + ranked.filter((y) => y > x).length), omitted: { classes: 0, p: 0 }, n_kept, entropy: nats,
        relative_entropy: n_kept > 1 ? nats / Math.log(n_kept) : 0, perplexity: Math.exp(nats), max_p: Math.max(...p), sum: sum(p),
        shift_change: largestChange(softmax(shifted, T), original_p), scale_change: largestChange(softmax(z.map((x) => scale * x), T), original_p),
        same_order: true, reversed: T < 0, temperature: T,
      },
      jacobian: jacobian(truncated, p, T),
      samples: alone ? sample(get, p) : undefined,
      reliability: isDigits(get) ? calibration(T, scale) : undefined,
    };
  } catch (error) {
    if (error instanceof Invalid) return { error: error.message };
    throw error;
  }
}
