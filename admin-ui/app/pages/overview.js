// What an administrator wants to know first: is all well, what happens, what waits for me.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { useStatistics } from "../stats.js";
import { Page, Card, Tile, Badge, Member, When, Got, Empty, Words } from "../parts.js";
import { RateChart, LatencyChart, Bars, Split, Timeline, RESULTS, total } from "../charts.js";
import { count, rate, micros, plural, host } from "../text.js";
import { useWho } from "../who.js";
import { describe } from "../acts.js";

const soon = (at, days) => (new Date(at) - Date.now()) / 86_400_000 < days;

export function Overview() {
  const who = useWho();
  const status = useGet("/status", undefined, ["devices.", "member.", "netid.", "certificate.", "source.", "ca.", "zone.", "move.", "claim."]);
  const figures = useStatistics();
  const members = useGet("/members", { limit: 1000 }, ["member.", "devices.", "netid.", "source.transfer", "certificate."]);
  return html`<${Page} title="Overview" lead=${html`The federation <strong>${host(who.federation)}</strong> at a glance.`}>
    <div class="stack">
      <${Got} from=${status}>${(status) => html`<${Health} status=${status} figures=${figures.data} />`}<//>
      <div class="grid">
        <div class="two-thirds stack">
          <${Live} figures=${figures} />
          <${Shares} figures=${figures.data} members=${members.data?.items} />
        </div>
        <div class="third stack">
          <${Todo} status=${status.data} figures=${figures.data} members=${members.data?.items} />
          <${Recent} />
        </div>
      </div>
    </div>
  <//>`;
}

function Health({ status, figures }) {
  const now = figures?.seconds.at(-1);
  const lookups = now ? total(now.answers) : null;
  return html`<div class="tiles">
    <${Tile} label="Health" value=${status.ready ? "All well" : "Read only"} tone=${status.ready ? "ok" : "bad"} note=${status.ready ? html`up since <${When} at=${status.started} />` : status.trouble} />
    <${Tile} label="Devices" value=${html`<span id="device-count">${count(status.devices)}</span>`} note="registered" href="#/devices" />
    <${Tile} label="Members" value=${count(status.members)} note=${plural(status.netids, "NetID")} href="#/members" />
    ${lookups !== null && html`<${Tile} label="Look-ups" value=${html`<span id="lookup-rate">${rate(lookups)}</span>/s`} note=${now.latency ? `99 of 100 within ${micros(now.latency.p99)}` : plural(figures.connections, "open connection")} />`}
    <${Tile} label="Serial" value=${html`<span class="mono">${status.serial}</span>`} note="of the private zones" href="#/settings" />
    <${Tile} label="Audit" value=${count(status.audit.number)} note="rows, chained" href="#/audit" />
  </div>`;
}

function Live({ figures }) {
  if (figures.data === null) return html`<${Card} title="Look-ups"><${Empty} icon="overview" title="This broker tells no live figures">Look-up rates and latencies are in the metrics for Prometheus, at the address that the settings name.<//><//>`;
  return html`<${Card} title="Look-ups a second"><${Got} from=${figures}>${(data) =>
      data.seconds.length > 1
        ? html`<${RateChart} pulses=${data.seconds} />`
        : html`<p class="loading">The first seconds are being counted…</p>`}<//><//>
    <${Card} title="Time to answer"><${Got} from=${figures}>${(data) => html`<${LatencyChart} pulses=${data.seconds.length > 1 ? data.seconds : []} />`}<//><//>`;
}

function Shares({ figures, members }) {
  const who = useWho();
  const held = [...(members ?? [])].sort((a, b) => b.devices - a.devices);
  const top = held.filter((member) => member.devices).slice(0, 8);
  return html`<${Card} title="Devices by member" actions=${html`<a href="#/members">All members</a>`}>
      ${top.length
        ? html`<${Bars} items=${top.map((member) => ({ key: member.id, label: html`<${Member} id=${member.id} name=${member.name} />`, value: member.devices }))} rest=${held.filter((member) => member.devices).length - top.length} />`
        : html`<${Empty} icon="devices" title="No devices yet" action=${who.change && html`<a class="button primary" href="#/imports">Import a list</a>`}>Add a member with a NetID, then import the list of its devices.<//>`}
    <//>
    ${figures && html`<div class="grid">
      <${Card} className="half" title="Devices by OUI">${figures.ouis?.length
        ? html`<${Bars} colour=${2} items=${figures.ouis.slice(0, 8).map((oui) => ({ key: oui.oui, label: html`<a class="mono" href=${`#/devices?prefix=${oui.oui}`}>${oui.oui}</a>`, value: oui.devices }))} rest=${figures.ouis.length - 8} />`
        : html`<p class="soft">The first six digits of a DevEUI name who made the device. Counts appear with the first list.</p>`}<//>
      <${Card} className="half" title="Results since the start"><${Split} unit="" parts=${RESULTS.map(([name, label, colour]) => ({ label, colour, value: figures.answers[name] ?? 0 }))} /><//>
    </div>`}`;
}

/** What waits for somebody. Each line says what to do. */
function Todo({ status, figures, members }) {
  const sources = useData(() => api.all("/sources"), [], ["source."]);
  const claims = useGet("/claims", { limit: 100 }, ["claim.", "devices.", "move."]);
  const moves = useGet("/moves", { limit: 100 }, ["move."]);
  const valid = useData(() => api.all("/certificates", { state: "valid" }, 5000), [], ["certificate."]);
  const lines = [];
  const add = (key, tone, badge, words) => lines.push(html`<li key=${key}><${Badge} tone=${tone}>${badge}<//> <span>${words}</span></li>`);
  for (const source of sources.data?.filter((source) => ["failing", "held", "expired"].includes(source.state)) ?? []) {
    add(`s${source.netid}`, source.state === "held" ? "warn" : "bad", source.state, html`<a href=${`#/sources/${source.netid}`}>Source of ${source.netid}</a>: <${Words}>${source.held ?? source.error ?? "look at it"}<//>`);
  }
  const open = claims.data?.items.filter((claim) => !claim.rejected).length ?? 0;
  if (open) add("claims", "warn", "claims", html`<a href="#/claims">${plural(open, "claim")}</a> to decide: two members list the same device`);
  if (moves.data?.items.length) add("moves", "info", "moves", html`<a href="#/moves">${plural(moves.data.items.length, "move")}</a> under way`);
  for (const end of status?.certificates.filter((end) => soon(end.not_after, 30)) ?? []) add(`c${end.name}`, soon(end.not_after, 7) ? "bad" : "warn", "certificate", html`<a href="#/ca">${end.name}</a> ends <${When} at=${end.not_after} />`);
  for (const [number, notice] of (status?.notices ?? []).entries()) add(`n${number}`, "warn", "notice", html`<${Words}>${notice}<//>`);
  for (const end of status?.overdue.slice(0, 5) ?? []) add(`o${end.name}`, "warn", "overdue", html`<${Member} id=${end.name} /> has not renewed; its certificate ends <${When} at=${end.not_after} />`);
  const without = members?.filter((member) => !member.certified_until && !member.suspended) ?? [];
  if (without.length) add("without", "info", "to enrol", html`${plural(without.length, "member")} without a certificate: ${without.slice(0, 3).map((member, place) => html`${place > 0 && ", "}<${Member} id=${member.id} name=${member.name} />`)}${without.length > 3 && " …"}`);
  const suspended = members?.filter((member) => member.suspended) ?? [];
  if (suspended.length) add("suspended", "warn", "suspended", html`${plural(suspended.length, "member")}: ${suspended.slice(0, 3).map((member, place) => html`${place > 0 && ", "}<${Member} id=${member.id} name=${member.name} />`)}`);
  const ends = (valid.data ?? []).map((one) => ({ label: one.member ?? one.replica ?? one.names[0] ?? one.serial, at: one.not_after, renew: one.renew_at }));
  return html`<${Card} title="Waiting for you">
      ${lines.length ? html`<ul class="todo">${lines}</ul>` : html`<p class="soft">Nothing waits. Claims, sources in trouble and certificates about to end appear here.</p>`}
    <//>
    <${Card} title="Certificates by their end" actions=${html`<a href="#/certificates">All</a>`}>
      ${ends.length ? html`<${Timeline} items=${ends} />` : html`<p class="soft">No member has a certificate yet.</p>`}
    <//>`;
}

function Recent() {
  const rows = useGet("/audit", { limit: 8, order: "desc" }, [""]);
  return html`<${Card} title="Last changes" actions=${html`<a href="#/audit">Audit</a>`}><${Got} from=${rows}>${({ items }) => html`<ul class="recent">${items.map((row) => html`<li key=${row.number}><span>${describe(row)}</span> <span class="soft small"><bdi>${row.actor}</bdi>, <${When} at=${row.at} /></span></li>`)}</ul>`}<//><//>`;
}
