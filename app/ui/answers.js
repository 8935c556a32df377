import { element, percent, slicer } from "./dom.js";

const KINDS = {
  noun: ["NOUN", "PROPN", "PRON", "NUM"],
  verb: ["VERB", "AUX"],
  modifier: ["ADJ", "ADV", "DET"],
  mark: ["PUNCT", "SYM", "X"],
};

/** The text with its entities marked. */
export function entities(values, answer) {
  if (!answer.length) return element("p", { class: "text" }, values.text, element("span", { class: "hint" }, " No entity was found."));
  const slice = slicer(values.text);
  const shown = element("p", { class: "text" });
  let from = 0;
  for (const { entity_group: label, score, start, end } of answer) {
    const tag = element("span", { class: "tag" }, ` ${label}`);
    const mark = element("mark", { class: `entity ${label.toLowerCase()}`, title: percent(score) }, slice(start, end), tag);
    shown.append(slice(from, start), mark);
    from = end;
  }
  shown.append(slice(from));
  return shown;
}

/** Each word over its tag. */
export function words(values, answer) {
  const items = answer.map((word) =>
    element("li", { class: kind(word.upos), title: percent(word.score) }, element("span", {}, word.text), element("span", { class: "tag" }, word.upos)),
  );
  return element("ul", { class: "words text" }, ...items);
}

/** Labels with their shares, best first. */
export function bars(labels) {
  const rows = labels.map(({ label, score }) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span", { class: "filled" }));
    bar.firstChild.style.width = `${100 * score}%`;
    return element("li", {}, element("span", { class: "label" }, label), bar, element("span", { class: "share" }, percent(score)));
  });
  return element("ul", { class: "bars" }, ...rows);
}

/** The answer, and where the passage says so. */
export function span(values, { answer, score, start, end }) {
  const slice = slicer(values.context);
  if (start === end) return element("p", { class: "text" }, "No answer was found in the passage.");
  const said = element("p", { class: "said" }, element("strong", {}, answer), element("span", { class: "hint" }, ` ${percent(score)}`));
  const mark = element("mark", { class: "entity answer" }, slice(start, end));
  return element("div", {}, said, element("p", { class: "text" }, slice(0, start), mark, slice(end)));
}

function kind(upos) {
  return Object.keys(KINDS).find((name) => KINDS[name].includes(upos)) ?? "function";
}
