/** An element: attributes by name, children as nodes or texts. Nothing is ever parsed as HTML. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

export const byId = (id) => document.getElementById(id);

/** A table whose first column names the rows. */
export function table(columns, rows, caption) {
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map(([name, ...cells]) => element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, cell))));
  const parts = [element("thead", {}, head), element("tbody", {}, ...body)];
  return element("table", {}, ...(caption ? [element("caption", {}, caption)] : []), ...parts);
}

/** The same for those who cannot see the drawing, and with all figures. */
export function asTable(columns, rows) {
  const scrolled = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The answer as a table" }, table(columns, rows));
  return element("details", {}, element("summary", {}, "As a table"), scrolled);
}

/** Offsets are code points, JavaScript's strings UTF-16 units: slices of a text by the server's offsets. */
export function slicer(text) {
  const points = Array.from(text);
  return (start, end) => points.slice(start, end).join("");
}

const languageNames = new Intl.DisplayNames(["en"], { type: "language" });

/** Of Masakhane's languages, those that Chromium has no name for. */
const UNNAMED = { bbj: "Ghomálá'", fon: "Fon", luo: "Luo", mos: "Mossi", pcm: "Nigerian Pidgin", rn: "Rundi" };

export const languageName = (code) => UNNAMED[code] ?? languageNames.of(code);

export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.1 ? 1 : 0)} %`;

export const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
