// What stands before or beside a page: dialogs, questions, and messages with an undo.
import { html, useState, useEffect, useLayoutEffect, useRef, useId } from "./html.js";
import { Form, Field, Note } from "./parts.js";

let opened = () => {};
let shown = () => {};

/** Opens a dialog: `show(close)` is its content. */
export const open = (title, show, { wide } = {}) => opened({ title, show, wide, key: crypto.randomUUID() });

/** Says what was done; `undo` takes it back. */
export function say(text, undo) {
  shown({ text, undo, key: crypto.randomUUID() });
}

function Dialog({ title, show, wide, onClose }) {
  const box = useRef(null);
  const id = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = box.current;
    dialog.showModal();
    return () => {
      if (dialog.open) dialog.close();
      (before?.isConnected ? before : document.querySelector("h1"))?.focus();
    };
  }, []);
  return html`<dialog ref=${box} class=${wide ? "wide" : ""} aria-labelledby=${id} onClose=${onClose} onCancel=${onClose}>
    <h2 id=${id}><bdi>${title}</bdi></h2>
    ${show(onClose)}
  </dialog>`;
}

export function Dialogs() {
  const [now, set] = useState(null);
  opened = set;
  useEffect(() => {
    const gone = () => set(null);
    addEventListener("hashchange", gone);
    return () => removeEventListener("hashchange", gone);
  }, []);
  return now && html`<${Dialog} key=${now.key} ...${now} onClose=${() => set((open) => (open?.key === now.key ? null : open))} />`;
}

export function Toasts() {
  const [list, set] = useState([]);
  shown = (toast) => set((before) => [...before.slice(-2), toast]);
  const drop = (key) => set((before) => before.filter((toast) => toast.key !== key));
  return html`<div class="toasts" role="status" aria-live="polite">${list.map((toast) => html`<${Toast} key=${toast.key} toast=${toast} drop=${() => drop(toast.key)} />`)}</div>`;
}

function Toast({ toast, drop }) {
  const [held, hold] = useState(false);
  // It does not go while somebody is at it.
  useEffect(() => {
    if (held) return;
    const timer = setTimeout(drop, toast.undo ? 20_000 : 7_000);
    return () => clearTimeout(timer);
  }, [held]);
  const undo = async () => {
    drop();
    try {
      await toast.undo();
      say("Taken back.");
    } catch (problem) {
      say(`It could not be taken back: ${problem.message}`);
    }
  };
  return html`<div class="toast" onFocusIn=${() => hold(true)} onFocusOut=${() => hold(false)} onMouseEnter=${() => hold(true)} onMouseLeave=${() => hold(false)}><span><bdi>${toast.text}</bdi></span>${toast.undo && html`<button class="small" onClick=${undo}>Undo</button>`}<button class="small" onClick=${drop} aria-label="Dismiss">✕</button></div>`;
}

/**
 * Asks before something that cannot be taken back: its name has to be typed. `fields` are asked for as well, and `act` gets
 * their values.
 */
export function confirm({ title, text, name, verb, act, fields, done, undo }) {
  open(title, (close) => html`<${Confirm} ...${{ text, name, verb, act, fields, done, undo, close }} />`);
}

function Confirm({ text, name, verb, act, fields, done, undo, close }) {
  const [typed, set] = useState("");
  const right = !name || typed.trim() === name;
  const run = async (values) => {
    const result = await act(values);
    close();
    if (done) say(typeof done === "function" ? done(result) : done, undo);
  };
  return html`<${Form} act=${run} verb=${verb} tone="danger primary" onCancel=${close} disabled=${!right}>
    ${text && html`<${Note} tone="warn">${text}<//>`}
    <div>${fields}</div>
    ${name && html`<${Field} label=${html`Type <code><bdi>${name}</bdi></code> to confirm`} value=${typed} onInput=${(event) => set(event.currentTarget.value)} name="confirmation" />`}
  <//>`;
}

/** A form in a dialog. */
export function fill({ title, verb, act, fields, done, wide, undo }) {
  open(
    title,
    (close) => html`<${Form} verb=${verb} onCancel=${close} act=${async (values, data) => {
      const result = await act(values, data);
      if (result !== false) close();
      if (done && result !== false) say(typeof done === "function" ? done(result) : done, undo && (() => undo(result)));
    }}>${typeof fields === "function" ? html`<${fields} />` : fields}<//>`,
    { wide },
  );
}

/** Shows something once: a secret, a command. */
export function reveal(title, content) {
  open(title, (close) => html`${content}<div class="form-end"><button class="primary" onClick=${close}>I have kept it</button></div>`, { wide: true });
}
