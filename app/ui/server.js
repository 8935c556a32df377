let key = "";

/** The server said no: `problem` is its RFC 9457 body. */
export class Refused extends Error {
  constructor(problem, response) {
    super(problem.detail);
    this.problem = problem;
    this.status = response.status;
  }
}

export function useKey(value) {
  key = value;
}

/** The answer's JSON, its time to the last byte and the server's own stages, in milliseconds. */
export async function post(path, body) {
  const started = performance.now();
  const response = await send(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const answer = await response.json();
  return { answer, total: performance.now() - started, stages: stages(response.headers.get("server-timing") ?? ""), model: response.headers.get("x-bistil-model") };
}

export async function get(path, accept = "application/json") {
  const response = await send(path, { headers: { accept } });
  return accept === "application/json" ? response.json() : response.text();
}

/** Server-Timing's entries as [name, milliseconds]. */
export function stages(header) {
  return [...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, duration]) => [name, Number(duration)]);
}

/** The request for a shell and for Python's standard library; a key is named, never shown. */
export function snippets(path, body) {
  const url = new URL(path, document.baseURI).href;
  const json = JSON.stringify(body);
  const quoted = json.replaceAll("'", "'\\''");
  const secret = key ? ` \\\n  -H "authorization: Bearer $BISTIL_KEY"` : "";
  const curl = `curl -s ${url} -H 'content-type: application/json'${secret} \\\n  -d '${quoted}'`;
  const headers = [`"content-type": "application/json"`, ...(key ? [`"authorization": "Bearer " + os.environ["BISTIL_KEY"]`] : [])];
  const python = [
    "import json",
    ...(key ? ["import os"] : []),
    "import urllib.request",
    "",
    `url = "${url}"`,
    `body = ${json}`,
    `headers = {${headers.join(", ")}}`,
    `request = urllib.request.Request(url, json.dumps(body).encode(), headers)`,
    "with urllib.request.urlopen(request) as response:",
    "    print(json.load(response))",
  ].join("\n");
  return { curl, python };
}

async function send(path, options) {
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw new Error("The server cannot be reached. Is it still running?", { cause: error });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ title: response.statusText, detail: `The server answered ${response.status}.` }));
  throw new Refused(problem, response);
}
