// Members: the list, one of them, and the way in for a new one.
import { html, useState } from "../html.js";
import * as api from "../api.js";
import { useGet, useList } from "../live.js";
import { Page, Card, Table, Badge, State, Member, NetId, When, Got, Empty, Field, More, Words, Tile, Note, items } from "../parts.js";
import { confirm, fill, say } from "../dialogs.js";
import { count, day, host } from "../text.js";
import { Link, go, requery, sorted } from "../route.js";
import { useWho } from "../who.js";
import { inWords } from "../acts.js";
import { TokenCommand } from "./enrol.js";
import { CertificateTable } from "./certificates.js";

export function Members({ query }) {
  const who = useWho();
  const by = sorted(query, "name");
  const list = useList("/members", { limit: 250, text: query.text, suspended: query.suspended, sort: by.sort, order: by.order }, ["member.", "devices.", "netid.", "certificate.", "source.transfer", "move."]);
  const add = who.change && html`<a class="button primary" href="#/members/new">Enrol a member</a>`;
  const filtered = query.text || query.suspended;
  return html`<${Page} title="Members" lead="The operators of this federation: who may resolve devices, and who registers them." actions=${add}>
    <${Card} flush>
      <div class="filters">
        <${Field} label="Find" type="search" placeholder="Id or name" value=${query.text ?? ""} onInput=${(event) => requery({ ...query, text: event.currentTarget.value })} />
        <${Field} label="Show" as="select" value=${query.suspended ?? ""} options=${[["", "All members"], ["false", "Active"], ["true", "Suspended"]]} onChange=${(event) => requery({ ...query, suspended: event.currentTarget.value })} />
      </div>
      <${Got} from=${list}>${() => html`<${Table} caption="Members" sorted=${by} rows=${list.items} keyOf=${(member) => member.id}
        empty=${filtered ? html`<${Empty} icon="search" title="No member fits">Change the filter to see others.<//>` : html`<${Empty} icon="members" title="No members yet" action=${add}>Enrol the first operator: give it a name, its NetID and the address of its network server, and send it one command to run.<//>`}
        columns=${[
          { label: "Member", sort: "name", show: (member) => html`<${Member} id=${member.id} name=${member.name} />${member.name !== member.id && html`<div class="soft small mono">${member.id}</div>`}` },
          { label: "State", show: (member) => html`<${Standing} member=${member} />` },
          { label: "NetIDs", show: (member) => html`<${NetIdList} ids=${member.netids} />` },
          { label: "Devices", num: true, sort: "devices", show: (member) => count(member.devices) },
          { label: "Certificate until", sort: "certified_until", show: (member) => (member.certified_until ? html`<${When} at=${member.certified_until} />` : html`<span class="soft">none</span>`) },
          { label: "Since", sort: "since", show: (member) => day(member.since) },
        ]} /><${More} list=${list} shown=${list.items.length} />`}<//>
    <//>
  <//>`;
}

const NetIdList = ({ ids }) => (ids.length ? html`<ul class="inline-list">${ids.map((id) => html`<li><${NetId} id=${id} /></li>`)}</ul>` : html`<span class="soft">none</span>`);

const Standing = ({ member }) =>
  member.suspended ? html`<${Badge} tone="warn">suspended<//>` : member.certified_until ? html`<${Badge} tone="ok">active<//>` : html`<${Badge} tone="info">not enrolled<//>`;

export function MemberPage({ member: id }) {
  const who = useWho();
  const path = `/members/${api.seg(id)}`;
  const member = useGet(path, undefined, ["member.", "devices.", "netid.", "certificate.", "source.transfer", "move."]);
  const crumb = html`<a href="#/members">Members</a>`;
  const { data } = member;
  return html`<${Page} title=${data?.name ?? id} crumb=${crumb} lead=${data && html`<span class="mono">${data.id}</span> · member since ${day(data.since)}`} actions=${data && who.change && html`<${Acts} member=${data} path=${path} />`}>
    <${Got} from=${member}>${(known) => html`<div class="stack">
        ${known.suspended && html`<${Note} tone="warn" title="Suspended">Everything is refused to this member until it is resumed. The reason given: <${Words}>${known.suspended}<//><//>`}
        <div class="tiles">
          <${Tile} label="State" value=${known.suspended ? "Suspended" : known.certified_until ? "Active" : "Not enrolled"} tone=${known.suspended ? "warn" : known.certified_until ? "ok" : ""} note=${known.certified_until ? html`certificate until ${day(known.certified_until)}` : "has no certificate that is good"} />
          <${Tile} label="Devices" value=${count(known.devices)} href=${`#/devices?member=${known.id}`} note="registered" />
          <${Tile} label="NetIDs" value=${count(known.netids.length)} note=${known.netids.join(", ") || "none yet"} />
        </div>
        <div class="grid">
          <${Card} className="half" title="NetIDs" actions=${who.change && html`<a class="button" href=${`#/netids/new?member=${known.id}`}>Give it a NetID</a>`}>
            <${Networks} id=${id} />
          <//>
          <div class="half stack">
            <${Limits} id=${id} />
            <${Names} member=${known} path=${path} />
          </div>
        </div>
        <${Tokens} id=${id} />
        <${Card} flush title="Certificates"><${CertificateTable} values=${{ member: id, limit: 50, order: "desc" }} /><//>
        <${LastActs} id=${id} />
      </div>`}<//>
  <//>`;
}

function Acts({ member, path }) {
  const id = member.id;
  const suspend = () =>
    confirm({
      title: `Suspend ${member.name}?`, name: id, verb: "Suspend",
      text: "Its look-ups, transfers and requests are refused within a second, on open connections too. Its devices stay, and others go on resolving them. You can resume it at any time.",
      fields: html`<${Field} label="Reason" name="reason" required maxlength="255" hint="The member is told, and it stands in the audit." />`,
      act: ({ reason }) => api.post(`${path}/suspend`, { reason }),
      done: `${id} is suspended.`, undo: () => api.post(`${path}/resume`),
    });
  const resume = async () => {
    try {
      await api.post(`${path}/resume`);
      say(`${id} is active again.`, () => api.post(`${path}/suspend`, { reason: member.suspended }));
    } catch (problem) {
      say(problem.message);
    }
  };
  const rename = () =>
    fill({
      title: "Rename the member", verb: "Rename", act: ({ name }) => api.patch(path, { name }), done: "Renamed.",
      undo: () => api.patch(path, { name: member.name }),
      fields: html`<${Field} label="Name for people" name="name" value=${member.name} required maxlength="255" />`,
    });
  const grace = () =>
    fill({
      title: "Let it renew late", verb: "Give grace", act: ({ days }) => api.put(`${path}/grace`, { seconds: Number(days) * 86_400 }), done: "It may renew an expired certificate for that time.",
      undo: () => api.put(`${path}/grace`, { seconds: 0 }),
      fields: html`<p>A member whose certificate has expired cannot renew it by itself. With grace it can, for some days.</p><${Field} label="Days" name="days" type="number" min="1" max="30" value="3" required />`,
    });
  const gone = () =>
    confirm({
      title: `Remove ${member.name}?`, name: id, verb: "Remove",
      text: "Its certificates are revoked and it is no longer a member. It must hold no NetID any more: take those away first. This cannot be undone.",
      act: () => api.remove(path), done: () => { go("members"); return `${id} is removed.`; },
    });
  return html`<button onClick=${rename}>Rename</button>${!member.certified_until && html`<button onClick=${grace}>Grace</button>`}
    ${member.suspended ? html`<button class="primary" onClick=${resume}>Resume</button>` : html`<button class="danger" onClick=${suspend}>Suspend</button>`}
    <button class="danger" onClick=${gone}>Remove</button>`;
}

export function Networks({ id }) {
  const list = useGet("/netids", { member: id, limit: 1000 }, ["netid.", "devices.", "source.transfer", "move."]);
  return html`<${Got} from=${list}>${({ items }) => html`<${Table} caption="NetIDs" rows=${items} keyOf=${(network) => network.netid} empty=${html`<${Empty} icon="netids" title="No NetID">Without a NetID it can resolve devices, and register none.<//>`} columns=${[
    { label: "NetID", show: (network) => html`<${NetId} id=${network.netid} />` },
    { label: "Network server", show: (network) => html`<span class="mono small">${network.addresses.join(", ") || "–"}${network.port ? ` port ${network.port}` : ""}</span>` },
    { label: "Devices", num: true, show: (network) => html`<a href=${`#/devices?netid=${network.netid}`}>${count(network.devices)}</a>` },
  ]} />`}<//>`;
}

function Limits({ id }) {
  const who = useWho();
  const path = `/members/${api.seg(id)}/limits`;
  const limits = useGet(path, undefined, ["limits."]);
  const edit = (known) =>
    fill({
      title: "What it may register", verb: "Save", done: "The limits are set.", undo: () => api.put(path, known),
      act: ({ ranges, quota }) => api.put(path, { ranges: items(ranges), ...(quota ? { quota: Number(quota) } : {}) }),
      fields: html`<${Field} label="Ranges of DevEUIs" as="textarea" name="ranges" value=${known.ranges.join("\n")} hint="One a line: the first digits, a slash and how many bits count, as in 0004a30b/32. Empty: any device." /><${Field} label="Devices at most" type="number" min="0" name="quota" value=${known.quota ?? ""} hint="Empty: as many as it likes." />`,
    });
  return html`<${Got} from=${limits}>${(known) => html`<${Card} title="What it may register" actions=${who.change && html`<button class="small" onClick=${() => edit(known)}>Change</button>`}>
    <dl class="facts"><dt>Ranges</dt><dd>${known.ranges.length ? html`<ul class="inline-list">${known.ranges.map((range) => html`<li class="mono">${range}</li>`)}</ul>` : "any DevEUI"}</dd><dt>Devices at most</dt><dd>${known.quota == null ? "as many as it likes" : count(known.quota)}</dd></dl>
  <//>`}<//>`;
}

function Names({ member, path }) {
  const who = useWho();
  const approve = () => fill({ title: "Approve a name", verb: "Approve", act: ({ name }) => api.put(`${path}/names/${api.seg(name)}`, undefined), done: "Approved.", fields: html`<p>Certificates for the member's servers may have names of its NetIDs. A name outside the federation needs your approval: check that it is the member's.</p><${Field} label="Host name" name="name" required placeholder="lns.operator.example" />` });
  const withdraw = async (name) => {
    try {
      await api.remove(`${path}/names/${api.seg(name)}`);
      say(`${host(name)} is no longer approved.`, () => api.put(`${path}/names/${api.seg(name)}`, undefined));
    } catch (problem) {
      say(problem.message);
    }
  };
  return html`<${Card} title="Approved server names" actions=${who.change && html`<button class="small" onClick=${approve}>Approve a name</button>`}>
    ${(member.names ?? []).length ? html`<ul class="inline-list">${member.names.map((name) => html`<li><${Badge}><bdi>${host(name)}</bdi><//> ${who.change && html`<button class="quiet small" onClick=${() => withdraw(name)} aria-label=${`Withdraw ${host(name)}`}>✕</button>`}</li>`)}</ul>` : html`<p class="soft">None beside those of its NetIDs.</p>`}
  <//>`;
}

function Tokens({ id }) {
  const who = useWho();
  const list = useGet("/tokens", { member: id, limit: 20, order: "desc" }, ["token.", "certificate.enrol"]);
  const [made, keep] = useState(null);
  const make = () =>
    fill({
      title: "A token to enrol with", verb: "Make the token",
      act: async ({ hours }) => keep(await api.create("/tokens", { member: id, ttl: Number(hours) * 3600 })),
      fields: html`<p>It works once. Who has it gets a certificate of this member: send it on a channel you both trust.</p><${Field} label="Good for (hours)" name="hours" type="number" min="1" max="720" value="24" required />`,
    });
  return html`<${Card} flush title="Enrolment tokens" actions=${who.change && html`<button onClick=${make}>New token</button>`}>
    ${made && html`<div class="inset"><${TokenCommand} token=${made} /></div>`}
    <${Got} from=${list}>${({ items }) => html`<${TokenTable} rows=${items} />`}<//>
  <//>`;
}

export const TokenTable = ({ rows, withMember }) => html`<${Table} caption="Enrolment tokens" rows=${rows} keyOf=${(token) => token.id} empty=${html`<${Empty} icon="keys" title="No tokens">A token lets an operator get its first certificate. It is used once.<//>`} columns=${[
  { label: "Token", show: (token) => html`<span class="mono">${token.id}</span>` },
  { label: "Member", hide: !withMember, show: (token) => html`<${Member} id=${token.member} />` },
  { label: "State", show: (token) => (token.certificate ? html`<${Badge} tone="ok">used<//>` : new Date(token.expires) < Date.now() ? html`<${Badge}>expired<//>` : html`<${Badge} tone="info">waits<//>`) },
  { label: "Ends", show: (token) => html`<${When} at=${token.expires} />` },
  { label: "Certificate", show: (token) => (token.certificate ? html`<${Link} parts=${["certificates", token.certificate]}><span class="mono small">${token.certificate}</span><//>` : html`<span class="soft">–</span>`) },
]} />`;

function LastActs({ id }) {
  const rows = useGet("/audit", { object: id, limit: 10, order: "desc" }, ["member.", "limits.", "token."]);
  return html`<${Card} title="Last changes" actions=${html`<a href=${`#/audit?object=${encodeURIComponent(id)}`}>In the audit</a>`}><${Got} from=${rows}>${({ items }) => (items.length ? html`<ul class="recent">${items.map((row) => html`<li key=${row.number}><span>${inWords(row.act)}</span> <span class="soft small"><bdi>${row.actor}</bdi>, <${When} at=${row.at} /></span></li>`)}</ul>` : html`<p class="soft">None yet.</p>`)}<//><//>`;
}
