// What pages are put together from. Names and other people's words go through <bdi>, so that no mark of direction in one
// of them turns the words around it.
import { html, Fragment, useState, useEffect, useLayoutEffect, useRef, useId } from "./html.js";
import { ago, moment, pairs } from "./text.js";
import { Icon } from "./icons.js";
import { Link } from "./route.js";

/** Somebody's words. */
export const Words = ({ children }) => html`<bdi>${children}</bdi>`;
export const Member = ({ id, name }) => html`<${Link} parts=${["members", id]} class="clamp" title=${name || id}><bdi>${name || id}</bdi><//>`;
export const NetId = ({ id }) => html`<${Link} parts=${["netids", id]}><span class="mono">${id}</span><//>`;
export const Eui = ({ id, plain }) => (plain ? html`<span class="mono nowrap">${id}</span>` : html`<${Link} parts=${["devices", id]} title=${pairs(id)}><span class="mono">${id}</span><//>`);

export function When({ at }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 15_000);
    return () => clearInterval(timer);
  }, []);
  return at ? html`<time datetime=${at} title=${moment(at)}>${ago(at)}</time>` : html`<span class="soft">–</span>`;
}

export function Page({ title, lead, crumb, actions, children }) {
  const head = useRef(null);
  useLayoutEffect(() => {
    const words = typeof title === "string" ? title : "";
    document.title = words ? `${words} · dnsbroker` : "dnsbroker";
  }, [title]);
  return html`<div class="head">
      <div>
        ${crumb && html`<div class="crumb">${crumb}</div>`}
        <h1 tabindex="-1" ref=${head}><bdi>${title}</bdi></h1>
        ${lead && html`<p class="lead">${lead}</p>`}
      </div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
    ${children}`;
}

export function Card({ title, actions, flush, className = "", children }) {
  const id = useId();
  return html`<section class=${`card ${flush ? "flush" : ""} ${className}`} aria-labelledby=${title ? id : undefined}>
    ${(title || actions) && html`<header>${title && html`<h2 id=${id}>${title}</h2>`}${actions && html`<div class="actions">${actions}</div>`}</header>`}
    ${children}
  </section>`;
}

export const Tile = ({ label, value, note, tone = "", href }) =>
  html`<${href ? "a" : "div"} class=${`tile ${tone}`} href=${href}><span class="label">${label}</span><span class="value">${value}</span>${note && html`<span class="note">${note}</span>`}<//>`;

export const Badge = ({ tone = "", children }) => html`<span class=${`badge ${tone}`}>${children}</span>`;

export function Empty({ icon, title, children, action }) {
  return html`<div class="empty">${icon && html`<${Icon} name=${icon} />`}<p class="title">${title}</p>${children && html`<p>${children}</p>`}${action}</div>`;
}

export const Note = ({ tone = "", title, children, live }) => html`<div class=${`callout ${tone}`} role=${live}>${title && html`<strong>${title}</strong>`}${children}</div>`;

/** What went wrong, and what to do about it. */
export function Trouble({ error, retry }) {
  if (!error) return null;
  return html`<${Note} tone="bad" title=${error.status === 403 ? "This is not for you to do" : error.status === 404 ? "It is not there" : "That did not work"} live="alert">
    <bdi>${error.message}</bdi>
    ${retry && html`<p><button class="small" onClick=${retry}>Try again</button></p>`}
  <//>`;
}

/** What a hook of live.js has got: loading, trouble, or the children with the data. */
export function Got({ from, children }) {
  if (from.data === undefined) return from.error ? html`<${Trouble} error=${from.error} retry=${from.reload} />` : html`<p class="loading" role="status">Loading…</p>`;
  return html`<${Fragment}>${from.error && html`<${Trouble} error=${from.error} retry=${from.reload} />`}${children(from.data)}<//>`;
}

/** The head of a column: a button where the list can be sorted by it. */
function Head({ column: { label, num, sort }, sorted }) {
  const words = label || html`<span class="hidden">Actions</span>`;
  if (!sort || !sorted) return html`<th scope="col" role="columnheader" class=${num ? "num" : ""}>${words}</th>`;
  const turned = sorted.sort === sort && (sorted.order === "desc" ? "descending" : "ascending");
  return html`<th scope="col" role="columnheader" class=${`sorts ${num ? "num" : ""}`} aria-sort=${turned || undefined}><button type="button" onClick=${() => sorted.turn(sort)}>${words}<span class="turn" aria-hidden="true">${{ ascending: "↑", descending: "↓" }[turned] ?? "↕"}</span></button></th>`;
}

/**
 * A table. `columns`: `{label, show(row), num?, hide?, sort?}`; with `sorted` (see route.js) those that have `sort`, the API's
 * word, sort it. Rows become cards on a phone; the roles say all the same that it is a table.
 */
export function Table({ caption, columns, rows, keyOf, empty, sorted }) {
  if (!rows.length) return empty ?? html`<${Empty} title="Nothing here">There is nothing to show.<//>`;
  const shown = columns.filter((column) => column && !column.hide);
  return html`<div class="scroll" tabindex="0" role="group" aria-label=${caption}>
    <table class=${`cards ${sorted ? "sorted" : ""}`} role="table">
      <caption class="hidden">${caption}</caption>
      <thead role="rowgroup"><tr role="row">${shown.map((column) => html`<${Head} column=${column} sorted=${sorted} />`)}</tr></thead>
      <tbody role="rowgroup">${rows.map((row) => html`<tr role="row" key=${keyOf(row)}>${shown.map((column) => html`<td role="cell" class=${column.num ? "num" : ""} data-label=${column.label || undefined}><div>${column.show(row)}</div></td>`)}</tr>`)}</tbody>
    </table>
  </div>`;
}

/** Goes on reading a list. */
export function More({ list, shown }) {
  const [busy, set] = useState(false);
  const [error, fail] = useState(null);
  if (!list.next) return null;
  const more = async () => {
    set(true);
    try {
      await list.more();
      fail(null);
    } catch (problem) {
      fail(problem);
    }
    set(false);
  };
  return html`<div class="more"><button onClick=${more} disabled=${busy}>${busy ? "Loading…" : "Show more"}</button> <span class="soft small">${shown} shown, there are more</span><${Trouble} error=${error} /></div>`;
}

/**
 * A field: label, input, hint. Whatever is not named here goes to the input. Who does not listen to it gives a value to begin
 * with: what was typed stays, whatever is drawn again around it.
 */
export function Field({ label, hint, wrong, as = "input", options, children, value, ...input }) {
  const id = useId();
  const heard = input.onInput || input.onChange;
  if (value !== undefined) input[heard ? "value" : "defaultValue"] = value;
  const about = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ") || undefined;
  const common = { id, "aria-describedby": about, "aria-invalid": wrong ? "true" : undefined, ...input };
  const control =
    as === "select"
      ? html`<select ...${{ ...common, defaultValue: undefined }}>${options.map(([one, words]) => html`<option key=${one} value=${one} selected=${value === one}>${words}</option>`)}</select>`
      : as === "textarea"
        ? html`<textarea ...${common}></textarea>`
        : html`<input autocomplete="off" spellcheck=${false} ...${common} />`;
  return html`<div class="field"><label for=${id}>${label}</label>${control}${children}${wrong && html`<div class="wrong" id=${`${id}-wrong`}>${wrong}</div>`}${hint && html`<div class="hint" id=${`${id}-hint`}>${hint}</div>`}</div>`;
}

export function Check({ label, hint, checked, ...input }) {
  const id = useId();
  if (checked !== undefined) input[input.onChange ? "checked" : "defaultChecked"] = checked;
  return html`<div class="check"><input type="checkbox" id=${id} ...${input} /><label for=${id}>${label}${hint && html`<br /><span class="soft small">${hint}</span>`}</label></div>`;
}

/** A form that says what went wrong and does not send twice. `act` gets the values by name. */
export function Form({ act, verb, tone = "primary", onCancel, cancel = "Cancel", children, disabled }) {
  const [busy, set] = useState(false);
  const [error, fail] = useState(null);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const submit = async (event) => {
    event.preventDefault();
    if (busy) return;
    const data = new FormData(event.currentTarget);
    const values = {};
    for (const name of new Set(data.keys())) values[name] = data.getAll(name).length > 1 ? data.getAll(name) : data.get(name);
    set(true);
    fail(null);
    try {
      await act(values, data);
    } catch (problem) {
      if (alive.current) fail(problem);
    }
    if (alive.current) set(false);
  };
  return html`<form onSubmit=${submit}>
    ${children}
    <${Trouble} error=${error} />
    <div class="form-end">
      ${onCancel && html`<button type="button" onClick=${onCancel}>${cancel}</button>`}
      <button class=${tone} disabled=${busy || disabled}>${busy ? "One moment…" : verb}</button>
    </div>
  </form>`;
}

/** Something to be copied: a command, a secret. */
export function Copy({ text, label = "Copy" }) {
  const [done, set] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      set(true);
      setTimeout(() => set(false), 2000);
    } catch {
      // The page may not: the text is there to be marked.
    }
  };
  return html`<div class="command"><pre>${text}</pre><button class="small" type="button" onClick=${copy} aria-label=${`${label} to the clipboard`}>${done ? "Copied" : "Copy"}</button></div>`;
}

export const Tabs = ({ label, tabs, now }) => html`<nav class="tabs" aria-label=${label}>${tabs.map(([parts, words]) => html`<${Link} parts=${parts} aria-current=${parts.join("/") === now ? "page" : undefined}>${words}<//>`)}</nav>`;

export function State({ of }) {
  const word = String(of ?? "");
  const tone = /^(valid|current|active|ok|ready)/.test(word) ? "ok" : /^(revoked|failing|expired|broken)/.test(word) ? "bad" : /^(suspended|held|offered|planned|prepared|stale)/.test(word) ? "warn" : /^(new|transferring)/.test(word) ? "info" : "";
  return html`<${Badge} tone=${tone}>${word}<//>`;
}

/** Splits what was typed into items: lines, commas, spaces. */
export const items = (text) => String(text ?? "").split(/[\s,;]+/).filter(Boolean);
