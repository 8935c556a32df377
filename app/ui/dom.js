/** An element: attributes by name, children as nodes or texts. Nothing is ever parsed as HTML. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

export const byId = (id) => document.getElementById(id);

/** Offsets are code points, JavaScript's strings UTF-16 units: slices of a text by the server's offsets. */
export function slicer(text) {
  const points = Array.from(text);
  return (start, end) => points.slice(start, end).join("");
}

export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.1 ? 1 : 0)} %`;

export const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
