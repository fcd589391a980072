// Table of the results: filters, columns and order, all of them kept in the address; download as CSV.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (name, text, parent) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};
const FILTERS = ["benchmark", "scenario", "method", "status"];
const NUMBER = /(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i;
const usual = data.columns.filter((column) => column.shown).map((column) => column.key);
const state = { sort: null, down: true, open: "", columns: new Set(usual) };
const body = document.querySelector("#results tbody");
const head = make("tr", undefined, document.querySelector("#results thead"));
const identity = (row) => [row.texts.benchmark, row.texts.scenario, row.texts.method].join("|");

$("title").textContent = data.title;
$("subtitle").textContent = data.subtitle;
$("legend").textContent = data.legend;
for (const sentence of data.summary) make("li", sentence, $("summary"));
$("findings").open = $("choice").open = matchMedia("(min-width: 45rem)").matches;
for (const file of data.files) make("a", file.text, $("files")).href = file.href;

for (const id of FILTERS) {
  if (id === "method") { $(id).addEventListener("input", changed); continue; }
  make("option", "all", $(id)).value = "";
  for (const value of new Set(data.rows.flatMap((row) => choices(row, id)))) make("option", value, $(id)).value = value;
  $(id).addEventListener("change", changed);
}
for (const column of data.columns.filter((one) => one.key !== "method")) {
  const label = make("label", undefined, $("columns")), box = make("input", undefined, label);
  box.type = "checkbox";
  box.dataset.key = column.key;
  label.append(` ${column.title}`);
  label.title = column.words;
  box.addEventListener("change", () => {
    state.columns[box.checked ? "add" : "delete"](column.key);
    changed();
  });
}
$("download").addEventListener("click", () => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "results.csv";
  link.click();
});
$("pane").addEventListener("scroll", hint);
addEventListener("resize", hint);
addEventListener("hashchange", () => { if (location.hash.slice(1) !== address()) { read(); draw(); } });

// Values of a row that a filter may choose: a row has the status of each of its cells.
function choices(row, id) {
  return id === "status" ? row.cells.map((cell) => cell.status) : [row.texts[id]];
}

function columns() {
  return data.columns.filter((column) => state.columns.has(column.key));
}

function changed() {
  write();
  draw();
}

// The state as the fragment of the address; what is as at the start is left out.
function address() {
  const parts = new URLSearchParams();
  for (const id of FILTERS) if ($(id).value) parts.set(id, $(id).value);
  if (state.sort) parts.set("sort", (state.down ? "-" : "") + state.sort);
  const shown = columns().map((column) => column.key);
  if (shown.join() !== usual.join()) parts.set("columns", shown.join());
  if (state.open) parts.set("row", state.open);
  return parts.toString();
}

function write() {
  history.replaceState(null, "", `#${address()}`);
}

function read() {
  const parts = new URLSearchParams(location.hash.slice(1)), sort = parts.get("sort") ?? "";
  for (const id of FILTERS) {
    $(id).value = parts.get(id) ?? "";
    if ($(id).selectedIndex === -1) $(id).value = "";  // a value that these results do not have
  }
  const keys = data.columns.map((column) => column.key), key = sort.replace(/^-/, "");
  state.down = sort.startsWith("-");
  state.sort = keys.includes(key) ? key : null;
  const chosen = parts.has("columns") ? parts.get("columns").split(",") : usual;
  state.columns = new Set(["method", ...keys.filter((one) => chosen.includes(one))]);
  state.open = parts.get("row") ?? "";
}

function shown() {
  const part = $("method").value.toLowerCase();
  const rows = data.rows.filter((row) => FILTERS.every((id) => id === "method"
    ? row.texts.method.toLowerCase().includes(part) || row.id.toLowerCase().includes(part)
    : !$(id).value || choices(row, id).includes($(id).value)));
  if (state.sort === null) return rows;
  const value = (row) => state.sort in row.values ? row.values[state.sort].mean : row.texts[state.sort];
  const missing = (one) => one === null || one === undefined;
  return rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    const order = typeof x === "number" ? x - y : compare(String(x), String(y));
    return state.down ? -order : order;
  });
}

// Order of two names: 2 before 10, 0.03 before 0.1, 1e-5 before 0.001; capitals decide last.
function compare(a, b) {
  const x = a.split(NUMBER), y = b.split(NUMBER);  // every second part is a number
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const order = i % 2 ? x[i] - y[i] : x[i].localeCompare(y[i], undefined, { sensitivity: "accent" });
    if (order) return order;
  }
  return x.length - y.length || (a < b ? -1 : Number(a > b));
}

function draw() {
  const rows = shown(), kept = columns(), hidden = data.columns.length - kept.length;
  const focused = head.contains(document.activeElement) ? document.activeElement.parentElement.dataset.key : null;
  head.replaceChildren();
  body.replaceChildren();
  for (const column of kept) heading(column);
  head.querySelector(`[data-key="${focused}"] button`)?.focus();
  for (const row of rows) line(row, kept);
  for (const box of document.querySelectorAll("#columns input")) box.checked = state.columns.has(box.dataset.key);
  $("hidden").textContent = hidden ? ` (${hidden} ${hidden === 1 ? "column" : "columns"} hidden)` : "";
  $("count").textContent = `${rows.length} of ${data.rows.length} ${data.rows.length === 1 ? "line" : "lines"}.`;
  hint();
}

function heading(column) {
  const cell = make("th", undefined, head), on = column.key === state.sort;
  cell.dataset.key = column.key;
  cell.scope = "col";
  cell.title = column.words;
  if (column.text) cell.className = "text";
  cell.setAttribute("aria-sort", on ? (state.down ? "descending" : "ascending") : "none");
  const button = make("button", column.title + (on ? (state.down ? " ▼" : " ▲") : ""), cell);
  button.type = "button";
  button.addEventListener("click", () => {
    state.down = state.sort === column.key ? !state.down : !column.text;
    state.sort = column.key;
    changed();
  });
}

function line(row, kept) {
  const element = make("tr", undefined, body);
  let button;
  for (const { key, text } of kept) {
    const value = row.values[key], cell = make("td", undefined, element);
    cell.dataset.key = key;
    if (text) cell.className = "text";
    if (key === "method") {
      button = make("button", row.texts.method, cell);
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      continue;
    }
    cell.textContent = value ? value.text : row.texts[key] ?? "";
    if (value?.best) cell.classList.add("best");
    if (value?.level) cell.classList.add("level");
    if (value && value.mean === null) cell.classList.add("none");
    if (value?.reason) cell.title = value.reason;
  }
  // A click on the button, also by the keys Enter and Space, arrives here as well.
  element.addEventListener("click", () => toggle(row, element, button));
  if (identity(row) === state.open) open(row, element, button);
}

function toggle(row, element, button) {
  const was = button.getAttribute("aria-expanded") === "true";
  close();
  if (!was) open(row, element, button);
  state.open = was ? "" : identity(row);
  write();
}

function close() {
  for (const button of body.querySelectorAll("button[aria-expanded=true]")) {
    button.setAttribute("aria-expanded", "false");
    button.removeAttribute("aria-controls");
    button.closest("tr").classList.remove("chosen");
  }
  body.querySelector("tr.opened")?.remove();
}

function open(row, element, button) {
  const opened = make("tr"), cell = make("td", undefined, opened);
  element.after(opened);
  element.classList.add("chosen");
  opened.className = "opened";
  cell.colSpan = element.children.length;
  button.setAttribute("aria-expanded", "true");
  button.setAttribute("aria-controls", "detail");
  detail(row, cell);
}

// Hint at what is out of view to the left and to the right.
function hint() {
  const pane = $("pane"), rest = pane.scrollWidth - pane.clientWidth - pane.scrollLeft, edge = pane.getBoundingClientRect().right;
  const outside = [...head.children].filter((cell) => cell.getBoundingClientRect().right > edge + 1).length;
  pane.classList.toggle("left", pane.scrollLeft > 1);
  pane.classList.toggle("right", rest > 1);
  $("more").textContent = rest > 1 && outside ? `${outside} more ${outside === 1 ? "column" : "columns"} to the right →` : "";
}

// Table as shown, and the status. A measured column becomes mean, standard deviation and number of seeds; a cost on
// several machines becomes a column for each.
function csv() {
  const kept = data.columns.filter((column) => state.columns.has(column.key) || column.key === "status");
  const titles = kept.flatMap(({ title, unit, measured, machines }) => {
    const named = (...parts) => [title, ...parts].filter(Boolean).join(" ");
    if (measured) return [named(unit), named("std", unit), named("n")];
    return machines.length ? machines.map((name) => named(unit, `(${name})`)) : [named(unit)];
  });
  const lines = shown().map((row) => kept.flatMap(({ key, measured, machines }) => {
    const value = row.values[key];
    if (measured) return [value?.mean ?? "", value?.spread ?? "", value?.n ?? 0];
    if (machines.length) return machines.map((_, i) => value?.exact?.[i] ?? "");
    return [value ? value.exact ?? (value.mean === null ? "" : value.text) : row.texts[key] ?? ""];
  }));
  return [titles, ...lines].map((cells) => cells.map(field).join(",")).join("\n") + "\n";
}

function field(value) {
  let text = String(value);
  if (/^\s*[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;  // no formula of a spreadsheet
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
