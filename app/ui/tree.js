import { asTable, element, percent, svg } from "./dom.js";

const GAP = 18;
const STEP = 30;
const LETTER = 7;

/** A drawn tree for each sentence, and the same as a table. */
export function trees(values, answer) {
  const numbers = [...new Set(answer.map((word) => word.sentence))];
  const drawn = numbers.map((number) => drawing(answer.filter((word) => word.sentence === number), number));
  const governor = ({ head }) => (head === 0 ? "none" : answer[head - 1].text);
  const rows = answer.map((word) => [word.text, word.deprel, governor(word), percent(word.score)]);
  return element("div", {}, ...drawn, asTable(["Word", "Relation", "Head", "Score"], rows));
}

/** How high each arc is: above all arcs that lie under it. Arcs as [from, to], from left to right. */
export function levels(arcs) {
  const height = new Map();
  for (const arc of [...arcs].sort((a, b) => a[1] - a[0] - (b[1] - b[0]))) {
    const under = [...height.keys()].filter(([from, to]) => arc[0] <= from && to <= arc[1]);
    height.set(arc, 1 + Math.max(0, ...under.map((other) => height.get(other))));
  }
  return arcs.map((arc) => height.get(arc));
}

function drawing(sentence, number) {
  const first = sentence[0].id;
  const widths = sentence.map((word) => Math.max(40, measured(word.text, 17), measured(word.deprel, 12)) + GAP);
  const centres = widths.map((width, index) => widths.slice(0, index).reduce((sum, other) => sum + other, width / 2));
  const children = sentence.filter((word) => word.head !== 0);
  const ends = children.map((word) => [word.id - first, word.head - first]);
  const heights = levels(ends.map((pair) => [Math.min(...pair), Math.max(...pair)]));
  const highest = Math.max(1, ...heights);
  const base = (highest + 1) * STEP;
  const total = widths.reduce((sum, width) => sum + width, 0);
  const picture = svg("svg", { viewBox: `0 0 ${total} ${base + 40}`, width: total, height: base + 40, "aria-hidden": "true" });
  children.forEach((word, index) => {
    const [to, from] = ends[index];
    const top = base - heights[index] * STEP;
    const [x1, x2] = [centres[from] + (to > from ? 5 : -5), centres[to]];
    const bend = Math.sign(x2 - x1) * Math.min(12, Math.abs(x2 - x1) / 2);
    const path = `M${x1},${base} V${top + 12} Q${x1},${top} ${x1 + bend},${top} H${x2 - bend} Q${x2},${top} ${x2},${top + 12} V${base - 5}`;
    picture.append(svg("path", { class: "arc", d: path }), arrow(x2, base));
    picture.append(svg("text", { class: "relation", x: (x1 + x2) / 2, y: top - 5 }, word.deprel));
  });
  sentence.forEach((word, index) => {
    if (word.head === 0) {
      picture.append(svg("path", { class: "arc root", d: `M${centres[index]},12 V${base - 5}` }), arrow(centres[index], base));
      picture.append(svg("text", { class: "relation beside", x: centres[index] + 6, y: 14 }, word.deprel));
    }
    picture.append(svg("text", { class: "word", x: centres[index], y: base + 24 }, word.text));
  });
  const label = `Tree of sentence ${number}; the table below says the same`;
  return element("div", { class: "tree", tabindex: "0", role: "region", "aria-label": label }, picture);
}

function arrow(x, y) {
  return svg("path", { class: "arrow", d: `M${x - 4},${y - 7} L${x},${y} L${x + 4},${y - 7} Z` });
}

const canvas = document.createElement("canvas").getContext("2d");

function measured(text, size) {
  canvas.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return canvas.measureText(text).width || text.length * LETTER;
}
