// What was transferred, in and out, and how it went.
import { html } from "../html.js";
import * as api from "../api.js";
import { useGet } from "../live.js";
import { useStatistics } from "../stats.js";
import { Page, Card, Table, Badge, NetId, When, Got, Empty, Words } from "../parts.js";
import { count, octets, clock, plural } from "../text.js";
import { particulars } from "../acts.js";
import { useWidth } from "../charts.js";

const HIGH = 150;

export function Transfers() {
  const figures = useStatistics();
  return html`<${Page} title="Transfer history" lead="Zone transfers in from members' primaries, and out to replicas.">
    <div class="stack">
      <${Got} from=${figures}>${(data) => data && html`${data.transfers.length > 0 && html`<${Card} title="Picture"><${Picture} transfers=${data.transfers} /><//>`}<${Card} flush title="The last ones"><${Table} caption="Transfers" rows=${data.transfers} keyOf=${(one) => `${one.at}${one.peer}${one.zone}${one.kind}${one.octets}`} empty=${html`<${Empty} icon="transfers" title="None since the start">Transfers are listed from the start of the broker on. Add a source or a replica, and it appears here.<//>`} columns=${[
        { label: "When", show: (one) => html`<${When} at=${one.at} />` },
        { label: "Way", show: (one) => html`<${Badge} tone=${one.direction === "in" ? "info" : ""}>${one.direction === "in" ? "in from" : "out to"}<//> ${one.direction === "in" && /^[0-9a-f]{6}$/.test(one.peer) ? html`<${NetId} id=${one.peer} />` : html`<bdi>${one.peer}</bdi>`}` },
        { label: "Zone", show: (one) => html`<bdi class="small">${one.zone}</bdi>` },
        { label: "Kind", show: (one) => one.kind.toUpperCase() },
        { label: "Records", num: true, show: (one) => count(one.records) },
        { label: "Size", num: true, show: (one) => octets(one.octets) },
        { label: "Took", num: true, show: (one) => `${one.seconds.toFixed(2)} s` },
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
  const most = Math.log10(Math.max(...transfers.map((one) => one.records), 10));
  const x = (at) => 20 + ((Date.parse(at) - first) / Math.max(last - first, 1000)) * (wide - 40);
  const failed = transfers.filter((one) => one.failure).length;
  const words = `${plural(transfers.length, "transfer")}, ${transfers.filter((one) => one.direction === "in").length} in and ${transfers.filter((one) => one.direction === "out").length} out; ${failed} failed.`;
  return html`<div ref=${box}><svg class="chart" viewBox=${`0 0 ${wide} ${HIGH}`} role="img" aria-label=${words}>
      <line class="rule" x1="20" x2=${wide - 20} y1="76" y2="76" />
      ${transfers.map((one) => {
        const high = 8 + (Math.log10(Math.max(one.records, 1)) / most) * 52;
        const up = one.direction === "in";
        return html`<rect class=${one.failure ? "f5" : up ? "f2" : "f1"} x=${x(one.at) - 3} y=${up ? 76 - high : 76} width="6" height=${high} rx="2"><title>${`${one.direction} ${one.peer} ${one.kind} ${one.records} records${one.failure ? `: ${one.failure}` : ""}`}</title></rect>`;
      })}
      <text x="20" y=${HIGH - 3}>${clock(first)}</text><text x=${wide - 20} y=${HIGH - 3} text-anchor="end">${clock(last)}</text>
    </svg></div>
    <ul class="legend"><li><i class="b2"></i>in</li><li><i class="b1"></i>out</li><li><i class="b5"></i>failed</li><li>the height tells the records, in powers of ten</li></ul>`;
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
