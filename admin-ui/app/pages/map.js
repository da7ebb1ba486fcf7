// The federation as a picture: members around the broker, agreements and bans between them.
import { html, useMemo, useState } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Got, Empty, Table, Member, Badge, Field } from "../parts.js";
import { count, compact, plural } from "../text.js";
import { to } from "../route.js";
import { index, sight, byHolder } from "../rules.js";

const WIDE = 900;
const HIGH = 620;

export function MapPage() {
  const members = useData(() => api.all("/members"), [], ["member.", "devices.", "source.transfer", "netid."]);
  const policy = useGet("/policy", undefined, ["policy."]);
  const networks = useData(() => api.all("/netids"), [], ["netid."]);
  const sources = useData(() => api.all("/sources"), [], ["source."]);
  const replicas = useData(() => api.all("/replicas"), [], ["replica."]);
  return html`<${Page} title="Map" lead="The members and what is between them. A circle's size tells its devices.">
    <${Got} from=${members}>${(members) => html`<${Got} from=${policy}>${(policy) => (members.length
      ? html`<div class="stack"><${Graph} members=${members} policy=${policy} networks=${networks.data ?? []} sources=${sources.data ?? []} replicas=${replicas.data ?? []} /></div>`
      : html`<${Card}><${Empty} icon="map" title="Nobody to draw yet" action=${html`<a class="button primary" href="#/members/new">Enrol a member</a>`}>Members appear as soon as they are added.<//><//>`)}<//>`}<//>
  <//>`;
}

function place(members) {
  const ordered = [...members].sort((a, b) => b.devices - a.devices || a.id.localeCompare(b.id));
  const rings = ordered.length <= 24 ? [ordered] : ordered.length <= 80 ? [ordered.slice(0, 20), ordered.slice(20)] : [ordered.slice(0, 24), ordered.slice(24, 80), ordered.slice(80)];
  const spots = new Map();
  const most = Math.max(...members.map((member) => member.devices), 1);
  rings.forEach((ring, at) => {
    const part = (at + 1) / rings.length;
    ring.forEach((member, turn) => {
      const angle = (turn / ring.length) * 2 * Math.PI - Math.PI / 2 + at * 0.2;
      const size = members.length > 80 ? 6 : 9;
      spots.set(member.id, { x: WIDE / 2 + Math.cos(angle) * (WIDE / 2 - 120) * (rings.length === 1 ? 0.82 : 0.35 + 0.65 * part), y: HIGH / 2 + Math.sin(angle) * (HIGH / 2 - 55) * (rings.length === 1 ? 0.9 : 0.35 + 0.65 * part), r: size + Math.sqrt(member.devices / most) * (size * 2.2), angle, member });
    });
  });
  return spots;
}

function Graph({ members, policy, networks, sources, replicas }) {
  const spots = useMemo(() => place(members), [members]);
  const filled = new Set(sources.map((source) => source.member));
  const many = members.length > 40;
  const middle = { x: WIDE / 2, y: HIGH / 2 };
  const bend = (a, b) => `M${a.x},${a.y}Q${(a.x + b.x) / 2 + (middle.x - (a.x + b.x) / 2) * 0.35},${(a.y + b.y) / 2 + (middle.y - (a.y + b.y) / 2) * 0.35} ${b.x},${b.y}`;
  const holderOf = new Map(networks.map((network) => [network.netid, network.member]));
  const bans = policy.deny.map((ban) => [ban.asker, ban.holder ?? holderOf.get(ban.netid), ban]).filter(([a, b]) => spots.has(a) && spots.has(b));
  const agreements = policy.agreements.filter(([a, b]) => spots.has(a) && spots.has(b));
  const words = `${plural(members.length, "member")}, ${plural(agreements.length, "agreement")}, ${plural(bans.length, "ban")}; the default is ${policy.default}.`;
  return html`<${Card}>
      <svg class="chart graph" viewBox=${`0 0 ${WIDE} ${HIGH}`} role="group" aria-label=${words}>
        <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="arrow" d="M0,0L8,4L0,8z" /></marker></defs>
        ${[...spots.values()].map((spot) => html`<line class="link" x1=${middle.x} y1=${middle.y} x2=${spot.x} y2=${spot.y} stroke-dasharray=${spot.member.suspended ? "2 5" : undefined} />`)}
        ${agreements.map(([a, b]) => html`<path class="link agree" d=${bend(spots.get(a), spots.get(b))}><title>${a} and ${b} agree</title></path>`)}
        ${bans.map(([a, b]) => html`<path class="link ban" marker-end="url(#tip)" d=${bend(spots.get(a), spots.get(b))}><title>${a} is banned from ${b}</title></path>`)}
        <circle class="hub" cx=${middle.x} cy=${middle.y} r="17" /><text x=${middle.x} y=${middle.y + 36} text-anchor="middle">the broker</text>
        ${[...spots.values()].map(({ x, y, r, angle, member }) => html`<a href=${to("members", member.id)} key=${member.id} aria-label=${named(member)}><title>${named(member)}</title><circle class=${member.suspended ? "f3" : filled.has(member.id) ? "f2" : "f1"} cx=${x} cy=${y} r=${r} />${(!many || r > 14) && html`<text x=${x + Math.cos(angle) * (r + 8)} y=${y + Math.sin(angle) * (r + 12) + 4} text-anchor=${Math.cos(angle) > 0.3 ? "start" : Math.cos(angle) < -0.3 ? "end" : "middle"}>${tag(member)}</text>`}</a>`)}
      </svg>
      <ul class="legend"><li><i class="b1"></i>registers by lists and updates</li><li><i class="b2"></i>filled from its own primary</li><li><i class="b3"></i>suspended</li><li>— agreement</li><li>- - → banned</li></ul>
    <//>
    <${Card} title="In words"><dl class="facts"><dt>Default</dt><dd>${policy.default === "open" ? "open: everybody sees everybody" : "closed: only agreements"} (<a href="#/policy">policy</a>)</dd><dt>Agreements</dt><dd>${agreements.length ? agreements.slice(0, 12).map((pair) => pair.join(" – ")).join(", ") + (agreements.length > 12 ? " …" : "") : "none"}</dd><dt>Bans</dt><dd>${bans.length ? bans.slice(0, 12).map(([a, b, ban]) => `${a} from ${ban.netid ?? b}`).join(", ") + (bans.length > 12 ? " …" : "") : "none"}</dd><dt>Copies</dt><dd>${replicas.length ? replicas.map((replica) => replica.id).join(", ") : "no replica"}</dd></dl><//>`;
}

/** What stands beside a member, and what is said of it, which begins with that. */
const tag = (member) => `\u2068${short(member.name)}\u2069 · ${compact(member.devices)}`;
const named = (member) => `${tag(member)} ${member.devices === 1 ? "device" : "devices"}${member.suspended ? ", suspended" : ""}`;

/** Names are cut by characters, since SVG does not wrap; marks of direction are taken out. */
function short(name) {
  const plain = [...name.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")];
  return plain.length > 18 ? `${plain.slice(0, 17).join("")}…` : plain.join("");
}
