// The broker's figures: once as a whole, then second by second from the stream.
import { useState, useEffect } from "./html.js";
import { useData, useEvents } from "./live.js";
import * as api from "./api.js";

const KEPT = 300;

/** `null` where this broker tells no figures. `fresh` asks again every so many milliseconds where no stream brings them. */
export function useStatistics({ fresh = 5000 } = {}) {
  const ask = () => api.get("/statistics").catch((problem) => {
    if (problem.status === 404) return null;
    throw problem;
  });
  const whole = useData(ask, [], ["devices.", "certificate.", "source.", "claim.", "netid.", "member.", "move.", "zone."]);
  const [seconds, set] = useState([]);
  const [streamed, note] = useState(0);
  useEffect(() => {
    const from = whole.data?.seconds ?? [];
    set((now) => (now.length && from.length && now.at(-1).at > from.at(-1).at ? now : from));
  }, [whole.data]);
  useEvents((event) => {
    if (event.kind !== "statistics") return;
    note(Date.now());
    set((now) => (now.at(-1)?.at === event.data.at ? now : [...now.slice(1 - KEPT), event.data]));
  });
  useEffect(() => {
    if (whole.data === null) return;
    const timer = setInterval(() => Date.now() - streamed > fresh && document.visibilityState === "visible" && whole.reload(), fresh);
    return () => clearInterval(timer);
  }, [whole.reload, streamed, whole.data === null]);
  return { ...whole, data: whole.data && { ...whole.data, seconds } };
}
