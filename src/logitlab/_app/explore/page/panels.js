// The other pictures: each is drawn from what the server computed, and hidden where it has nothing.

import * as state from "./state.js";
import { PERCENTS, chart, count, html, number, percent, svg, text } from "./svg.js";

const inside = (name) => document.querySelector(`#${name} > div`);
const note = (...said) => html("p", { class: "note" }, ...said);

function put(name, part, draw) {
  if (part === undefined) return;
  inside(name).replaceChildren(...(part.refused ? [note(part.refused)] : draw(part)));
}

function drawn(view) {
  const { draws, bars } = view;
  const stream = html("p", { class: "stream", tabindex: "0", "aria-label": "the drawn stream" });
  const names = new Map(bars.place.map((k, i) => [k, bars.names[i]]));
  stream.textContent = draws.stream.map((k) => names.get(k) ?? k).join(" ");
  const n = Number(state.get("n"));
  const off = draws.frequency.filter((f, i) => Math.abs(f - number(bars.p[i])) > draws.reach[i]).length;
  return [
    note(`${count(n)} ${n === 1 ? "draw" : "draws"} with seed ${state.get("seed")}: ${count(draws.distinct)} distinct ` +
      `${draws.distinct === 1 ? "class" : "classes"}${draws.rest ? `, ${count(draws.rest)} of classes not shown` : ""}. ` +
      `Of ${bars.place.length} frequencies ${off} ${off === 1 ? "is" : "are"} further than 1.96 standard errors from the probability.`),
    stream,
    ...(n > draws.stream.length ? [note(`The first ${draws.stream.length} of ${count(n)}.`)] : []),
  ];
}

const entry = (x) => text(x, Math.abs(number(x)) < 0.01 ? 1 : 2);
function shade(cell, x, largest) {
  const level = Math.round(100 * Math.min(1, Math.abs(x) / largest));
  cell.style.background = `color-mix(in srgb, var(${x > 0 ? "--first" : "--second"}) calc(${level}% * var(--depth)), transparent)`;
}

function jacobian(part) {
  const head = html("tr", {}, html("th", { scope: "col" }, "∂p / ∂z"));
  for (const name of part.names) head.append(html("th", { scope: "col" }, name));
  head.append(html("th", { scope: "col", class: "sum" }, "sum"));
  const written = part.place.length <= 5;
  const table = html("table", { class: written ? "heat" : "heat small" }, html("thead", {}, head));
  const body = html("tbody");
  part.entries.forEach((entries, i) => {
    const line = html("tr", {}, html("th", { scope: "row" }, part.names[i]));
    entries.forEach((x, j) => {
      const label = `∂p(${part.names[i]}) / ∂z(${part.names[j]}) = ${text(x)}`;
      const cell = html("td", { title: label }, written ? entry(x) : html("span", { class: "hidden" }, text(x, 2)));
      shade(cell, number(x), part.largest);
      line.append(cell);
    });
    line.append(html("td", { class: "sum" }, text(part.sums[i], 1)));
    body.append(line);
  });
  table.append(body);
  const c = chart({
    label: "How the entries of the top class fade as the scale grows",
    x: { low: 1 / 64, high: 64, log: true }, y: { low: 0, high: 0.26 },
    xTicks: [[1 / 64, "1/64"], [1 / 8, "1/8"], [1, "1"], [8, "8"], [64, "64"]],
    yTicks: [[0, "0"], [0.125, "1/8"], [0.25, "1/4"]],
    xTitle: "further scale of these logits", yTitle: "top class: largest · T", height: 190,
  });
  c.line([1, 1], [0, 0.26], "mark");
  c.line(part.scales, part.fading.map(number), "first");
  const most = Math.max(...part.entries.flat().map((x) => Math.abs(number(x))));
  return [
    html("div", { class: "scroll" }, table),
    ...(written || most > 0.02 * part.largest ? []
      : [note(most ? `The largest of these entries is ${text(most, 2)} in size: too little to show as a colour.` : "All of these entries are 0.")]),
    note(`Colours reach to 1/(4|T|) = ${text(part.largest, 3)}, the largest entry there can be. A row sums to 0 over all ` +
      "classes: a shift of all logits changes no probability. Where the softmax saturates, the Jacobian fades:"),
    c.root,
  ];
}

function gradient(part, bars) {
  const choice = html("input", { type: "number", min: "0", max: bars.classes - 1, value: part.label });
  choice.addEventListener("change", () => state.set({ label: Math.trunc(Number(choice.value)) }));
  const most = Math.max(...part.gradient.map((x) => Math.abs(number(x))), 1e-300);
  const list = html("ol", { class: "slopes" });
  part.gradient.forEach((x, i) => {
    const value = number(x), size = `${(50 * Math.abs(value)) / most}%`;
    const bar = html("i");
    bar.style.left = value < 0 ? `calc(50% - ${size})` : "50%";
    bar.style.width = size;
    bar.className = value < 0 ? "down" : "up";
    const item = html("li", {}, html("span", { class: "name" }, part.names[i]), html("div", { class: "chance" }, bar),
      html("span", { class: "share" }, text(x, 3)));
    if (part.place[i] === part.label) item.classList.add("true");
    list.append(item);
  });
  const old = inside("gradient").querySelector("input");
  const focused = old && old === document.activeElement;
  if (focused) requestAnimationFrame(() => choice.focus());
  return [
    html("label", { class: "choice" }, "label y ", choice),
    note(`Log-loss ${text(part.loss)} nats. Its gradient by the logits is p − y${state.get("T") === "1" ? "" : ", over T"}; it sums to ${text(part.sum, 1)}.`),
    list,
  ];
}

function simplex(part, bars) {
  const width = 360, height = 290, side = 270, left = 45, base = 262;
  const at = (p) => {
    const [, b, c] = p.map(number);
    return [left + side * (b + c / 2), base - side * c * Math.sqrt(0.75)];
  };
  const points = (ps) => ps.map((p) => at(p).map((v) => v.toFixed(1)).join(",")).join(" ");
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Triangle of three classes; the distribution is ${part.p.map((x) => percent(x)).join(", ")}` });
  for (const share of [0.25, 0.5, 0.75]) {
    for (const [i, j, k] of [[0, 1, 2], [1, 2, 0], [2, 0, 1]]) {
      const from = [0, 0, 0], to = [0, 0, 0];
      from[i] = to[i] = share;
      from[j] = to[k] = 1 - share;
      root.append(svg("polyline", { class: "grid", points: points([from, to]) }));
    }
  }
  root.append(svg("polygon", { class: "edge", points: points([[1, 0, 0], [0, 1, 0], [0, 0, 1]]) }),
    svg("polyline", { class: "first", points: points(part.way) }));
  // Both ends have a label, and what has room between.
  const end = part.marks.length - 1, labels = [];
  for (const i of part.marks.map((_, j) => j && end + 1 - j)) {
    const [x, y] = at(part.marks[i]), label = `T = ${text(part.temperatures[i], 2)}`;
    root.append(svg("circle", { class: "dot", cx: x, cy: y, r: 3 }));
    const reach = 7 * label.length;
    if (labels.some((l) => Math.abs(l.y - y) < 13 && l.x < x + reach && x < l.x + l.reach)) continue;
    labels.push({ x, y, reach });
    root.append(svg("text", { class: "tick", x: x + 8, y: y + 4 }, label));
  }
  const [x, y] = at(part.p);
  root.append(svg("circle", { class: "here", cx: x, cy: y, r: 7 }));
  [[left - 6, base + 16, "middle"], [left + side + 6, base + 16, "middle"], [left + side / 2, base - side * 0.866 - 10, "middle"]]
    .forEach(([tx, ty, anchor], i) => root.append(svg("text", { class: "corner", x: tx, y: ty, "text-anchor": anchor },
      `class ${bars.names[i]}`)));
  return [root, note("The ring is the distribution on the screen. A corner is certainty, the centre indifference; the line is its way " +
    `from T = 0 to ${text(part.temperatures.at(-1))}.`)];
}

function reliability(part) {
  const over = state.get("scale") === "1" ? "T" : "T/c";
  const c = chart({
    label: `Reliability diagram, calibration error ${text(part.error)}`,
    x: { low: 0, high: 1 }, y: { low: 0, high: 1 }, xTicks: PERCENTS, yTicks: PERCENTS,
    xTitle: "confidence", yTitle: "accuracy", height: 260,
  });
  const rows = part.counts.reduce((a, b) => a + b, 0);
  part.counts.forEach((n, i) => {
    if (!n) return;
    const [low, high] = [part.edges[i], part.edges[i + 1]], accuracy = number(part.accuracy[i]), confidence = number(part.confidence[i]);
    const rect = (name, from, to) => svg("rect", { class: name, x: c.px(low), width: c.px(high) - c.px(low),
      y: c.py(Math.max(from, to)), height: Math.abs(c.py(from) - c.py(to)) });
    c.root.append(rect("right", 0, accuracy), rect("gap", accuracy, confidence),
      svg("line", { class: "band", x1: c.px(confidence), x2: c.px(confidence), y1: c.py(number(part.low[i])), y2: c.py(number(part.high[i])) }),
      svg("circle", { class: "share-dot", cx: c.px(confidence), cy: c.py(accuracy), r: 2 + 5 * Math.sqrt(n / rows) }));
  });
  c.line([0, 1], [0, 1], "mark");
  const losses = part.losses.map(number), finite = losses.filter(Number.isFinite);
  const least = Math.min(...finite), most = Math.min(Math.max(...finite), 4 * Math.max(least, 0.05));
  const top = Math.max(most, Math.min(number(part.loss), 1.5 * most)) * 1.05;
  const d = chart({
    label: `Log-loss over temperature, now ${text(part.loss)}`,
    x: { low: part.temperatures[0], high: part.temperatures.at(-1), log: true }, y: { low: 0, high: top },
    xTicks: [[0.1, "0.1"], [0.3, "0.3"], [1, "1"], [3, "3"], [10, "10"]],
    yTicks: [0, 0.5, 1].map((s) => [s * top, text(s * top, 2)]), xTitle: over === "T" ? "temperature" : "temperature T/c", yTitle: "log-loss (nats)", height: 200,
  });
  const kept = part.temperatures.map((t, i) => [t, losses[i]]).filter((pair) => pair[1] <= top);
  d.line(kept.map((pair) => pair[0]), kept.map((pair) => pair[1]), "first");
  if (part.best !== undefined && part.best >= 0.1 && part.best <= 10) {
    d.line([part.best, part.best], [0, top], "mark");
    d.root.append(svg("circle", { class: "dot", cx: d.px(part.best), cy: d.py(part.least), r: 4 }));
  }
  if (part.t >= 0.1 && part.t <= 10 && number(part.loss) <= top) {
    d.root.append(svg("circle", { class: "here", cx: d.px(part.t), cy: d.py(number(part.loss)), r: 6 }));
  }
  // The rows are scaled too: what the pictures call the temperature is T/c.
  const best = Number((part.best * Number(state.get("scale"))).toPrecision(6));
  const button = html("button", {}, `Set T to ${text(best, 6)}`);
  button.addEventListener("click", () => state.set({ T: best }));
  return [
    note(`${count(part.rows)}${part.rows < part.of ? ` of ${count(part.of)} rows, evenly spaced` : " rows"} at ${over} = ${text(part.t)}: ` +
      `calibration error ${text(part.error)}, log-loss ${text(part.loss)}.`),
    c.root, d.root,
    part.best === undefined ? note(`No temperature is best: ${part.failure}.`)
      : html("p", { class: "note" }, `The log-loss is least, ${text(part.least)}, at ${over} = ${text(part.best)}. `, button),
  ];
}

function precision(part) {
  const head = html("tr", {}, html("th", { scope: "col" }, "scale c"));
  for (const c of part.scales) head.append(html("th", { scope: "col" }, c < 1 ? `1/${1 / c}` : String(c)));
  const body = html("tbody");
  for (const { type, formula, errors, wrong } of part.rows) {
    const line = html("tr", {}, html("th", { scope: "row" }, `${type} `, html("b", {}, formula)));
    errors.forEach((error, i) => line.append(html("td", { class: error === "–" ? "" : wrong[i] ? "bad" : "good" }, error)));
    body.append(line);
  }
  return [
    note("The worst error of softmax(c z + shift), in ULP, of the formula as it is typed and of logitlab. " +
      "NaN: it overflows, or divides by zero. –: the logits are too large for the type."),
    html("div", { class: "scroll" }, html("table", { class: "precision" }, html("thead", {}, head), body)),
  ];
}

export function drawPanels(view) {
  document.getElementById("draws").hidden = !view.draws;
  put("draws", view.draws, () => drawn(view));
  put("jacobian", view.jacobian, jacobian);
  put("gradient", view.gradient, (part) => gradient(part, view.bars));
  put("precision", view.precision, precision);
  put("simplex", view.simplex, (part) => simplex(part, view.bars));
  put("reliability", view.reliability, reliability);
  for (const name of state.PANELS) {
    const possible = { simplex: view.bars.classes === 3, reliability: view.labelled }[name] ?? true;
    document.getElementById(name).hidden = !possible;
  }
}
