import { asTable, element, percent, slicer } from "./dom.js";

const KINDS = {
  noun: ["NOUN", "PROPN", "PRON", "NUM"],
  verb: ["VERB", "AUX"],
  modifier: ["ADJ", "ADV", "DET"],
  mark: ["PUNCT", "SYM", "X"],
};

const MEANINGS = {
  PER: "person", ORG: "organisation", LOC: "place", DATE: "date", MISC: "other name",
  ADJ: "adjective", ADP: "preposition", ADV: "adverb", AUX: "auxiliary verb", CCONJ: "coordinating conjunction", DET: "determiner",
  INTJ: "interjection", NOUN: "noun", NUM: "number", PART: "particle", PRON: "pronoun", PROPN: "proper noun", PUNCT: "punctuation",
  SCONJ: "subordinating conjunction", SYM: "symbol", VERB: "verb", X: "other",
};

/** The text with its entities marked. */
export function entities(values, answer) {
  if (!answer.length) return element("p", { class: "text" }, values.text, element("span", { class: "hint" }, " No entity was found."));
  const slice = slicer(values.text);
  const shown = element("p", { class: "text" });
  let from = 0;
  for (const { entity_group: label, score, start, end } of answer) {
    const tag = element("span", { class: "tag" }, `\u00a0${label}`);
    const mark = element("mark", { class: `entity ${label.toLowerCase()}`, title: percent(score) }, slice(start, end), tag);
    shown.append(slice(from, start), mark);
    from = end;
  }
  shown.append(slice(from));
  const rows = answer.map(({ word, entity_group: label, score, start, end }) => [word, label, percent(score), start, end]);
  const found = answer.map((entity) => entity.entity_group);
  return element("div", {}, shown, legend(found), asTable(["Entity", "Label", "Score", "Start", "End"], rows));
}

/** Each word over its tag. */
export function words(values, answer) {
  const items = answer.map((word) =>
    element("li", { class: kind(word.upos), title: percent(word.score) }, element("span", {}, word.text), element("span", { class: "tag" }, word.upos)),
  );
  const rows = answer.map((word) => [word.text, word.upos, percent(word.score)]);
  const shown = element("ul", { class: "words text" }, ...items);
  return element("div", {}, shown, legend(answer.map((word) => word.upos)), asTable(["Word", "Tag", "Score"], rows));
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

/** What the tags that occur mean. */
function legend(tags) {
  const known = [...new Set(tags)].filter((tag) => tag in MEANINGS);
  return element("ul", { class: "legend" }, ...known.map((tag) => element("li", {}, element("span", { class: "tag" }, tag), ` ${MEANINGS[tag]}`)));
}

function kind(upos) {
  return Object.keys(KINDS).find((name) => KINDS[name].includes(upos)) ?? "function";
}
