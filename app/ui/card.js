import { element, languageName, milliseconds, table } from "./dom.js";
import { get } from "./server.js";

const NAMES = { f1: "F1", las: "LAS", uas: "UAS", macro_f1: "macro F1", exact_match: "exact match" };
const LIVE = "Live, on this server";

/** Scores of baseline, teacher and student with their 95 % intervals, the licence, and the card as it is in the bundle. */
export function scores(card, path) {
  const parts = [scored(card.scores)];
  parts.push(element("dl", {}, element("dt", {}, "Licence"), element("dd", {}, card.licence || "not stated"), ...origin(card)));
  parts.push(whole(path));
  return parts;
}

/** How much faster than the teacher: live where the server runs both, and as measured when the bundle was made. */
export function speed(card, variant, live) {
  const parts = [];
  if (live?.n) parts.push(comparison(LIVE, live, `${live.n} ${live.n === 1 ? "request" : "requests"} run on both, here`));
  if (live?.n === 0) parts.push(titled(LIVE, element("p", { class: "hint" }, "A share of requests also runs the teacher. None yet.")));
  const said = card.benchmark?.[`teacher_fp32_against_student_${variant}`];
  if (said) {
    const built = { speedup: said.speedup, low: said.low, high: said.high, teacher: said.teacher_ms, student: said.student_ms };
    parts.push(comparison("When it was built", built, card.benchmark.conditions));
  }
  return parts;
}

/** What the live proof of /metrics says of a model: null where the server does not run its teacher. */
export function liveSpeed(metrics, language, task) {
  const value = (name, labels = {}) => series(metrics, name, { lang: language, task, mode: "single", ...labels });
  const n = value("bistil_shadow_pairs_total");
  if (n === undefined) return null;
  if (n === 0) return { n };
  const mean = (value("bistil_shadow_log_speedup_sum") - value("bistil_shadow_log_slowdown_sum")) / n;
  const variance = (value("bistil_shadow_log_speedup_sumsq") / n - mean ** 2) / (n - 1);
  const margin = n > 1 ? 1.96 * Math.sqrt(Math.max(variance, 0)) : NaN;
  const [teacher, student] = ["teacher", "student"].map(
    (role) => (1000 * value("bistil_shadow_duration_seconds_sum", { role })) / value("bistil_shadow_duration_seconds_count", { role }),
  );
  return { n, speedup: Math.exp(mean), low: Math.exp(mean - margin), high: Math.exp(mean + margin), teacher, student };
}

/** The value of the series that has these labels, in Prometheus' text format; undefined where there is none. */
function series(metrics, name, labels) {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  const line = metrics.split("\n").find((line) => line.startsWith(`${name}{`) && wanted.every((pair) => line.includes(pair)));
  return line && Number(line.slice(line.lastIndexOf(" ")));
}

function comparison(title, { speedup, low, high, teacher, student }, conditions) {
  const isFaster = speedup >= 1;
  const [times, from, to] = isFaster ? [speedup, low, high] : [1 / speedup, 1 / high, 1 / low];
  const interval = Number.isFinite(low) ? ` (${from.toFixed(2)} to ${to.toFixed(2)})` : "";
  const rows = [["teacher", teacher], ["student", student]].map(([name, value]) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span", { class: `filled ${name}` }));
    bar.firstChild.style.width = `${(100 * value) / Math.max(teacher, student)}%`;
    return element("li", {}, element("span", { class: "label" }, name), bar, element("span", { class: "share" }, milliseconds(value)));
  });
  const said = element("p", {}, element("strong", {}, `${times.toFixed(2)} times ${isFaster ? "faster" : "slower"}`), interval, " than its teacher.");
  return titled(title, said, element("ul", { class: "bars" }, ...rows), element("p", { class: "hint" }, conditions));
}

function titled(title, ...children) {
  return element("div", { class: "comparison", role: "group", "aria-label": title }, element("h3", {}, title), ...children);
}

function scored(models) {
  const numbers = Object.entries(models).filter(([, said]) => said !== null && typeof said === "object");
  const metrics = [...new Set(numbers.flatMap(([, said]) => Object.keys(said).filter((name) => typeof said[name] === "number")))];
  const columns = metrics.filter((name) => name !== "low" && name !== "high");
  const rows = numbers.map(([who, said]) => {
    const interval = "low" in said ? `${said.low.toFixed(1)} to ${said.high.toFixed(1)}` : "";
    return [who, ...columns.map((name) => said[name]?.toFixed(1) ?? ""), interval];
  });
  const head = ["Model", ...columns.map((name) => NAMES[name] ?? name), "95 % interval"];
  const shown = table(head, rows, "Scores on test data of the language, in per cent");
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores" }, shown);
}

function origin(card) {
  const rules = Object.entries(card.scores).map(([who, said]) => [who[0].toUpperCase() + who.slice(1), said?.rule]);
  const facts = [
    ...rules,
    ["Teacher", card.teacher?.source],
    ["Labels from", card.source_languages?.map(languageName).join(", ")],
    ["Made", card.created?.slice(0, 10)],
  ];
  return facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
}

function whole(path) {
  const text = element("pre", { tabindex: "0", role: "region", "aria-label": "The whole card" });
  const details = element("details", {}, element("summary", {}, "The whole card"), text);
  details.addEventListener("toggle", async () => {
    if (!details.open || text.textContent) return;
    text.textContent = await get(path, "text/markdown").catch((error) => error.message);
  });
  return details;
}
