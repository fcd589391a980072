// Details of a row (facts, matrices, records) and the figures; the last part of the script, which starts the page.
function detail(row, parent) {
  const box = make("section", undefined, parent);
  box.id = "detail";
  box.setAttribute("aria-label", `${row.texts.method} on ${row.texts.benchmark}, ${row.texts.scenario}`);
  make("h2", `${row.texts.method} on ${row.texts.benchmark}, ${row.texts.scenario}`, box);
  const facts = make("dl", undefined, box);
  for (const fact of row.facts) {
    make("dt", fact.term, facts);
    const text = make("dd", fact.text, facts);
    if (fact.file) {
      text.append(" ");
      make("a", fact.file, text).href = fact.file;
    }
  }
  const maps = make("div", undefined, box);
  maps.className = "maps";
  if (row.accuracy) map(maps, "Accuracy R", row.accuracy);
  if (row.certified) map(maps, "Certified C", row.certified);
  records(row, box);
}

function records(row, box) {
  const table = make("table", undefined, make("div", undefined, box));
  table.parentElement.className = "scroll";
  const title = make("tr", undefined, make("thead", undefined, table));
  const explained = row.cells.some((cell) => cell.reason);
  for (const name of ["seed", "status", "ACC %"]) make("th", name, title).scope = "col";
  for (const name of explained ? ["reason", "record"] : ["record"]) {
    const heading = make("th", name, title);
    heading.scope = "col";
    heading.className = "text";
  }
  const lines = make("tbody", undefined, table);
  for (const cell of row.cells) {
    const line = make("tr", undefined, lines);
    for (const value of [cell.seed, cell.status, cell.acc === null ? "–" : (100 * cell.acc).toFixed(2)])
      make("td", String(value), line);
    if (explained) make("td", cell.reason, line).className = "text reason";
    const place = make("td", undefined, line);
    place.className = "text";
    if (data.records === null) place.textContent = cell.folder;
    else make("a", cell.folder, place).href = [data.records, ...cell.folder.split("/").map(encodeURIComponent), "cell.json"].join("/");
  }
}

function colour(value) {
  const stops = data.colours, place = value * (stops.length - 1), i = Math.min(Math.floor(place), stops.length - 2);
  return stops[i].map((from, k) => Math.round(from + (place - i) * (stops[i + 1][k] - from)));
}

function map(parent, title, matrix) {
  const figure = make("figure", undefined, parent);
  make("div", title, figure);
  const canvas = make("canvas", undefined, figure), tasks = matrix[0].length;
  const caption = make("figcaption", "Row: after a task. Column: on a task.", figure);
  const percent = (value) => value === null || value === undefined ? "not measured" : `${(100 * value).toFixed(2)} %`;
  canvas.width = tasks;
  canvas.height = tasks;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title}; after the last task: ${matrix[tasks].map(percent).join(", ")}`);
  const context = canvas.getContext("2d"), image = context.createImageData(tasks, tasks);
  matrix.slice(1).forEach((row, i) => row.forEach((value, j) => {
    if (value !== null) image.data.set([...colour(value), 255], 4 * (i * tasks + j));
  }));
  context.putImageData(image, 0, 0);
  const tell = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (distance, size) => Math.max(0, Math.min(tasks - 1, Math.floor(tasks * distance / size)));
    const j = at(event.clientX - box.left, box.width), i = at(event.clientY - box.top, box.height);
    caption.textContent = `After task ${i + 1}, on task ${j + 1}: ${percent(matrix[i + 1]?.[j])}`;
  };
  canvas.addEventListener("pointermove", tell);
  canvas.addEventListener("pointerdown", tell);  // a tap
  numbers(figure, title, matrix.slice(1));
}

// The values of a map as a table, for keys, touch and readers aloud; made once it is opened.
function numbers(figure, title, matrix) {
  const part = make("details", undefined, figure);
  make("summary", "Values in percent", part);
  part.addEventListener("toggle", () => {
    if (part.querySelector("table")) return;
    const pane = make("div", undefined, part), table = make("table", undefined, pane);
    pane.className = "scroll";
    pane.tabIndex = 0;
    pane.setAttribute("role", "region");
    pane.setAttribute("aria-label", `${title}, values in percent`);
    const names = make("tr", undefined, make("thead", undefined, table)), lines = make("tbody", undefined, table);
    for (const name of ["after", ...matrix[0].map((_, j) => `on ${j + 1}`)]) make("th", name, names).scope = "col";
    matrix.forEach((row, i) => {
      const line = make("tr", undefined, lines);
      make("th", String(i + 1), line).scope = "row";
      for (const value of row) make("td", value === null ? "–" : (100 * value).toFixed(2), line);
    });
  });
}

// A figure is unpacked once it comes near the window: all of them together would delay the table.
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    unpack(data.figures[target.dataset.index]).then((address) => {
      target.querySelector("img").src = target.querySelector("a").href = address;
    });
  }
}, { rootMargin: "500px" });

async function unpack(figure) {
  const bytes = Uint8Array.from(atob(figure.packed), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const svg = await new Response(stream).arrayBuffer();
  return URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
}

data.figures.forEach((figure, index) => {
  const box = make("figure", undefined, $("figures")), image = make("img", undefined, box);
  box.dataset.index = index;
  image.alt = figure.caption;
  const link = make("a", "Open alone", make("figcaption", `${figure.caption} `, box));
  link.target = "_blank";
  near.observe(box);
});
read();
draw();
