// Where we are: the part of the address behind #. The server knows nothing of it.
import { html, useState, useEffect } from "./html.js";

export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { parts, query: Object.fromEntries(new URLSearchParams(query)), hash };
}

export function useRoute() {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => set(parse(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

export function to(...parts) {
  return `#/${parts.map((part) => encodeURIComponent(part)).join("/")}`;
}

export function go(...parts) {
  location.hash = to(...parts);
}

/** Changes the query of where we are, without a new entry in the history. */
export function requery(values) {
  const { parts } = parse(location.hash);
  const set = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(set).toString();
  history.replaceState(null, "", to(...parts) + (query ? `?${query}` : ""));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

/**
 * What a list is sorted by: `sort` and `order` as the address and the API have them, or what is usual; `turn` sorts by another
 * column, or by the same the other way around.
 */
export function sorted(query, usual, usually = "asc") {
  const { sort = usual, order = usually, ...rest } = query;
  return { sort, order, turn: (by) => requery({ ...rest, sort: by, order: by === sort && order !== "desc" ? "desc" : "asc" }) };
}

export const Link = ({ parts, children, ...rest }) => html`<a href=${to(...parts)} ...${rest}>${children}</a>`;
