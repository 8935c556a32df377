import { liveSpeed, scores, speed } from "./card.js";
import { byId, element, languageName, milliseconds } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { Refused, get, post, snippets, useKey } from "./server.js";
import { TASKS, modelTask, tasksOf } from "./tasks.js";

const STAGES = { parse: "read", tok: "tokenise", queue: "wait", fwd: "model", decode: "decode", serialize: "write" };
const RETRY_MS = 1000;
const LIVE_MS = 2000;

let models = [];
let latest = 0;
let nextLook;

byId("language").addEventListener("change", showTasks);
byId("tasks").addEventListener("change", showFields);
byId("example").addEventListener("change", fillExample);
byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
byId("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  start();
});
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
start();

/** Ask what is served, again while models are loading, and for a key where one is needed. */
async function start() {
  try {
    const { served, routes } = await get("./");
    models = (await get("v1/models")).models;
    byId("docs").hidden = !routes.docs;
    notice(models.length < served.length ? `Models are loading: ${models.length} of ${served.length} are ready.` : "");
    if (models.length < served.length) setTimeout(start, RETRY_MS);
    byId("key-form").hidden = true;
    if (models.length) showLanguages();
  } catch (error) {
    const asks = error instanceof Refused && error.status === 401;
    const was = byId("key-form").hidden;
    byId("key-form").hidden = !asks;
    notice(asks && was ? "" : error.message);
    if (asks) byId("key").focus();
  }
}

function showLanguages() {
  const languages = [...new Set(models.map((model) => model.language))].filter((code) => tasksOf(models, code).length);
  const options = languages.map((code) => element("option", { value: code }, languageName(code)));
  const [wanted] = location.hash.slice(1).split("/");
  const chosen = byId("language").value || wanted;
  const isFirst = byId("form").hidden;
  byId("language").replaceChildren(...options);
  byId("language").value = languages.includes(chosen) ? chosen : languages[0];
  byId("form").hidden = false;
  if (isFirst || byId("tasks").querySelectorAll("input").length !== tasksOf(models, language()).length) showTasks();
}

function showTasks() {
  const names = tasksOf(models, language());
  const wanted = task() ?? location.hash.split("/")[1];
  const chosen = names.includes(wanted) ? wanted : names[0];
  const radios = names.map((name) => {
    const radio = element("input", { type: "radio", name: "task", value: name });
    radio.checked = name === chosen;
    return element("label", {}, radio, element("span", {}, TASKS[name].name));
  });
  byId("tasks").replaceChildren(byId("tasks").firstElementChild, ...radios);
  showFields();
}

function showFields() {
  const { fields, about } = TASKS[task()];
  byId("about").textContent = about;
  history.replaceState(null, "", `#${language()}/${task()}`);
  const shown = fields.map(({ name, label, rows }) => {
    const area = element("textarea", { id: name, name, rows, lang: language(), dir: "auto", spellcheck: "false", required: "" });
    return element("div", { class: "field" }, element("label", { for: name }, label), area);
  });
  byId("fields").replaceChildren(...shown);
  const examples = EXAMPLES[language()]?.[task()] ?? [];
  const options = examples.map((example, index) => element("option", { value: index, lang: language() }, example.question ?? example.text));
  byId("example").replaceChildren(...options, element("option", { value: "" }, "Your own"));
  byId("example-field").hidden = !examples.length;
  for (const id of ["answer", "card", "code"]) byId(id).hidden = true;
  latest += 1;
  showCard();
  if (examples.length) fillExample();
}

function fillExample() {
  const index = byId("example").value;
  const example = index === "" ? {} : EXAMPLES[language()][task()][Number(index)];
  for (const { name } of TASKS[task()].fields) byId(name).value = example[name] ?? "";
  if (index !== "") run();
}

/** Ask the server, and draw its answer unless a later question has been asked since. */
async function run() {
  const turn = ++latest;
  const [chosen, about] = [TASKS[task()], `${language()}/${task()}`];
  const values = Object.fromEntries(chosen.fields.map(({ name }) => [name, byId(name).value]));
  const body = chosen.body(values);
  const code = snippets(`v1/${about}`, body);
  byId("curl").textContent = code.curl;
  byId("python").textContent = code.python;
  byId("code").hidden = byId("answer").hidden = false;
  byId("answer").setAttribute("aria-busy", "true");
  try {
    const said = await post(`v1/${about}`, body);
    if (turn !== latest) return;
    const drawn = chosen.draw(values, said.answer);
    drawn.lang = language();
    byId("problem").replaceChildren();
    byId("result").replaceChildren(drawn);
    byId("latency").replaceChildren(...latency(said));
    byId("status").textContent = `Answered in ${milliseconds(said.total)} by ${said.model.split("@")[0]}.`;
    showCard();
  } catch (error) {
    if (turn === latest) showProblem(error);
  } finally {
    if (turn === latest) byId("answer").removeAttribute("aria-busy");
  }
}

function latency({ total, stages }) {
  const inside = stages.reduce((sum, [, duration]) => sum + duration, 0);
  const bar = element("div", { class: "stages", "aria-hidden": "true" });
  const items = stages.map(([name, duration]) => {
    const part = element("span", { class: `stage ${name}` });
    part.style.flexGrow = duration;
    bar.append(part);
    return element("li", {}, element("span", { class: `dot ${name}`, "aria-hidden": "true" }), `${STAGES[name] ?? name} ${milliseconds(duration)}`);
  });
  const said = element("p", { class: "hint" }, `${milliseconds(inside)} in the server, ${milliseconds(Math.max(total - inside, 0))} on the way and in the browser`);
  return [element("h3", {}, "Time"), bar, element("ul", { class: "legend" }, ...items), said];
}

/** The card of the model, and how much faster than its teacher it is. */
async function showCard() {
  const model = models.find(isChosen);
  const path = `v1/${model.language}/${model.task}/card`;
  try {
    const card = await get(path);
    if (!isChosen(model)) return;
    if (byId("scores").dataset.path !== path) byId("scores").replaceChildren(...scores(card, path));
    byId("scores").dataset.path = path;
    await showSpeed(model, card);
    byId("card").hidden = false;
  } catch (error) {
    notice(error.message);
  }
}

/** Where the server also runs the teacher, what it has found is looked up again and again. */
async function showSpeed(model, card) {
  clearTimeout(nextLook);
  const live = liveSpeed(await get("metrics", "text/plain").catch(() => ""), model.language, model.task);
  if (!isChosen(model)) return;
  byId("speed").replaceChildren(...speed(card, model.variant, live));
  clearTimeout(nextLook);
  if (live !== null) nextLook = setTimeout(showSpeed, LIVE_MS, model, card);
}

function showProblem(error) {
  const { title, detail, errors = [], served } = error.problem ?? { detail: error.message };
  const parts = [element("p", {}, element("strong", {}, title ?? "No answer"), ` ${detail}`)];
  if (errors.length) parts.push(element("ul", {}, ...errors.map((one) => element("li", {}, element("code", {}, one.pointer), ` ${one.detail}`))));
  if (served) parts.push(element("p", {}, `Served are: ${served.join(", ")}`));
  if (error.status === 401) byId("key-form").hidden = false;
  byId("problem").replaceChildren(...parts);
  byId("result").replaceChildren();
  byId("latency").replaceChildren();
  byId("status").textContent = "";
}

async function copy(id) {
  try {
    await navigator.clipboard.writeText(byId(id).textContent);
    byId("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(byId(id));
    byId("copied").textContent = "Selected: copy it with Ctrl + C.";
  }
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

const language = () => byId("language").value;
const task = () => byId("tasks").querySelector("input:checked")?.value;
const isChosen = (model) => model.language === language() && model.task === modelTask(task());
