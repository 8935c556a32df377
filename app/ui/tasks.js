import { bars, entities, span, words } from "./answers.js";
import { trees } from "./tree.js";

const text = { name: "text", label: "Text", rows: 3 };
const plain = { fields: [text], body: (values) => ({ inputs: values.text }) };

/** What people fill in for a task, the request made of it, and how its answer is drawn. */
export const TASKS = {
  ner: { ...plain, name: "Entities", about: "People, organisations, places and dates named in a text.", draw: entities },
  pos: { ...plain, name: "Parts of speech", about: "The part of speech of each word.", draw: words },
  dp: { ...plain, name: "Syntax", about: "Which word depends on which, a tree for each sentence.", draw: trees },
  nli: {
    name: "Inference",
    about: "Whether the second text follows from the first.",
    fields: [
      { name: "text", label: "Premise", rows: 2 },
      { name: "text_pair", label: "Hypothesis", rows: 2 },
    ],
    body: (values) => ({ inputs: { text: values.text, text_pair: values.text_pair } }),
    draw: (values, answer) => bars(answer[0]),
  },
  "zero-shot": {
    name: "Your labels",
    about: "Which of your own labels fits a text, judged by the model of inference.",
    fields: [
      { ...text, rows: 2 },
      { name: "labels", label: "Labels, with commas between", rows: 1 },
      { name: "template", label: "Sentence about a label, {} in its place", rows: 1 },
    ],
    body: (values) => ({
      inputs: values.text,
      parameters: {
        candidate_labels: values.labels.split(",").map((label) => label.trim()).filter(Boolean),
        hypothesis_template: values.template,
      },
    }),
    draw: (values, answer) => bars(answer),
  },
  qa: {
    name: "Questions",
    about: "The words of a passage that answer a question.",
    fields: [
      { name: "question", label: "Question", rows: 1 },
      { name: "context", label: "Passage", rows: 5 },
    ],
    body: (values) => ({ inputs: { question: values.question, context: values.context } }),
    draw: span,
  },
};

/** The tasks of a language that this page knows, in its order: a model of inference also answers for own labels. */
export function tasksOf(models, language) {
  const served = models.filter((model) => model.language === language);
  const judges = served.some((model) => ["entailment", "contradiction"].every((label) => model.labels.includes(label)));
  const names = new Set(served.map((model) => model.task));
  return Object.keys(TASKS).filter((name) => (name === "zero-shot" ? judges && names.has("nli") : names.has(name)));
}

export const modelTask = (task) => (task === "zero-shot" ? "nli" : task);
