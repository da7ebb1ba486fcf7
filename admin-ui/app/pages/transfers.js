// What was transferred, in and out, and how it went.
import { html } from "../html.js";
import * as api from "../api.js";
import { useGet } from "../live.js";
import { useStatistics } from "../stats.js";
import { Page, Card, Table, Badge, NetId, When, Got, Empty, Words } from "../parts.js";
import { clock, compact, count, host, micros, octets, plural } from "../text.js";
import { particulars } from "../acts.js";
import { useWidth } from "../charts.js";

const HIGH = 160;
const MIDDLE = 70;
const LEFT = 44;

export function Transfers() {
  const figures = useStatistics();
  return html`<${Page} title="Transfer history" lead="Zone transfers in from members' primaries, and out to replicas.">
    <div class="stack">
      <${Got} from=${figures}>${(data) => data && html`${data.transfers.length > 0 && html`<${Card} title="Records of each transfer"><${Picture} transfers=${data.transfers} /><//>`}<${Card} flush title="The last ones"><${Table} caption="Transfers" rows=${data.transfers} keyOf=${(one) => `${one.at}${one.peer}${one.zone}${one.kind}${one.octets}`} empty=${html`<${Empty} icon="transfers" title="None since the start">Transfers are listed from the start of the broker on. Add a source or a replica, and it appears here.<//>`} columns=${[
        { label: "When", show: (one) => html`<${When} at=${one.at} />` },
        { label: "Way", show: (one) => html`<${Badge} tone=${one.direction === "in" ? "info" : ""}>${one.direction === "in" ? "in from" : "out to"}<//> ${one.direction === "in" && /^[0-9a-f]{6}$/.test(one.peer) ? html`<${NetId} id=${one.peer} />` : html`<bdi>${one.peer}</bdi>`}` },
        { label: "Zone", show: (one) => html`<bdi class="small">${host(one.zone)}</bdi>` },
        { label: "Kind", show: (one) => one.kind.toUpperCase() },
        { label: "Records", num: true, show: (one) => count(one.records) },
        { label: "Size", num: true, show: (one) => octets(one.octets) },
        { label: "Took", num: true, show: (one) => micros(one.seconds * 1e6) },
        { label: "Result", show: (one) => (one.failure ? html`<${Badge} tone="bad">failed<//><p class="small"><${Words}>${one.failure}<//></p>` : html`<${Badge} tone="ok">done<//>`) },
      ]} /><//>`}<//>
      <${Committed} />
    </div>
  <//>`;
}

/** Each transfer at its time, as high as it is large; failures stand out. */
function Picture({ transfers }) {
  const [box, wide] = useWidth();
  const times = transfers.map((one) => Date.parse(one.at));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const end = Math.max(last, first + 60_000);
  const most = Math.max(Math.ceil(Math.log10(Math.max(...transfers.map((one) => one.records), 10))), 1);
  const size = (records) => 6 + (Math.log10(Math.max(records, 1)) / most) * 54;
  const x = (at) => LEFT + 8 + ((Date.parse(at) - first) / (end - first)) * (wide - LEFT - 16);
  const powers = Array.from({ length: most }, (_, place) => 10 ** (place + 1)).filter((_, place) => most < 4 || (most - place) % 2 === 1);
  const failed = transfers.filter((one) => one.failure).length;
  const words = `${plural(transfers.length, "transfer")}, ${transfers.filter((one) => one.direction === "in").length} in and ${transfers.filter((one) => one.direction === "out").length} out; ${failed} failed.`;
  return html`<div ref=${box}><svg class="chart" viewBox=${`0 0 ${wide} ${HIGH}`} role="img" aria-label=${words}>
      ${[0, ...powers].flatMap((records) => (records ? [MIDDLE - size(records), MIDDLE + size(records)] : [MIDDLE]).map((y) => html`<line class="rule" x1=${LEFT} x2=${wide} y1=${y} y2=${y} />${records > 0 && html`<text x=${LEFT - 6} y=${y + 4} text-anchor="end">${compact(records)}</text>`}`))}
      ${transfers.map((one) => {
        const high = size(one.records);
        const up = one.direction === "in";
        return html`<rect class=${one.failure ? "f5" : up ? "f2" : "f1"} x=${x(one.at) - 3} y=${up ? MIDDLE - high : MIDDLE} width="6" height=${high} rx="2"><title>${`${one.direction} ${one.peer} ${one.kind} ${one.records} records${one.failure ? `: ${one.failure}` : ""}`}</title></rect>`;
      })}
      <text x=${LEFT} y=${HIGH - 3}>${clock(first)}</text><text x=${wide} y=${HIGH - 3} text-anchor="end">${clock(end)}</text>
    </svg></div>
    <ul class="legend"><li><i class="b2"></i>in, upwards</li><li><i class="b1"></i>out, downwards</li><li><i class="b5"></i>failed</li><li>as high as it has records, in powers of ten</li></ul>`;
}

function Committed() {
  const rows = useGet("/audit", { act: "source.transfer", limit: 50, order: "desc" }, ["source."]);
  return html`<${Card} flush title="Transfers that changed something, from the audit"><${Got} from=${rows}>${({ items }) => html`<${Table} caption="Transfers that changed something" rows=${items} keyOf=${(row) => row.number} empty=${html`<${Empty} title="None yet">A transfer that changes devices leaves a row in the audit for good.<//>`} columns=${[
    { label: "When", show: (row) => html`<${When} at=${row.at} />` },
    { label: "NetID", show: (row) => html`<${NetId} id=${row.object} />` },
    { label: "What it did", show: (row) => html`<bdi class="small">${particulars(row.detail)}</bdi>` },
    { label: "Serial", num: true, show: (row) => row.serial },
  ]} />`}<//><//>`;
}
