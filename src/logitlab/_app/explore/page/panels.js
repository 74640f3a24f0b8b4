// The panels below the bars: each is drawn from the values of a view, and hidden if it has none.

import { explainCells } from "./help.js";
import * as state from "./state.js";
import { PERCENTS, chart, count, html, number, percent, svg, text } from "./svg.js";

const panel = (name) => document.querySelector(`#${name} > div`);
const note = (...content) => html("p", { class: "note" }, ...content);
const explained = (value, tip) => html("button", { type: "button", class: "explained", "data-tip": tip }, value);
const LOG_LOSS = "The mean of −ln p over the rows, with p the probability of the true class. 0 is perfect; a model that gives all K classes the same probability has ln K.";

function show(name, values, draw) {
  if (values === undefined) return;
  panel(name).replaceChildren(...(values.unavailable ? [note(values.unavailable)] : draw(values)));
}

function sampleList({ samples, bars }) {
  const list = html("p", { class: "sample-list", tabindex: "0", "aria-label": "classes sampled" });
  const names = new Map(bars.indices.map((k, i) => [k, bars.names[i]]));
  list.textContent = samples.first.map((k) => names.get(k) ?? k).join(" ");
  const n = Number(state.get("n"));
  const outside = samples.frequency.filter((f, i) => Math.abs(f - number(bars.p[i])) > samples.margin[i]).length;
  return [
    note(`${count(n)} ${n === 1 ? "sample" : "samples"} with seed ${state.get("seed")}: ${count(samples.distinct)} distinct ` +
      `${samples.distinct === 1 ? "class" : "classes"}${samples.omitted ? `, ${count(samples.omitted)} samples of classes not shown` : ""}. ` +
      `${outside} of ${bars.indices.length} frequencies ${outside === 1 ? "differs" : "differ"} from the probability by more than 1.96 standard errors; ` +
      `about ${text(0.05 * bars.indices.length, 2)} would do so by chance.`),
    ...(samples.other_generator ? [note("Sampled in JavaScript: Python gives other samples for the same seed.")] : []),
    list,
    ...(n > samples.first.length ? [note(`The first ${samples.first.length} of ${count(n)} samples.`)] : []),
  ];
}

// An entry in few characters; its explanation has the digits.
function entry(x, bound) {
  const size = Math.abs(number(x));
  return size > 0 && size < 1e-4 * bound ? "~0" : text(x, size < 0.01 ? 1 : 2);
}
function shade(cell, x, bound) {
  const level = Math.round(100 * Math.min(1, Math.abs(x) / bound));
  cell.style.background = `color-mix(in srgb, var(${x > 0 ? "--first" : "--second"}) calc(${level}% * var(--depth)), transparent)`;
}

function jacobian(values) {
  const head = html("tr", {}, html("th", { scope: "col" }, "∂p / ∂z"));
  for (const name of values.names) head.append(html("th", { scope: "col" }, name));
  head.append(html("th", { scope: "col", class: "sum" }, "sum"));
  const withNumbers = values.indices.length <= 5;
  const table = html("table", { class: withNumbers ? "heat" : "heat small" }, html("thead", {}, head));
  const body = html("tbody");
  values.entries.forEach((entries, i) => {
    const row = html("tr", {}, html("th", { scope: "row" }, values.names[i]));
    entries.forEach((x, j) => {
      const label = `If the logit of class ${values.names[j]} increases by a small amount, the probability of class ${values.names[i]} changes by ` +
        `${text(x)} times that amount: ∂p(${values.names[i]}) / ∂z(${values.names[j]}).`;
      const cell = html("td", { "data-tip": label }, withNumbers ? entry(x, values.bound) : html("span", { class: "hidden" }, text(x, 2)));
      shade(cell, number(x), values.bound);
      row.append(cell);
    });
    row.append(html("td", { class: "sum", "data-tip": `The sum of the row of class ${values.names[i]} over all classes: 0, but for rounding, because adding ` +
      "the same number to all logits changes no probability." }, text(values.sums[i], 1)));
    body.append(row);
  });
  table.append(body);
  explainCells(table);
  const c = chart({
    label: "Largest Jacobian entry of the most probable class as a function of the scale",
    x: { low: 1 / 64, high: 64, log: true }, y: { low: 0, high: 0.26 },
    xTicks: [[1 / 64, "1/64"], [1 / 8, "1/8"], [1, "1"], [8, "8"], [64, "64"]],
    yTicks: [[0, "0"], [0.125, "1/8"], [0.25, "1/4"]],
    xTitle: "additional scale of the logits", yTitle: "max |∂p/∂z| · |T|", height: 190,
  });
  c.line([1, 1], [0, 0.26], "mark");
  c.line(values.scales, values.max_entries.map(number), "first");
  const largest = Math.max(...values.entries.flat().map((x) => Math.abs(number(x))));
  return [
    html("div", { class: "scroll" }, table),
    ...(withNumbers || largest > 0.02 * values.bound ? []
      : [note(largest ? `The largest absolute entry is ${text(largest, 2)}: too small to be visible as a colour.` : "All of these entries are 0.")]),
    note(`Row: probability, column: logit. Blue entries are positive, orange ones negative; the darkest colour is 1/(4|T|) = ${text(values.bound, 3)}, the ` +
      "largest possible entry. Each row sums to 0 over all classes: adding the same number to all logits changes no probability."),
    note("The plot: the largest entry in the row of the most probable class if the logits were multiplied by a further scale. Near probability 1 it goes to 0, " +
      "and gradients vanish."),
    c.root,
  ];
}

function gradient(values, bars) {
  const choice = html("input", { type: "number", min: "0", max: bars.classes - 1, value: values.label });
  choice.addEventListener("change", () => state.set({ label: Math.trunc(Number(choice.value)) }));
  const largest = Math.max(...values.gradient.map((x) => Math.abs(number(x))), 1e-300);
  const list = html("ol", { class: "gradient" });
  values.gradient.forEach((x, i) => {
    const value = number(x), size = `${(50 * Math.abs(value)) / largest}%`;
    const bar = html("i"), tip = `Class ${values.names[i]}: the log-loss changes by ${text(x)} times a small increase of this logit. ` +
      `${value < 0 ? "Increasing it reduces the loss." : "Increasing it does not reduce the loss."}`;
    bar.style.left = value < 0 ? `calc(50% - ${size})` : "50%";
    bar.style.width = size;
    bar.className = value < 0 ? "negative" : "positive";
    const item = html("li", {}, html("span", { class: "name" }, values.names[i]), html("div", { class: "probability" }, bar),
      html("button", { type: "button", class: "value", "data-tip": tip }, text(x, 3)));
    if (values.indices[i] === values.label) item.classList.add("true");
    list.append(item);
  });
  const old = panel("gradient").querySelector("input");
  const focused = old && old === document.activeElement;
  if (focused) requestAnimationFrame(() => choice.focus());
  return [
    html("label", { class: "choice" }, "label y (class index) ", choice),
    note("Log-loss of label y: ", explained(`−ln p(y) = ${text(values.loss)} nats`, "0 if the label has probability 1; the less probable the label, the larger."),
      `, without truncation. Its gradient with respect to the logits is ${state.get("T") === "1" ? "p − y" : "(p − y)/T"}, with y as a one-hot vector; ` +
      `it sums to ${text(values.sum, 1)}.`),
    list,
  ];
}

function simplex(values, bars) {
  const width = 360, height = 290, side = 270, left = 45, base = 262;
  const at = (p) => {
    const [, b, c] = p.map(number);
    return [left + side * (b + c / 2), base - side * c * Math.sqrt(0.75)];
  };
  const points = (ps) => ps.map((p) => at(p).map((v) => v.toFixed(1)).join(",")).join(" ");
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Triangle of three classes; the distribution is ${values.p.map((x) => percent(x)).join(", ")}` });
  for (const share of [0.25, 0.5, 0.75]) {
    for (const [i, j, k] of [[0, 1, 2], [1, 2, 0], [2, 0, 1]]) {
      const from = [0, 0, 0], to = [0, 0, 0];
      from[i] = to[i] = share;
      from[j] = to[k] = 1 - share;
      root.append(svg("polyline", { class: "grid", points: points([from, to]) }));
    }
  }
  root.append(svg("polygon", { class: "edge", points: points([[1, 0, 0], [0, 1, 0], [0, 0, 1]]) }),
    svg("polyline", { class: "first", points: points(values.path) }));
  // Both ends have a label; a mark between has one if it does not overlap.
  const end = values.marks.length - 1, labels = [];
  for (const i of values.marks.map((_, j) => j && end + 1 - j)) {
    const [x, y] = at(values.marks[i]), label = `T = ${text(values.temperatures[i], 2)}`;
    root.append(svg("circle", { class: "dot", cx: x, cy: y, r: 3 }));
    const labelWidth = 7 * label.length;
    if (labels.some((l) => Math.abs(l.y - y) < 13 && l.x < x + labelWidth && x < l.x + l.labelWidth)) continue;
    labels.push({ x, y, labelWidth });
    root.append(svg("text", { class: "tick mark-label", x: x + 10, y: y + 4 }, label));
  }
  const [x, y] = at(values.p);
  root.append(svg("circle", { class: "current", cx: x, cy: y, r: 7 }));
  [[left - 6, base + 16, "middle"], [left + side + 6, base + 16, "middle"], [left + side / 2, base - side * 0.866 - 10, "middle"]]
    .forEach(([tx, ty, anchor], i) => root.append(svg("text", { class: "corner", x: tx, y: ty, "text-anchor": anchor },
      `class ${bars.names[i]}`)));
  return [root, note("Each point is a distribution of three classes: at a corner one class has probability 1, at the centre all are equal. The ring is " +
    `the current distribution, the line its path from T = 0 to ${text(values.temperatures.at(-1))}.`)];
}

function reliability(values) {
  const symbol = state.get("scale") === "1" ? "T" : "T/c";
  const c = chart({
    label: `Reliability diagram, ECE ${text(values.calibration_error)}`,
    x: { low: 0, high: 1 }, y: { low: 0, high: 1 }, xTicks: PERCENTS, yTicks: PERCENTS,
    xTitle: "confidence", yTitle: "accuracy", height: 260,
  });
  const rows = values.counts.reduce((a, b) => a + b, 0);
  values.counts.forEach((n, i) => {
    if (!n) return;
    const [low, high] = [values.edges[i], values.edges[i + 1]], accuracy = number(values.accuracy[i]), confidence = number(values.confidence[i]);
    const rect = (name, from, to) => svg("rect", { class: name, x: c.px(low), width: c.px(high) - c.px(low),
      y: c.py(Math.max(from, to)), height: Math.abs(c.py(from) - c.py(to)) });
    c.root.append(rect("accuracy", 0, accuracy), rect("gap", accuracy, confidence),
      svg("line", { class: "band", x1: c.px(confidence), x2: c.px(confidence), y1: c.py(number(values.low[i])), y2: c.py(number(values.high[i])) }),
      svg("circle", { class: "bin", cx: c.px(confidence), cy: c.py(accuracy), r: 2 + 5 * Math.sqrt(n / rows) }));
  });
  c.line([0, 1], [0, 1], "mark");
  const losses = values.losses.map(number), finite = losses.filter(Number.isFinite);
  const minimum = Math.min(...finite), maximum = Math.min(Math.max(...finite), 4 * Math.max(minimum, 0.05));
  const top = Math.max(maximum, Math.min(number(values.loss), 1.5 * maximum)) * 1.05;
  const d = chart({
    label: `Log-loss as a function of the temperature, currently ${text(values.loss)}`,
    x: { low: values.temperatures[0], high: values.temperatures.at(-1), log: true }, y: { low: 0, high: top },
    xTicks: [[0.1, "0.1"], [0.3, "0.3"], [1, "1"], [3, "3"], [10, "10"]],
    yTicks: [0, 0.5, 1].map((s) => [s * top, text(s * top, 2)]), xTitle: symbol === "T" ? "temperature" : "temperature T/c", yTitle: "log-loss (nats)", height: 200,
  });
  const visible = values.temperatures.map((t, i) => [t, losses[i]]).filter((pair) => pair[1] <= top);
  d.line(visible.map((pair) => pair[0]), visible.map((pair) => pair[1]), "first");
  if (values.best_temperature !== undefined && values.best_temperature >= 0.1 && values.best_temperature <= 10) {
    d.line([values.best_temperature, values.best_temperature], [0, top], "mark");
    d.root.append(svg("circle", { class: "dot", cx: d.px(values.best_temperature), cy: d.py(values.minimum), r: 4 }));
  }
  if (values.temperature >= 0.1 && values.temperature <= 10 && number(values.loss) <= top) {
    d.root.append(svg("circle", { class: "current", cx: d.px(values.temperature), cy: d.py(number(values.loss)), r: 6 }));
  }
  // The rows include the scale c, so the temperature of the plots is T/c.
  const best = Number((values.best_temperature * Number(state.get("scale"))).toPrecision(6));
  const button = html("button", {}, `Set T to ${text(best, 6)}`);
  button.addEventListener("click", () => state.set({ T: best }));
  return [
    note(`${count(values.rows)}${values.rows < values.total_rows ? ` of ${count(values.total_rows)} rows, evenly spaced,` : " rows"} at ${symbol} = ${text(values.temperature)}: `,
      explained(`expected calibration error (ECE) ${text(values.calibration_error)}`,
        "The mean distance between confidence and accuracy over the groups of rows, weighted by their sizes. 0 if every confidence is the share of correct predictions."), ", ",
      explained(`log-loss ${text(values.loss)} nats`, LOG_LOSS), "."),
    c.root,
    note("Rows are grouped by confidence, their largest probability. Blue: accuracy of a group. Orange: the gap to its mean confidence; without gaps " +
      "the model is calibrated. Lines: 95 % interval of the accuracy."),
    d.root,
    values.best_temperature === undefined ? note(`The log-loss has no minimum: ${values.failure}.`)
      : note("Minimum of the log-loss: ", explained(text(values.minimum), LOG_LOSS), " at ",
        explained(`${symbol} = ${text(values.best_temperature)}`, "The temperature that temperature scaling chooses for these rows."), ". ", button),
  ];
}

function precision(values) {
  const head = html("tr", {}, html("th", { scope: "col" }, "scale c"));
  for (const c of values.scales) head.append(html("th", { scope: "col" }, c < 1 ? `1/${1 / c}` : String(c)));
  const body = html("tbody");
  for (const { type, formula, errors, wrong } of values.rows) {
    const row = html("tr", {}, html("th", { scope: "row" }, `${type} `, html("b", {}, formula)));
    errors.forEach((error, i) => {
      const tip = `${formula === "naive" ? "exp(z) / Σ exp(z)" : "logitlab.softmax"} in ${type}, logits times ${text(values.scales[i])}: ` +
        (error === "–" ? "the logits themselves are too large for the type." : error === "NaN" ? "the result is not a number: an overflow, or 0/0."
          : `the largest error is ${error} ULP (units in the last place).`);
      row.append(html("td", { class: error === "–" ? "" : wrong[i] ? "bad" : "good", "data-tip": tip }, error));
    });
    body.append(row);
  }
  const table = html("table", { class: "precision" }, html("thead", {}, head), body);
  explainCells(table);
  return [
    note("Largest error of softmax(c·z + shift), in units in the last place (ULP), of the naive formula exp(z) / Σ exp(z) and of logitlab. " +
      "NaN: an overflow, or 0/0. –: the logits are too large for the type."),
    html("div", { class: "scroll" }, table),
  ];
}

export function drawPanels(view) {
  document.getElementById("samples").hidden = !view.samples;
  show("samples", view.samples, () => sampleList(view));
  show("jacobian", view.jacobian, jacobian);
  show("gradient", view.gradient, (values) => gradient(values, view.bars));
  show("precision", view.precision, precision);
  show("simplex", view.simplex, (values) => simplex(values, view.bars));
  show("reliability", view.reliability, reliability);
  for (const name of state.PANELS) {
    const possible = { simplex: view.bars.classes === 3, reliability: view.labelled }[name] ?? true;
    document.getElementById(name).hidden = !possible;
  }
}
