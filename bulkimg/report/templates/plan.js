
"use strict";
const SIZE = 100, PRINTED = 500;  // rows a page, rows on paper
const at = id => document.getElementById(id);
const {head, rows} = JSON.parse(at("data").textContent);
let action = "", page = 0, found = rows;

// -- a row of the data as elements, as plan_page.py writes it; texts only ever as text ----------------------------------

function make(tag, kind, ...parts) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...parts.filter(part => part !== ""));
  return made;
}
const shown = value => value === null ? "" : Array.isArray(value) ? value.join("; ") : String(value);
const many = (count, noun) => `${count.toLocaleString("en")} ${count === 1 ? noun : noun + "s"}`;

function value(tag, given, start, end) {
  if (given === null || given.length === 0) return make(tag, "none", given === null ? "no value" : "empty");
  const text = shown(given), last = text.length - end;
  if (start === undefined) return make(tag, "", text);
  return make(tag, "part", text.slice(0, start), start < last ? make("mark", "", text.slice(start, last)) : "", text.slice(last));
}

function changed([field, before, after, ...cut]) {
  const values = make("div", "values");
  if (head.added.includes(field)) values.append(...(shown(before) ? [make("span", "", shown(before))] : []), " ", make("span", "sign", "+"), " ");
  else if (head.surveyed) values.append(value("del", before, ...cut), " ", make("span", "sign", "→"), " ");
  values.append(value("ins", after, ...cut));
  return make("div", "change", make("span", "field", field), values);
}

function row([line, uuid, plan, message, changes]) {
  const code = make("code", "", uuid.slice(0, 8), make("span", "", uuid.slice(8, -4)), uuid.slice(-4));
  code.title = uuid;
  const cells = [make("td", "line", line), make("td", "image", code), make("td", "action " + plan, head.labels[plan]),
    make("td", "what", ...(changes.length ? changes.map(changed) : [make("p", "", message)]))];
  for (const cell of cells) cell.setAttribute("role", "cell");
  const made = make("tr", "", ...cells);
  made.setAttribute("role", "row");
  return made;
}

// -- what is shown ------------------------------------------------------------------------------------------------------

// Searching is over each row's own text, made once, at the first search.
const text = row => row.text ??= [row[0], row[1], row[3], ...row[4].flatMap(c => [shown(c[1]), shown(c[2])])].join("\n").toLowerCase();

function filter() {
  const word = at("search").value.trim().toLowerCase(), field = at("field").value;
  found = rows.filter(row => (!action || row[2] === action) && (!field || row[4].some(c => c[0] === field)) && (!word || text(row).includes(word)));
  for (const tile of at("tiles").children) tile.setAttribute("aria-pressed", String(tile.dataset.action === action));
  page = 0;
  draw();
}

function draw() {
  at("rows").replaceChildren(...found.slice(page * SIZE, (page + 1) * SIZE).map(row));
  count();
}

function count() {
  const pages = Math.max(1, Math.ceil(found.length / SIZE));
  at("page").textContent = many(found.length, "row") + (pages > 1 ? `, page ${(page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}` : "");
  at("back").hidden = at("next").hidden = pages === 1;
  at("back").disabled = page === 0;
  at("next").disabled = page + 1 >= pages;
}

function turn(by) {
  page += by;
  draw();
  at("table").scrollIntoView();
}

let onPaper = false;
function paper(wanted) {
  if (wanted === onPaper) return;
  onPaper = wanted;
  if (!wanted) return draw();
  const some = found.length < rows.length ? " that match the filter" : "";
  at("printed").textContent = found.length > PRINTED
    ? `The first ${PRINTED} of ${many(found.length, "row")}${some}. The rest is in plan.csv.`
    : many(found.length, "row") + some;
  at("rows").replaceChildren(...found.slice(0, PRINTED).map(row));
}

async function copy() {
  let done = true;
  try {
    await navigator.clipboard.writeText(at("command").textContent);
  } catch {
    getSelection().selectAllChildren(at("command"));
    done = document.execCommand("copy");
  }
  at("copied").textContent = done ? "Copied." : "The command is selected; copy it with Ctrl+C.";
}

// -- the controls that need this script; the first rows are there already ------------------------------------------------

for (const old of [...at("tiles").children]) {
  const tile = make("button", old.className, ...old.childNodes);
  tile.type = "button";
  tile.dataset.action = old.dataset.action;
  tile.setAttribute("aria-pressed", "false");
  tile.onclick = () => { action = action === tile.dataset.action ? "" : tile.dataset.action; filter(); };
  old.replaceWith(tile);
}
at("field").append(new Option("Any field", ""));
for (const [name, images] of Object.entries(head.fields)) at("field").append(new Option(`${name} (${images.toLocaleString("en")})`, name));
let waiting;
at("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); };
at("field").onchange = filter;
at("back").onclick = () => turn(-1);
at("next").onclick = () => turn(1);
if (at("copy")) {
  at("copy").onclick = copy;
  at("copy").hidden = false;
}
at("tools").hidden = false;
count();
addEventListener("beforeprint", () => paper(true));
addEventListener("afterprint", () => paper(false));
matchMedia("print").addEventListener("change", event => paper(event.matches));
