// The federation as a picture: members around the broker, agreements and bans between them.
import { html, useMemo } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Got, Empty } from "../parts.js";
import { compact, plural } from "../text.js";
import { to } from "../route.js";
import { useWho } from "../who.js";
import { useWidth } from "../charts.js";

/** A picture that is narrower has its words below the circles, and shorter ones. */
const NARROW = 620;

export function MapPage() {
  const who = useWho();
  const members = useData(() => api.all("/members"), [], ["member.", "devices.", "source.transfer", "netid."]);
  const policy = useGet("/policy", undefined, ["policy."]);
  const networks = useData(() => api.all("/netids"), [], ["netid."]);
  const sources = useData(() => api.all("/sources"), [], ["source."]);
  const replicas = useData(() => api.all("/replicas"), [], ["replica."]);
  return html`<${Page} title="Map" lead="The members and what is between them. A circle's size tells its devices.">
    <${Got} from=${members}>${(members) => html`<${Got} from=${policy}>${(policy) => (members.length
      ? html`<div class="stack"><${Graph} members=${members} policy=${policy} networks=${networks.data ?? []} sources=${sources.data ?? []} replicas=${replicas.data ?? []} /></div>`
      : html`<${Card}><${Empty} icon="map" title="Nobody to draw yet" action=${who.change && html`<a class="button primary" href="#/members/new">Enrol a member</a>`}>Members appear as soon as they are added.<//><//>`)}<//>`}<//>
  <//>`;
}

function place(members, wide, high) {
  const narrow = wide < NARROW;
  const [middle, side] = [{ x: wide / 2, y: high / 2 }, { x: wide / 2 - (narrow ? 56 : 120), y: high / 2 - 55 }];
  const ordered = [...members].sort((a, b) => b.devices - a.devices || a.id.localeCompare(b.id));
  const rings = ordered.length <= 24 ? [ordered] : ordered.length <= 80 ? [ordered.slice(0, 20), ordered.slice(20)] : [ordered.slice(0, 24), ordered.slice(24, 80), ordered.slice(80)];
  const spots = new Map();
  const most = Math.max(...members.map((member) => member.devices), 1);
  rings.forEach((ring, at) => {
    const part = (at + 1) / rings.length;
    ring.forEach((member, turn) => {
      const angle = (turn / ring.length) * 2 * Math.PI - Math.PI / 2 + at * 0.2;
      const size = members.length > 80 || narrow ? 6 : 9;
      const [across, down] = rings.length === 1 ? [narrow ? 1 : 0.82, 0.9] : [0.35 + 0.65 * part, 0.35 + 0.65 * part];
      spots.set(member.id, { x: middle.x + Math.cos(angle) * side.x * across, y: middle.y + Math.sin(angle) * side.y * down, r: size + Math.sqrt(member.devices / most) * (size * 2.2), angle, member });
    });
  });
  return spots;
}

function Graph({ members, policy, networks, sources, replicas }) {
  const [box, wide] = useWidth();
  const narrow = wide < NARROW;
  const room = narrow ? 9 : 18;
  const high = narrow ? Math.round(wide * 1.15) : Math.min(Math.round(wide * 0.68), 660);
  const spots = useMemo(() => place(members, wide, high), [members, wide, high]);
  const filled = new Set(sources.map((source) => source.member));
  const many = members.length > 40;
  const middle = { x: wide / 2, y: high / 2 };
  const bend = (a, b) => {
    const half = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    const [out, long] = [Math.hypot(half.x - middle.x, half.y - middle.y), Math.hypot(b.x - a.x, b.y - a.y) || 1];
    // Towards the middle; but who faces each other goes around the broker.
    const to = out > 70 ? { x: half.x + (middle.x - half.x) * 0.35, y: half.y + (middle.y - half.y) * 0.35 } : { x: half.x - ((b.y - a.y) / long) * 120, y: half.y + ((b.x - a.x) / long) * 120 };
    return `M${a.x},${a.y}Q${to.x},${to.y} ${b.x},${b.y}`;
  };
  const holderOf = new Map(networks.map((network) => [network.netid, network.member]));
  const bans = policy.deny.map((ban) => [ban.asker, ban.holder ?? holderOf.get(ban.netid), ban]).filter(([a, b]) => spots.has(a) && spots.has(b));
  const agreements = policy.agreements.filter(([a, b]) => spots.has(a) && spots.has(b));
  const words = `${plural(members.length, "member")}, ${plural(agreements.length, "agreement")}, ${plural(bans.length, "ban")}; the default is ${policy.default}.`;
  // Words beside a circle, or below it where there is no room beside.
  const wordsAt = ({ x, y, r, angle }) => (narrow ? { x, y: y + r + 13, "text-anchor": "middle" } : { x: x + Math.cos(angle) * (r + 8), y: y + Math.sin(angle) * (r + 12) + 4, "text-anchor": Math.cos(angle) > 0.3 ? "start" : Math.cos(angle) < -0.3 ? "end" : "middle" });
  return html`<${Card}>
      <div ref=${box}><svg class="chart graph" viewBox=${`0 0 ${wide} ${high}`} role="group" aria-label=${words}>
        <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="arrow" d="M0,0L8,4L0,8z" /></marker></defs>
        ${[...spots.values()].map((spot) => html`<line class="link" x1=${middle.x} y1=${middle.y} x2=${spot.x} y2=${spot.y} stroke-dasharray=${spot.member.suspended ? "2 5" : undefined} />`)}
        ${agreements.map(([a, b]) => html`<path class="link agree" d=${bend(spots.get(a), spots.get(b))}><title>${a} and ${b} agree</title></path>`)}
        ${bans.map(([a, b]) => html`<path class="link ban" marker-end="url(#tip)" d=${bend(spots.get(a), spots.get(b))}><title>${a} is banned from ${b}</title></path>`)}
        <circle class="hub" cx=${middle.x} cy=${middle.y} r="17" /><text x=${middle.x} y=${middle.y + 36} text-anchor="middle">the broker</text>
        ${[...spots.values()].map(({ member, ...at }) => html`<a href=${to("members", member.id)} key=${member.id} aria-label=${named(member, room)}><title>${named(member, room)}</title><circle class=${member.suspended ? "f3" : filled.has(member.id) ? "f2" : "f1"} cx=${at.x} cy=${at.y} r=${at.r} />${(!many || at.r > 14) && html`<text ...${wordsAt(at)}>${tag(member, room)}</text>`}</a>`)}
      </svg></div>
      <ul class="legend"><li><i class="b1"></i>registers by lists and updates</li><li><i class="b2"></i>filled from its own primary</li><li><i class="b3"></i>suspended</li><li>— agreement</li><li>- - → banned</li></ul>
    <//>
    <${Card} title="In words"><dl class="facts"><dt>Default</dt><dd>${policy.default === "open" ? "open: everybody sees everybody" : "closed: only agreements"} (<a href="#/policy">policy</a>)</dd><dt>Agreements</dt><dd>${agreements.length ? agreements.slice(0, 12).map((pair) => pair.join(" – ")).join(", ") + (agreements.length > 12 ? " …" : "") : "none"}</dd><dt>Bans</dt><dd>${bans.length ? bans.slice(0, 12).map(([a, b, ban]) => `${a} from ${ban.netid ?? b}`).join(", ") + (bans.length > 12 ? " …" : "") : "none"}</dd><dt>Copies</dt><dd>${replicas.length ? replicas.map((replica) => replica.id).join(", ") : "no replica"}</dd></dl><//>`;
}

/** What stands beside a member, and what is said of it, which begins with that. */
const tag = (member, room) => `\u2068${short(member.name, room)}\u2069 · ${compact(member.devices)}`;
const named = (member, room) => `${tag(member, room)} ${member.devices === 1 ? "device" : "devices"}${member.suspended ? ", suspended" : ""}`;

/** Names are cut by characters, since SVG does not wrap; marks of direction are taken out. */
function short(name, room) {
  const plain = [...name.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")];
  const fits = plain.findIndex((char) => (room -= /[a-z0-9 .,:;'’-]/.test(char) ? 1 : 1.5) < 0);
  return fits < 0 ? plain.join("") : `${plain.slice(0, fits).join("")}…`;
}
