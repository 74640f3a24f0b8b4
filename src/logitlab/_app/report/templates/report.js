// The parts of a report that need a script: the diagram at any temperature, the rows of a bin or a
// class, and the picture of the summary. All values are computed by the library and are in the page.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

function data(node) {
  return JSON.parse(node.querySelector("script[type='application/json']").textContent);
}

// --- A reliability diagram at the temperature of a slider ---

const LEFT = 46, TOP = 10, WIDTH = 300, HEIGHT = 250;
const x = (share) => LEFT + WIDTH * share;
const y = (share) => TOP + HEIGHT * (1 - share);

function frame(svg) {
  const path = (d, kind) => svg.append(element("path", { d, class: kind }));
  path(`M${LEFT} ${TOP}V${TOP + HEIGHT}H${LEFT + WIDTH}`, "frame");
  for (const share of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
    const label = `${Math.round(100 * share)} %`;
    svg.append(element("text", { x: x(share), y: TOP + HEIGHT + 15, "text-anchor": "middle" }, label));
    svg.append(element("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, label));
  }
  const middle = TOP + HEIGHT / 2;
  svg.append(element("text", { x: x(0.5), y: TOP + HEIGHT + 32, "text-anchor": "middle" }, "confidence"));
  svg.append(element("text", { x: 9, y: middle, "text-anchor": "middle", transform: `rotate(-90 9 ${middle})` }, "accuracy"));
}

function drawBins(group, bins, nBins, rows) {
  const rect = (b, low, high, kind) => element("rect", {
    x: x(b / nBins), width: WIDTH / nBins, y: y(high), height: Math.max(0, HEIGHT * (high - low)), class: kind,
  });
  group.replaceChildren();
  for (const [b, n, confidence, accuracy] of bins) {
    group.append(rect(b, 0, Math.min(confidence, accuracy), "accuracy"));
    const kind = confidence > accuracy ? "over" : "under";
    group.append(rect(b, Math.min(confidence, accuracy), Math.max(confidence, accuracy), kind));
  }
  group.append(element("path", { d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}`, class: "diagonal" }));
  for (const [b, n, confidence, accuracy] of bins) {
    const r = Math.sqrt(3 + 48 * n / rows);
    const dot = element("circle", { cx: x(confidence), cy: y(accuracy), r, class: "dot" });
    const percent = (share) => `${(100 * share).toFixed(1)} %`;
    dot.append(element("title", {}, `${n} rows: mean confidence ${percent(confidence)}, accuracy ${percent(accuracy)}`));
    group.append(dot);
  }
}

for (const panel of document.querySelectorAll(".temperatures")) {
  const { steps, bins, rows, fitted } = data(panel);
  const svg = panel.querySelector("svg");
  const group = element("g");
  frame(svg);
  svg.append(group);
  const slider = panel.querySelector("input");
  slider.max = steps.length - 1;
  const show = () => {
    const step = steps[slider.value];
    slider.setAttribute("aria-valuetext", `T = ${step.t}`);
    for (const output of panel.querySelectorAll("[data-show]")) output.textContent = step[output.dataset.show];
    drawBins(group, step.bins, bins, rows);
  };
  const set = (i) => { slider.value = i; show(); };
  const one = steps.findIndex((step) => step.one);
  panel.querySelector("[data-set=one]").addEventListener("click", () => set(one));
  const fittedButton = panel.querySelector("[data-set=fitted]");
  fittedButton.hidden = fitted === null;
  fittedButton.addEventListener("click", () => set(fitted));
  slider.addEventListener("input", show);
  set(one);
  panel.hidden = false;
}

// --- The rows of a bin or of a predicted class ---

const listing = document.getElementById("rows");
if (listing) {
  const { groups, names } = data(listing);
  const select = listing.querySelector("select");
  const table = listing.querySelector("table");
  for (const label of new Set(groups.map((group) => group.kind))) {
    const options = document.createElement("optgroup");
    options.label = label;
    groups.forEach((group, i) => {
      if (group.kind === label) options.append(new Option(`${group.title} (${group.total})`, i));
    });
    select.append(options);
  }
  const show = () => {
    const group = groups[select.value];
    const cell = (text, kind) => {
      const node = document.createElement("td");
      node.textContent = text;
      node.className = kind;
      return node;
    };
    table.tBodies[0].replaceChildren(...group.rows.map(([row, confidence, predicted, truth]) => {
      const line = document.createElement("tr");
      const wrong = predicted === truth ? "text" : "text wrong";
      line.append(cell(row, ""), cell(confidence, ""), cell(names[predicted], "text"), cell(names[truth], wrong));
      return line;
    }));
    for (const header of table.tHead.rows[0].cells) header.removeAttribute("aria-sort");
    listing.querySelector("output").textContent = `${group.rows.length} of ${group.total} listed: `
      + "misclassified ones first, then by confidence.";
  };
  const open = (kind, key) => {
    const i = groups.findIndex((group) => group.kind === kind && String(group.key) === key);
    if (i < 0) return;
    select.value = i;
    show();
    listing.open = true;
    listing.scrollIntoView({ block: "nearest" });
  };
  select.addEventListener("change", show);
  for (const bin of document.querySelectorAll("[data-lists] .value")) {
    bin.classList.add("clickable");
    bin.addEventListener("click", () => open("Bins of confidence", bin.dataset.key));
  }
  for (const name of document.querySelectorAll("th[data-class]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort link";
    button.append(...name.childNodes);
    button.addEventListener("click", () => open("Predicted classes", name.dataset.class));
    name.append(button);
  }
  select.value = groups.reduce((most, group, i) => (group.total > groups[most].total ? i : most), 0);
  show();
  listing.hidden = false;
}

// --- The summary as a picture ---

const COLOURS = ["paper", "ink", "muted", "line", "soft", "first", "second"];

function wrapped(context, text, width) {
  const lines = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line ? `${line} ${word}` : word;
    if (line && context.measureText(longer).width > width) {
      lines.push(line);
      line = word;
    } else {
      line = longer;
    }
  }
  return [...lines, line];
}

async function picture(svg, colours, font) {
  const copy = svg.cloneNode(true);
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  copy.setAttribute("width", 3 * width);
  copy.setAttribute("height", 3 * height);
  copy.style.fontFamily = font;
  for (const part of copy.querySelectorAll(".value")) part.remove();
  let text = new XMLSerializer().serializeToString(copy);
  for (const name of COLOURS) text = text.replaceAll(`var(--${name})`, colours[name]);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  return { image, ratio: width / height };
}

async function summaryPicture() {
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  const font = getComputedStyle(document.body).fontFamily;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2400, 1260];
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, 1200, 630);
  context.textBaseline = "top";
  const diagram = document.querySelector(".pictures figure svg");
  const width = diagram ? 620 : 1120;
  let top = 40;
  const write = (text, size, weight, colour, most) => {
    context.font = `${weight} ${size}px ${font}`;
    context.fillStyle = colour;
    const lines = wrapped(context, text.replace(/\s+/g, " ").trim(), width);
    for (const line of lines.slice(0, most)) {
      context.fillText(line, 40, top, width);
      top += 1.35 * size;
    }
    top += 0.5 * size;
  };
  write(document.querySelector(".meta").textContent, 18, 400, colours.muted, 2);
  write(document.querySelector("h1").textContent, 44, 700, colours.ink, 2);
  write(document.querySelector(".summary").textContent, 21, 400, colours.ink, 6);
  const cards = [...document.querySelectorAll("header .cards > *")];
  const step = 310;
  top = Math.max(top + 10, 400);
  cards.forEach((card, i) => {
    const left = 40 + step * (i % 2), at = top + 90 * Math.floor(i / 2);
    context.fillStyle = colours.soft;
    context.fillRect(left, at, step - 10, 80);
    const value = card.querySelector("b").textContent;
    context.fillStyle = colours.ink;
    context.font = `700 26px ${font}`;
    context.fillText(value, left + 14, at + 12, step - 36);
    context.fillStyle = colours.muted;
    context.font = `400 16px ${font}`;
    context.fillText(card.textContent.replace(value, "").trim(), left + 14, at + 48, step - 36);
  });
  if (diagram) {
    const { image, ratio } = await picture(diagram, colours, font);
    const w = 500, h = w / ratio;
    context.drawImage(image, 680, 100, w, h);
    context.font = `400 16px ${font}`;
    context.fillStyle = colours.muted;
    context.fillText(diagram.closest("figure").querySelector("figcaption").textContent, 690, 70, 480);
  }
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}

const pictureButton = document.createElement("button");
pictureButton.type = "button";
pictureButton.textContent = "Summary as PNG";
pictureButton.addEventListener("click", async () => {
  download("summary.png", await summaryPicture(), "image/png");
});
const headerTools = document.createElement("div");
headerTools.className = "tools right";
headerTools.append(pictureButton);
document.querySelector("header").prepend(headerTools);
