// Devices: find one in whatever form its DevEUI was written, see whose it is, how it resolves, what happened to it.
import { html, useState } from "../html.js";
import * as api from "../api.js";
import { useData, useGet, useList } from "../live.js";
import { Page, Card, Table, Badge, Member, NetId, Eui, When, Got, Empty, Field, Form, More, Words, Trouble, Note } from "../parts.js";
import { confirm, fill } from "../dialogs.js";
import { count, devEui, pairs, plural, host } from "../text.js";
import { go, requery } from "../route.js";
import { useWho } from "../who.js";
import { inWords } from "../acts.js";

export function Devices({ query }) {
  const who = useWho();
  const [text, set] = useState(query.prefix ?? "");
  const known = devEui(text);
  const list = useList("/devices", { limit: 100, member: query.member, netid: query.netid, prefix: query.prefix }, ["devices.", "source.transfer", "move.", "netid."]);
  const networks = useData(() => api.all("/netids", { member: who.member ?? undefined }), []);
  const type = (event) => {
    const text = event.currentTarget.value;
    set(text);
    const known = devEui(text);
    requery({ ...query, prefix: known.prefix ?? (known.eui || undefined) });
  };
  const search = (event) => {
    event.preventDefault();
    if (known.eui) go("devices", known.eui);
  };
  const sum = networks.data?.filter((network) => (!query.netid || network.netid === query.netid) && (!query.member || network.member === query.member)).reduce((all, network) => all + network.devices, 0);
  const importing = (who.change || who.member) && html`<a class="button primary" href="#/imports">Import a list</a>`;
  const filtered = query.prefix || query.netid || query.member;
  return html`<${Page} title="Devices" lead=${sum === undefined ? "" : query.member || query.netid ? `${plural(sum, "device")} of ${query.netid ? `NetID ${query.netid}` : query.member}.` : `${plural(sum, "device")} ${who.member ? "of yours" : "in the federation"}.`} actions=${importing}>
    <${Card} flush>
      <form class="filters" role="search" aria-label="Devices" onSubmit=${search}>
        <${Field} label="DevEUI" type="search" value=${text} onInput=${type} placeholder="0004a30b001c0530" wrong=${text && known.wrong && `This ${known.wrong}.`} hint="Any form: 00-04-A3-…, 0x…, a DNS name, or the first digits." />
        <${Field} label="NetID" as="select" value=${query.netid ?? ""} options=${[["", "All"], ...(networks.data ?? []).map((network) => [network.netid, `${network.netid} · ${network.member}`])]} onChange=${(event) => requery({ ...query, netid: event.currentTarget.value })} />
        ${query.member && html`<button type="button" onClick=${() => requery({ ...query, member: undefined })}>Only <bdi>${query.member}</bdi> ✕</button>`}
        <button class="primary" disabled=${!known.eui}>Open</button>
      </form>
      <${Got} from=${list}>${() => html`<${Table} caption="Devices" rows=${list.items} keyOf=${(device) => device.deveui}
        empty=${filtered ? html`<${Empty} icon="search" title="No device fits">Nothing registered begins so. A whole DevEUI can be opened all the same: its history may tell what became of it.<//>` : html`<${Empty} icon="devices" title="No devices yet" action=${importing}>Import a list, or let the broker fetch a zone from a member's own name server.<//>`}
        columns=${[
          { label: "DevEUI", show: (device) => html`<${Eui} id=${device.deveui} />` },
          { label: "NetID", show: (device) => html`<${NetId} id=${device.netid} />` },
          { label: "Member", hide: who.member, show: (device) => html`<${Member} id=${device.member} />` },
        ]} /><${More} list=${list} shown=${count(list.items.length)} />`}<//>
    <//>
  <//>`;
}

export function DevicePage({ device: id, query }) {
  const who = useWho();
  const known = devEui(id);
  if (!known.eui) return html`<${Page} title="Device" crumb=${html`<a href="#/devices">Devices</a>`}><${Trouble} error=${{ message: `${id} ${known.wrong ?? "is not a whole DevEUI: it has 16 digits"}.` }} /><//>`;
  return html`<${Known} id=${known.eui} query=${query} who=${who} />`;
}

function Known({ id, query, who }) {
  const crumb = html`<a href="#/devices">Devices</a>`;
  const device = useData(() => api.get(`/devices/${id}`).catch((problem) => (problem.code === "device-unknown" ? null : Promise.reject(problem))), [id], ["devices.", "source.transfer", "move.", "claim."]);
  const mine = device.data && (who.change || who.member === device.data.member);
  return html`<${Page} title=${id} crumb=${crumb} lead=${html`<span class="mono">${pairs(id)}</span>`} actions=${device.data && mine && html`<${Acts} device=${device.data} />`}>
    <div class="grid">
      <div class="half stack">
        <${Card} title="Home"><${Got} from=${device}>${(device) => device
          ? html`<dl class="facts"><dt>NetID</dt><dd><${NetId} id=${device.netid} /></dd><dt>Member</dt><dd>${who.member ? html`<bdi>${device.member}</bdi>` : html`<${Member} id=${device.member} />`}</dd><dt>Name</dt><dd class="mono small">${[...id].reverse().join(".")}.${host(who.deveuis)}</dd></dl>`
          : html`<${Empty} icon="devices" title=${who.member ? "Not a device of yours" : "Not registered"}>${who.member ? "Another member may have it, or nobody: look it up beside." : "No member has registered this device. Its history may tell more."}<//>`}<//><//>
        <${ClaimsOf} id=${id} who=${who} />
        <${History} id=${id} />
      </div>
      <div class="half"><${Resolve} id=${id} who=${who} as=${query.as} /></div>
    </div>
  <//>`;
}

function Resolve({ id, who, as }) {
  const members = useData(() => (who.member ? [] : api.all("/members")), []);
  const [asker, ask] = useState(as ?? "");
  const [answer, keep] = useState(null);
  const act = async ({ member }) => {
    ask(member ?? "");
    keep(await api.get(`/devices/${id}/lookup`, who.member ? {} : { as: member }));
  };
  return html`<${Card} title="Resolve it">
    <p class="soft">What the broker answers, and why: each step and each rule.</p>
    <${Form} act=${act} verb="Resolve">
      ${!who.member && html`<${Got} from=${members}>${(members) => html`<${Field} label="As" as="select" name="member" value=${asker} options=${[["", "anybody, over plain DNS"], ...members.map((member) => [member.id, `${member.name} (${member.id})`])]} />`}<//>`}
    <//>
    <div role="status">${answer && html`<div class="stack" id="answer"><p><${Badge} tone=${answer.answer.length && answer.rcode === "NOERROR" ? "ok" : "warn"}>${answer.rcode}<//> ${answer.member ? html`as <bdi>${answer.member}</bdi>` : "as anybody"}</p>
      <ol class="steps">${answer.steps.map((step) => html`<li><${Words}>${step}<//></li>`)}</ol>
      ${answer.answer.length > 0 && html`<pre class="answer mono">${answer.answer.join("\n")}</pre>`}</div>`}</div>
  <//>`;
}

function History({ id }) {
  const list = useGet(`/devices/${id}/history`, undefined, ["devices.", "source.transfer", "move.", "claim."]);
  const place = (from, to) => (from && to ? html`<${NetId} id=${from} /> → <${NetId} id=${to} />` : to ? html`registered under <${NetId} id=${to} />` : from ? html`taken out of <${NetId} id=${from} />` : "");
  return html`<${Card} title="History"><${Got} from=${list}>${({ items }) => (items.length
    ? html`<ol class="steps">${[...items].reverse().map((event) => html`<li><strong>${inWords(event.act)}</strong> ${place(event.from, event.to)}${event.among ? html` <span class="soft small">one of ${count(event.among)} in a list</span>` : ""}<br /><span class="soft small"><${When} at=${event.at} /> by <bdi>${event.actor}</bdi>, serial ${event.serial}</span></li>`)}</ol>`
    : html`<p class="soft">Nothing is known of this device.</p>`)}<//><//>`;
}

function ClaimsOf({ id, who }) {
  const list = useGet("/claims", { deveui: id, limit: 20 }, ["claim.", "devices.", "move."]);
  if (!list.data?.items.length) return null;
  return html`<${Note} tone="warn" title="Claimed">${list.data.items.map((claim) => html`<p><bdi>${claim.claimant}</bdi> lists this device under NetID ${claim.netid}, since <${When} at=${claim.since} />${claim.rejected ? html`; rejected: <${Words}>${claim.rejected}<//>` : ""}.</p>`)}<a href="#/claims">Settle it</a><//>`;
}

/** Seconds since 1970 as the broker wants them: RFC 3339, UTC. */
export const stamp = (local) => (local ? `${new Date(local).toISOString().slice(0, 19)}Z` : undefined);

/** The form that moves devices: for an administrator to any NetID at once or later, for a holder as an offer. */
export function moveForm(devices, who, { done } = {}) {
  const title = devices.length === 1 ? `Move ${devices[0]}` : "Move devices";
  fill({
    title, verb: who.member ? "Offer" : "Move",
    act: async (values) => {
      const list = devices.length ? devices : values.devices.split(/[\s,;]+/).filter(Boolean).map((text) => devEui(text).eui ?? text);
      const body = { devices: list, reason: values.reason, at: stamp(values.at), ...(who.member ? { to: values.to.trim() } : { netid: values.netid }) };
      return { moved: await api.create("/moves", body), list };
    },
    done: ({ moved }) => (moved.waits ? `Move ${moved.waits} waits for ${who.member ? "the receiver" : "its time"}.` : `${plural(moved.moved, "device")} moved.`),
    fields: () => {
      const networks = useData(() => api.all("/netids"), []);
      const others = [...new Set((networks.data ?? []).map((network) => network.member))].filter((member) => member !== who.member);
      return html`${!devices.length && html`<${Field} label="DevEUIs" as="textarea" name="devices" required hint="One a line, in any form." />`}
        ${who.member
          ? html`<p>You offer the devices to another member. Nothing changes until it accepts.</p><${Field} label="To member" as="select" name="to" options=${others.map((member) => [member, member])} />`
          : html`<${Field} label="To NetID" as="select" name="netid" options=${(networks.data ?? []).map((network) => [network.netid, `${network.netid} · ${network.member}`])} />`}
        <${Field} label="When" name="at" type="datetime-local" hint=${who.member ? "Empty: as soon as it is accepted." : "Empty: at once. A planned move shortens how long answers are cached, so that no one asks in vain."} />
        <${Field} label="Reason" name="reason" required maxlength="255" />`;
    },
  });
}

function Acts({ device }) {
  const who = useWho();
  const release = () =>
    confirm({
      title: `Release ${device.deveui}?`, name: device.deveui, verb: "Release",
      text: "Nobody has the device then: look-ups find nothing until a member registers it. To hand it over to somebody, move it instead.",
      fields: html`<${Field} label="Reason" name="reason" required=${!who.member} maxlength="255" />`,
      act: ({ reason }) => api.post("/devices/release", { devices: [device.deveui], ...(reason ? { reason } : {}) }),
      done: "The device is released.",
      undo: () => api.patch(`/members/${api.seg(device.member)}/netids/${api.seg(device.netid)}/devices`, { add: [device.deveui] }),
    });
  return html`<button class="primary" onClick=${() => moveForm([device.deveui], who)}>${who.member ? "Offer to another" : "Move"}</button><button class="danger" onClick=${release}>Release</button>`;
}
