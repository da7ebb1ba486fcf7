// The way to /api/v1: JSON in and out, problems as errors, the CSRF token where something changes. There is no other way.

const BASE = "/api/v1";
let csrf = null;
const watchers = new Set();

/** An error of the API: `code` is stable, `message` says what happened and what to do. */
export class Problem extends Error {
  constructor(status, code, detail, wait) {
    super(detail);
    this.status = status;
    this.code = code;
    this.wait = wait;
  }
}

/** Is called when the session turns out to be over. */
export function onLoggedOut(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

export function query(values) {
  const set = Object.entries(values ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
  return text ? `?${text}` : "";
}

/** One segment of a path. */
export const seg = (text) => encodeURIComponent(text);

async function send(method, path, { body, values, type, accept, signal, match, once } = {}) {
  const headers = {};
  if (accept) headers.accept = accept;
  if (body !== undefined) headers["content-type"] = type ?? "application/json";
  if (method !== "GET" && csrf) headers["x-csrf-token"] = csrf;
  if (match) headers["if-match"] = match;
  if (once) headers["idempotency-key"] = once;
  const payload = body === undefined ? undefined : type ? body : JSON.stringify(body);
  try {
    return await fetch(BASE + path + query(values), { method, headers, body: payload, signal, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The broker does not answer. It may be restarting: try again in a moment.");
  }
}

async function problem(response) {
  let detail = `The broker answered ${response.status}.`;
  let code = "error";
  try {
    const said = await response.json();
    detail = said.detail ?? said.title ?? detail;
    code = said.code ?? code;
  } catch {
    // No problem document: something between us and the broker answered.
  }
  return new Problem(response.status, code, detail, Number(response.headers.get("retry-after")) || null);
}

async function ask(method, path, options) {
  let response = await send(method, path, options);
  if (response.status === 403 && method !== "GET") {
    const said = await problem(response.clone());
    // Another tab took a new token; so do we, once.
    if (said.code === "csrf") {
      await session();
      response = await send(method, path, options);
    }
  }
  if (response.ok) return response;
  throw told(await problem(response));
}

/** Tells who waits for it that the session is over. */
function told(said) {
  if (said.status === 401 && ["session-over", "login-needed", "no-certificate", "session-needed"].includes(said.code)) watchers.forEach((watch) => watch(said));
  return said;
}

async function json(response) {
  return response.status === 204 ? null : response.json();
}

export const get = async (path, values, options) => json(await ask("GET", path, { values, ...options }));
export const post = async (path, body = {}, options) => json(await ask("POST", path, { body, ...options }));
/** Makes something; a repeat after a lost answer makes nothing twice. */
export const create = async (path, body) => json(await ask("POST", path, { body, once: crypto.randomUUID() }));
export const put = async (path, body, options) => json(await ask("PUT", path, { body, ...options }));
export const patch = async (path, body, options) => json(await ask("PATCH", path, { body, ...options }));
export const remove = async (path, options) => json(await ask("DELETE", path, options));

/** An object and its entity tag, so that a change can say what it has seen. */
export async function tagged(path) {
  const response = await ask("GET", path);
  return { data: await response.json(), tag: response.headers.get("etag") };
}

/** Raw octets: exports and backups. */
export const raw = (path, values, options) => ask("GET", path, { values, ...options });

/** All items of a list, page by page; bounded, since nobody reads more. */
export async function all(path, values = {}, bound = 10_000) {
  const items = [];
  let after;
  do {
    const page = await get(path, { limit: 1000, ...values, after });
    items.push(...page.items);
    after = page.next;
  } while (after && items.length < bound);
  return items;
}

/** Who is here; takes the CSRF token along. */
export async function session() {
  const response = await send("GET", "/session");
  if (!response.ok) {
    csrf = null;
    const said = await problem(response);
    if (said.status === 401) return null;
    throw said;
  }
  const known = await response.json();
  csrf = known.csrf ?? null;
  return known;
}

export async function login(name, password, code) {
  const response = await send("POST", "/session", { body: { name, password, ...(code ? { code } : {}) } });
  if (!response.ok) throw await problem(response);
  const known = await response.json();
  csrf = known.csrf ?? null;
  return known;
}

export async function logout() {
  await send("DELETE", "/session");
  csrf = null;
}

/** Sends a list and tells how much has gone: only XMLHttpRequest tells that. */
export function upload(path, values, body, type, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", BASE + path + query(values));
    request.setRequestHeader("content-type", type);
    if (csrf) request.setRequestHeader("x-csrf-token", csrf);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.upload.onload = () => onProgress(1);
    request.onerror = () => reject(new Problem(0, "unreachable", "The connection broke off. Nothing was changed unless the audit says so: look there, then send the list again."));
    request.onload = () => {
      let said = {};
      try {
        said = JSON.parse(request.responseText);
      } catch {
        // Falls through to the status.
      }
      if (request.status >= 200 && request.status < 300) resolve(said);
      else reject(told(new Problem(request.status, said.code ?? "error", said.detail ?? `The broker answered ${request.status}.`)));
    };
    request.send(body);
  });
}
