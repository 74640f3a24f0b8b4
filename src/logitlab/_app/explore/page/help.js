// Explanations of numbers: an element with data-tip shows its text on hover, tap and focus.
// The arrow keys move between the explained cells of a table; Escape hides the explanation.

const tip = document.getElementById("tip");
let shown = null;

function hide() {
  shown?.removeAttribute("aria-describedby");
  shown = null;
  tip.hidden = true;
}

function show(element) {
  if (shown !== element) hide();
  shown = element;
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  element.setAttribute("aria-describedby", "tip");
  const box = element.getBoundingClientRect(), width = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(8, Math.min(box.left, width - tip.offsetWidth - 8))}px`;
  const below = box.bottom + 6;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : Math.max(8, box.top - tip.offsetHeight - 6)}px`;
}

const explained = (event) => event.target.closest?.("[data-tip]");

for (const type of ["pointerover", "focusin", "click"]) {
  document.addEventListener(type, (event) => {
    const element = explained(event);
    if (element) show(element);
    else if (type === "click") hide();
  });
}
document.addEventListener("pointerout", (event) => {
  if (event.pointerType === "mouse" && explained(event) === shown && document.activeElement !== shown) hide();
});
document.addEventListener("focusout", hide);
addEventListener("scroll", hide, true);

const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const cell = event.target.closest("td[data-tip]");
  if (!cell || !STEPS[event.key]) return;
  const [down, right] = STEPS[event.key], row = cell.parentElement;
  const next = row.parentElement.rows[row.sectionRowIndex + down]?.cells[cell.cellIndex + right];
  if (next?.dataset.tip === undefined) return;
  event.preventDefault();
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

// Makes the first explained cell of a table reachable by Tab.
export function explainCells(table) {
  table.querySelectorAll("td[data-tip]").forEach((cell, i) => { cell.tabIndex = i === 0 ? 0 : -1; });
}

// After a view is rendered again: the text of an element that stays, or none.
export function refresh() {
  if (shown === null) return;
  if (document.contains(shown)) show(shown); else hide();
}
