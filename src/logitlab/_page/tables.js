// Tables with the class "data" become sortable, and get buttons to copy and download them; so does
// code with the class "copy". Numbers are shown with narrow spaces and a minus sign: data-value of
// a cell is the number for sorting and for files, where the shown text is rounded. A column whose
// header has data-picture is a picture, which no file contains.

export function download(name, content, type) {
  const link = document.createElement("a");
  const url = URL.createObjectURL(new Blob([content], { type }));
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or a page without a secure origin
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

// A button that copies what `text` returns, and says so for a moment.
export function copyButton(text, label = "Copy") {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", async () => {
    await write(text());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
}

function plain(text) {
  const trimmed = text.replace(/\s+/g, " ").trim();
  const ascii = trimmed.replaceAll("−", "-").replaceAll(" ", "").replaceAll("\u202f", "");
  return /^[+-]?[\d.]+(e[+-]?\d+)?%?$/.test(ascii) ? ascii : trimmed;
}

function parts(cell) {
  const note = cell.querySelector("small");
  const own = cell.cloneNode(true);
  for (const child of own.querySelectorAll("small, .tools")) child.remove();
  return [cell.dataset.value ?? plain(own.textContent), note ? note.textContent.trim() : ""];
}

// What the files hold of a column: its numbers, and the small notes below them: the bounds of an
// interval as two columns, other notes as one.
function column(cells, header) {
  if (header?.hasAttribute("data-picture")) return [];
  const values = cells.map(([value]) => value);
  const notes = cells.map(([, note]) => note);
  if (header) notes[0] = "";
  if (notes.every((note) => !note)) return [values];
  const titled = (texts, title) => (header ? [`${values[0]}: ${title}`, ...texts.slice(1)] : texts);
  const bounds = notes.map((note) => (note === "no interval" ? ["", ""] : note.split(" to ")));
  if (!notes.every((note, i) => !note || bounds[i].length === 2)) {
    return [values, titled(notes, header?.dataset.note ?? "note")];
  }
  const bound = (i) => bounds.map((pair) => plain(pair[i] ?? ""));
  return [values, titled(bound(0), "low"), titled(bound(1), "high")];
}

export function rowsOf(table) {
  const rows = [...table.rows].map((row) => [...row.cells].map(parts));
  const columns = rows[0].flatMap((_, j) => {
    const cells = rows.map((row) => row[j] ?? ["", ""]);
    return column(cells, table.tHead?.rows[0].cells[j]);
  });
  return rows.map((_, i) => columns.map((texts) => texts[i]));
}

// A spreadsheet would run a text that begins like a formula; an apostrophe prevents that.
function csvCell(text) {
  const safe = /^'*[=+\-@\t\r\n]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function key(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? parts(cell)[0];
  const number = parseFloat(text.replace(/^[<>]\s*/, ""));
  if (text === "" || text === "–") return [2, 0];
  return Number.isNaN(number) ? [1, text] : [0, number];
}

function sort(table, column, header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([[kindA, a]], [[kindB, b]]) => {
    if (kindA !== kindB || kindA === 2) return kindA - kindB;
    const order = kindA === 1 ? a.localeCompare(b) : a - b;
    return ascending ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
}

export function enhance(table) {
  if (table.tHead && table.tBodies[0]?.rows.length !== 1) {
    [...table.tHead.rows[0].cells].forEach((header, j) => {
      if (!header.textContent.trim() || header.hasAttribute("data-picture")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, j, header));
      header.append(button);
    });
  }
  const tools = document.createElement("div");
  tools.className = "tools";
  const csv = document.createElement("button");
  csv.type = "button";
  csv.textContent = "CSV";
  csv.addEventListener("click", () => {
    const lines = rowsOf(table).map((row) => row.map(csvCell).join(","));
    download(`${table.dataset.name || "table"}.csv`, `${lines.join("\n")}\n`, "text/csv");
  });
  const subject = table.dataset.name?.replaceAll("-", " ") || "table";
  const copy = copyButton(() => rowsOf(table).map((row) => row.join("\t")).join("\n"));
  copy.setAttribute("aria-label", `Copy the table: ${subject}`);
  csv.setAttribute("aria-label", `CSV: download the table: ${subject}`);
  tools.append(copy, csv);
  (table.closest(".scroll") ?? table).after(tools);
}

document.querySelectorAll("table.data").forEach(enhance);
for (const code of document.querySelectorAll("pre.copy")) {
  const tools = document.createElement("div");
  tools.className = "tools right";
  tools.append(copyButton(() => code.textContent));
  code.before(tools);
}

// On paper everything is unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
