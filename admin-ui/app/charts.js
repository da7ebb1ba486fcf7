// Pictures of figures, as SVG. Each says in words what it shows; the figures are there as text as well.
import { html, useState, useRef, useLayoutEffect } from "./html.js";
import { clock, compact, count, day, daysLeft, micros, rate } from "./text.js";

/** The least that a picture is drawn for; else it is as wide as its place, so that its words are as large as all others. */
const NARROW = 280;
const HIGH = 190;
const LEFT = 46;
const LOW = 22;

/** The results of look-ups, in the order and colours in which they are shown everywhere. */
export const RESULTS = [
  ["found", "Found", 1],
  ["nxdomain", "Not registered", 3],
  ["nodata", "No such record", 2],
  ["refused", "Refused", 5],
  ["rejected", "Malformed", 4],
];

/** How wide the place of a picture is: `[ref, width]`. */
export function useWidth() {
  const place = useRef(null);
  const [wide, set] = useState(640);
  useLayoutEffect(() => {
    const measure = () => place.current && set(Math.max(Math.round(place.current.clientWidth), NARROW));
    const watch = new ResizeObserver(measure);
    watch.observe(place.current);
    measure();
    return () => watch.disconnect();
  }, []);
  return [place, wide];
}

function ceiling(value) {
  if (value <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * size).find((step) => step >= value) ?? value;
}

const sum = (answers) => RESULTS.reduce((all, [name]) => all + (answers[name] ?? 0), 0);
export const total = sum;

/** Lines across, each at a part of the height with its words. */
function Axes({ wide, ticks, first, last }) {
  const y = (part) => HIGH - LOW - part * (HIGH - LOW - 10);
  return html`${ticks.map(([part, words]) => html`<line class="rule" x1=${LEFT} x2=${wide} y1=${y(part)} y2=${y(part)} /><text x=${LEFT - 6} y=${y(part) + 4} text-anchor="end">${words}</text>`)}
    <text x=${LEFT} y=${HIGH - 5}>${first}</text><text x=${wide} y=${HIGH - 5} text-anchor="end">${last}</text>`;
}

const across = (place, places, wide) => LEFT + (place / Math.max(places - 1, 1)) * (wide - LEFT - 2);
const upwards = (value, top) => HIGH - LOW - (value / top) * (HIGH - LOW - 10);

/** Look-ups a second by result, stacked. */
export function RateChart({ pulses }) {
  const [place, wide] = useWidth();
  const top = ceiling(Math.max(...pulses.map((pulse) => sum(pulse.answers)), 2));
  const now = pulses.at(-1);
  let floor = pulses.map(() => 0);
  const areas = RESULTS.map(([name, , colour]) => {
    const under = floor;
    floor = floor.map((value, at) => value + (pulses[at].answers[name] ?? 0));
    const over = floor.map((value, at) => `${across(at, pulses.length, wide).toFixed(1)},${upwards(value, top).toFixed(1)}`);
    const back = under.map((value, at) => `${across(at, pulses.length, wide).toFixed(1)},${upwards(value, top).toFixed(1)}`).reverse();
    return html`<path class=${`area f${colour}`} d=${`M${over.join("L")}L${back.join("L")}Z`} />`;
  });
  const words = `Look-ups a second over the last ${Math.round(pulses.length / 60) || 1} minutes. Now ${rate(sum(now.answers))}, at most ${rate(Math.max(...pulses.map((pulse) => sum(pulse.answers))))}.`;
  return html`<div ref=${place}><svg class="chart" viewBox=${`0 0 ${wide} ${HIGH}`} role="img" aria-label=${words}>
      ${areas}<${Axes} wide=${wide} ticks=${[0, 0.5, 1].map((part) => [part, compact(part * top)])} first=${clock(pulses[0].at)} last=${clock(now.at)} />
    </svg></div>
    <ul class="legend">${RESULTS.map(([name, label, colour]) => html`<li><i class=${`b${colour}`}></i>${label} <b data-rate=${name}>${rate(now.answers[name] ?? 0)}/s</b></li>`)}</ul>`;
}

/** Percentiles of the time to answer. */
export function LatencyChart({ pulses }) {
  const [place, wide] = useWidth();
  const lines = [["p50", "Half", 1], ["p90", "9 of 10", 2], ["p99", "99 of 100", 3]];
  const timed = pulses.filter((pulse) => pulse.latency);
  if (!timed.length) return html`<div ref=${place}><p class="soft">No look-up was answered in these minutes, so there is nothing to time. Percentiles appear with the first one.</p></div>`;
  // Powers of ten: one slow second among quick ones would flatten all others.
  const low = Math.floor(Math.log10(Math.max(Math.min(...timed.map((pulse) => pulse.latency.p50)), 1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...timed.map((pulse) => pulse.latency.p99), 10))), low + 1);
  const part = (value) => Math.min(Math.max((Math.log10(Math.max(value, 1)) - low) / (high - low), 0), 1);
  const ticks = Array.from({ length: high - low + 1 }, (_, step) => [step / (high - low), micros(10 ** (low + step))]);
  const now = timed.at(-1).latency;
  const path = (name) => {
    let pen = "M";
    return pulses.map((pulse, at) => {
      if (!pulse.latency) {
        pen = "M";
        return "";
      }
      const point = `${pen}${across(at, pulses.length, wide).toFixed(1)},${upwards(part(pulse.latency[name]), 1).toFixed(1)}`;
      pen = "L";
      // A lone second is a dot.
      return pulses[at - 1]?.latency || pulses[at + 1]?.latency ? point : `${point}h1.5`;
    }).join("");
  };
  const words = `Time to answer a look-up. Last: half within ${micros(now.p50)}, 99 of 100 within ${micros(now.p99)}.`;
  return html`<div ref=${place}><svg class="chart" viewBox=${`0 0 ${wide} ${HIGH}`} role="img" aria-label=${words}>
      <${Axes} wide=${wide} ticks=${ticks} first=${clock(pulses[0].at)} last=${clock(pulses.at(-1).at)} />
      ${lines.map(([name, , colour]) => html`<path class=${`line s${colour}`} d=${path(name)} />`)}
    </svg></div>
    <ul class="legend">${lines.map(([name, label, colour]) => html`<li><i class=${`b${colour}`}></i>${label} within <b>${micros(now[name])}</b></li>`)}</ul>`;
}

/** Shares of a whole. */
export function Split({ parts, unit }) {
  const all = parts.reduce((all, part) => all + part.value, 0) || 1;
  return html`<div class="split" aria-hidden="true">${parts.filter((part) => part.value).map((part) => html`<i class=${`b${part.colour}`} style=${{ width: `${(part.value / all) * 100}%` }}></i>`)}</div>
    <ul class="legend">${parts.map((part) => html`<li><i class=${`b${part.colour}`}></i>${part.label} <b>${count(part.value)}</b>${unit}</li>`)}</ul>`;
}

/** The largest ones, as bars. `items`: `{key, label, value}`; a label may be an element. */
export function Bars({ items, rest, colour = 1 }) {
  const top = Math.max(...items.map((item) => item.value), 1);
  return html`<ol class="bars">${items.map((item) => html`<li key=${item.key}><span class="name" title=${item.key}>${item.label}</span><span class="rail" aria-hidden="true"><i class=${`b${colour}`} style=${{ width: `${(item.value / top) * 100}%` }}></i></span><span class="sum">${count(item.value)}</span></li>`)}</ol>
    ${rest > 0 && html`<p class="soft small">and ${count(rest)} more</p>`}`;
}

/** When certificates end, on a line from today. `items`: `{label, at, renew}`; what is due for renewal stands out. */
export function Timeline({ items, days = 90 }) {
  const [place, wide] = useWidth();
  const high = 96;
  const x = (at) => 16 + (Math.min(Math.max(daysLeft(at), 0), days) / days) * (wide - 32);
  const groups = new Map();
  for (const item of items) {
    const spot = Math.round(x(item.at) / 9);
    groups.set(spot, [...(groups.get(spot) ?? []), item]);
  }
  const soon = items.filter((item) => daysLeft(item.at) <= 7).length;
  const all = days <= 120 ? [0, 7, 30, 60, 90] : [0, 30, 90, 180, 365];
  // Words need room.
  const marks = all.filter((mark) => mark === 0 || (mark / days) * wide > 75);
  const words = `${items.length} certificates by their end within ${days} days; ${soon} end within a week.`;
  return html`<div ref=${place}><svg class="chart" viewBox=${`0 0 ${wide} ${high}`} role="img" aria-label=${words}>
    <line class="rule" x1="16" x2=${wide - 16} y1="66" y2="66" />
    ${marks.filter((mark) => mark <= days).map((mark) => {
      const at = 16 + (mark / days) * (wide - 32);
      return html`<line class="mark" x1=${at} x2=${at} y1="10" y2="70" /><text x=${at} y="86" text-anchor=${mark === 0 ? "start" : mark === days ? "end" : "middle"}>${mark === 0 ? "today" : mark === days ? `${mark}+ days` : `${mark} days`}</text>`;
    })}
    ${[...groups.values()].map((group) => {
      const at = x(group[0].at);
      const left = daysLeft(group[0].at);
      const due = group.some((item) => (item.renew ? new Date(item.renew) < Date.now() : daysLeft(item.at) <= 30));
      const tone = left <= 3 ? "f5" : due ? "f3" : "f1";
      return html`<g><title>${group.map((item) => `${item.label}: ${day(item.at)}`).join("\n")}</title><circle class=${tone} cx=${at} cy="66" r=${Math.min(5 + Math.sqrt(group.length) * 1.6, 15)} />${group.length > 1 && html`<text class="tag" x=${at} y=${60 - Math.min(5 + Math.sqrt(group.length) * 1.6, 15)} text-anchor="middle">${group.length}</text>`}</g>`;
    })}
  </svg></div>`;
}
