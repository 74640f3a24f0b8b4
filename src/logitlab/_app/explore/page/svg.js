// Small helpers: elements, numbers, and a chart with two axes.

const NAMESPACE = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A number from the server: null is NaN, infinities are text.
export function number(x) {
  return x === null ? NaN : x === "inf" ? Infinity : x === "-inf" ? -Infinity : x;
}

// A number that the user typed; NaN if it is none.
export function parse(typed) {
  const input = typed.trim().replace("−", "-").replace("∞", "inf").toLowerCase();
  return input === "inf" ? Infinity : input === "-inf" ? -Infinity : input === "" ? NaN : Number(input);
}

export function text(x, digits = 4) {
  x = number(x);
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const formatted = size !== 0 && (size < 1e-4 || size >= 1e6) ? x.toExponential(Math.max(digits - 2, 0))
    : String(Number(x.toPrecision(digits)));
  return formatted.replaceAll("-", "−").replace("e+", "e");
}

export function percent(x) {
  x = number(x);
  if (Number.isNaN(x)) return "NaN";
  if (x === 0 || x === 1) return `${100 * x} %`;
  if (x < 1e-5) return `${(100 * x).toExponential(0).replace("-", "−")} %`;
  const digits = x < 0.001 ? 4 : x < 0.1 ? 2 : 1;
  const formatted = (100 * x).toFixed(digits);
  return `${formatted === "100.0" ? "> 99.9" : formatted} %`;
}

export const count = (n) => n.toLocaleString("en");

// A chart with two axes in data units. Ticks are [value, label] pairs.
export function chart({ label, x, y, xTicks, yTicks, xTitle, yTitle, width = 360, height = 230 }) {
  const left = 54, right = 20, top = 10, bottom = 38;
  const toPixels = (axis, from, to) => (value) => {
    const scale = axis.log ? Math.log : (v) => v;
    return from + ((scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low))) * (to - from);
  };
  const px = toPixels(x, left, width - right), py = toPixels(y, height - bottom, top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const [value, tick] of xTicks) {
    root.append(
      svg("line", { class: "grid", x1: px(value), x2: px(value), y1: top, y2: height - bottom }),
      svg("text", { class: "tick", x: px(value), y: height - bottom + 15, "text-anchor": "middle" }, tick));
  }
  for (const [value, tick] of yTicks) {
    root.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: py(value), y2: py(value) }),
      svg("text", { class: "tick", x: left - 6, y: py(value) + 4, "text-anchor": "end" }, tick));
  }
  root.append(
    svg("text", { class: "title", x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "title", x: 0, y: 0, "text-anchor": "middle",
      transform: `translate(10 ${(top + height - bottom) / 2}) rotate(-90)` }, yTitle));
  const line = (xs, ys, name) => root.append(svg("polyline", { class: name,
    points: xs.map((v, i) => `${px(v).toFixed(1)},${py(ys[i]).toFixed(1)}`).join(" ") }));
  return { root, px, py, line, left, right: width - right, top, bottom: height - bottom };
}

export const PERCENTS = [[0, "0 %"], [0.25, "25 %"], [0.5, "50 %"], [0.75, "75 %"], [1, "100 %"]];
