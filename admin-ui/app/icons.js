// Pictures of a few lines each, for menus and empty places. They say nothing that words beside them do not say.
import { html } from "./html.js";

const PATHS = {
  overview: "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
  members: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c.4-3.6 3-5.5 6.500-5.500s6.100 1.900 6.500 5.500M16 4.500a3.200 3.200 0 0 1 0 6.200M18 14.800c2 .7 3.200 2.500 3.500 5.200",
  netids: "M4 7a3 3 0 1 0 6 0 3 3 0 0 0-6 0zM14 17a3 3 0 1 0 6 0 3 3 0 0 0-6 0zM9.500 9l5 6M17 4v6M14 7h6",
  map: "M12 5.500a2 2 0 1 0 0-.1M5.500 18a2 2 0 1 0 0-.1M18.500 18a2 2 0 1 0 0-.1M11 7.300 6.500 16M13 7.300l4.500 8.700M7.500 18h9",
  policy: "M4 4h16v16H4zM4 9.300h16M4 14.700h16M9.300 4v16M14.700 4v16",
  devices: "M7 9h10v9H7zM12 9V5M9 3.500c1.800-1.300 4.200-1.300 6 0M9.800 13.500h4.400",
  imports: "M12 4v10M8 10.500l4 4 4-4M4 17v3h16v-3",
  claims: "M5 21V4M5 5h11l-2 3.500 2 3.500H5",
  moves: "M4 8h14M14 4l4 4-4 4M20 16H6M10 12l-4 4 4 4",
  sources: "M5 6c0-1.700 3.100-3 7-3s7 1.300 7 3-3.100 3-7 3-7-1.300-7-3zM5 6v12c0 1.700 3.100 3 7 3s7-1.300 7-3V6M5 12c0 1.700 3.100 3 7 3s7-1.300 7-3",
  replicas: "M8 8h12v12H8zM4 16V4h12",
  transfers: "M4 18l5-6 4 3 7-9M15 6h5v5",
  certificates: "M5 4h14v11H5zM9 8h6M9 11h3M15 15v6l-2-1.300L11 21v-6",
  ca: "M12 3l7 3v5c0 4.700-2.900 8.300-7 10-4.100-1.700-7-5.300-7-10V6zM9 12l2 2 4-4",
  keys: "M8 15a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM11.500 11H21M18 11v3M15 11v2.500",
  people: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.500 21c.5-4.300 3.400-6.500 7.500-6.500s7 2.200 7.500 6.500",
  audit: "M6 3h9l4 4v14H6zM14 3v5h5M9 12h7M9 16h7",
  webhooks: "M4 12a8 8 0 0 1 16 0M8 12a4 4 0 0 1 8 0M12 12v8M9 17l3 3 3-3",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M13 7a2 2 0 1 0 4 0 2 2 0 0 0-4 0zM7 17a2 2 0 1 0 4 0 2 2 0 0 0-4 0z",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500 20 20",
  menu: "M4 7h16M4 12h16M4 17h16",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M18.700 5.300l-1.400 1.400M6.700 17.300l-1.400 1.400",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
};

export const Icon = ({ name }) => html`<svg viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name] ?? PATHS.overview} /></svg>`;
