// What happens at the broker, as it happens: one stream of events for the page, and hooks that ask again when something
// they show has changed. Where there is no stream, they ask every few seconds.
import { useState, useEffect, useRef, useCallback } from "./html.js";
import * as api from "./api.js";

const POLL = 10_000;
const SETTLE = 400;
const listeners = new Set();
const states = new Set();
let state = "off";
let stop = null;
let last = null;

function become(next) {
  if (state !== next) {
    state = next;
    states.forEach((set) => set(state));
  }
}

const tell = (event) => listeners.forEach((listen) => listen(event));

/** Server-sent events (HTML, section 9.2), read by hand: kinds are not known beforehand, and a refusal has to be seen. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { kind: "message", data: "" };
      for (const line of block.split("\n")) {
        const [, name, text] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
        if (name === "id") event.id = text;
        else if (name === "event") event.kind = text;
        else if (name === "data") event.data += text;
      }
      if (event.data) yield event;
    }
  }
}

async function run(signal, statistics) {
  // Whatever kind begins with a letter; and the statistics, which only those get who name them.
  const kinds = [..."abcdefghijklmnopqrstuvwxyz", ...(statistics ? ["statistics"] : [])].join(",");
  let wait = 1000;
  while (!signal.aborted) {
    try {
      const response = await api.raw("/events", { kinds, after: last ?? undefined }, { signal, accept: "text/event-stream" });
      become("live");
      if (wait > 1000) tell({ kind: "*" });
      wait = 1000;
      for await (const event of events(response)) {
        if (event.id) last = event.id;
        if (event.kind === "cut") break;
        try {
          tell({ ...event, data: JSON.parse(event.data) });
        } catch {
          // Not for us.
        }
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (error.status === 404) return become("poll");
      become("off");
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 15_000);
  }
}

export function start(statistics) {
  stop?.();
  last = null;
  const controller = new AbortController();
  run(controller.signal, statistics);
  const tick = setInterval(() => state !== "live" && document.visibilityState === "visible" && tell({ kind: "*" }), POLL);
  stop = () => {
    controller.abort();
    clearInterval(tick);
    become("off");
  };
}

export const end = () => stop?.();

export function useLiveState() {
  const [now, set] = useState(state);
  useEffect(() => {
    set(state);
    states.add(set);
    return () => states.delete(set);
  }, []);
  return now;
}

/** Calls back for each event. */
export function useEvents(listen) {
  const latest = useRef(listen);
  latest.current = listen;
  useEffect(() => {
    const call = (event) => latest.current(event);
    listeners.add(call);
    return () => listeners.delete(call);
  }, []);
}

/**
 * What a path says, asked again when an event's kind begins with one of `kinds`. `{data, error, loading, reload}`; what was
 * there before stays while it is asked again, and where other `deps` ask for the same in another order: `same` tells.
 */
export function useData(load, deps, kinds = [], same = JSON.stringify(deps)) {
  const [shown, set] = useState({ loading: true });
  const turn = useRef(0);
  const known = useRef(same);
  const again = useCallback(async () => {
    const mine = ++turn.current;
    try {
      const data = await load();
      if (mine === turn.current) set({ data, loading: false });
    } catch (error) {
      if (mine === turn.current && error.name !== "AbortError") set((before) => ({ data: before.data, error, loading: false }));
    }
  }, deps);
  useEffect(() => {
    const stays = known.current === same;
    known.current = same;
    set((before) => ({ data: stays ? before.data : undefined, loading: true }));
    again();
    return () => void (turn.current += 1);
  }, [again]);
  const timer = useRef(null);
  useEvents((event) => {
    if (timer.current || !kinds.length || (event.kind !== "*" && !kinds.some((kind) => event.kind.startsWith(kind)))) return;
    timer.current = setTimeout(() => {
      timer.current = null;
      again();
    }, SETTLE);
  });
  useEffect(() => () => clearTimeout(timer.current), []);
  return { ...shown, reload: again };
}

/** A path's answer, kept up to date. */
export function useGet(path, values, kinds) {
  const { sort, order, ...which } = values ?? {};
  return useData(() => api.get(path, values), [path, JSON.stringify(values ?? null)], kinds, JSON.stringify([path, which]));
}

/** A list, page after page: `more` asks for the next one. */
export function useList(path, values, kinds) {
  const key = JSON.stringify([path, values ?? null]);
  const asked = useRef(key);
  asked.current = key;
  const [rest, setRest] = useState({ items: [], next: undefined });
  // Who has gone on reading is not thrown back to the first page by what happens meanwhile.
  const first = useGet(path, values, rest.items.length ? [] : kinds);
  useEffect(() => setRest({ items: [], next: undefined }), [key]);
  // While another order is being asked for, the end of what is shown is no place in it.
  const next = first.loading ? undefined : rest.items.length ? rest.next : first.data?.next;
  const more = async () => {
    const page = await api.get(path, { ...values, after: next });
    if (asked.current === key) setRest({ items: [...rest.items, ...page.items], next: page.next });
  };
  const reload = () => {
    setRest({ items: [], next: undefined });
    return first.reload();
  };
  return { ...first, reload, items: first.data ? [...first.data.items, ...rest.items] : [], next, more };
}
