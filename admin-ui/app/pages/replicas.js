// Replicas: servers that may hold copies of the private zones.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Table, Badge, Member, When, Got, Empty, Field, Check, Note, items } from "../parts.js";
import { confirm, fill } from "../dialogs.js";
import { host } from "../text.js";
import { useWho } from "../who.js";

export function Replicas() {
  const who = useWho();
  const list = useGet("/replicas", { limit: 1000 }, ["replica."]);
  const members = useData(() => api.all("/members"), []);
  const body = (values) => ({ names: values.names, notify: items(values.notify), clear_text: values.clear_text === "on", ...(values.only ? { only: values.only } : {}), ...(values.holder ? { holder: values.holder } : {}), ...(values.notify_key ? { notify_key: values.notify_key } : {}) });
  const edit = (replica) =>
    fill({
      title: replica ? `Change replica ${replica.id}` : "Add a replica", verb: "Save", wide: true, done: "Saved.",
      act: (values) => api.put(`/replicas/${api.seg(replica?.id ?? values.id.trim())}`, body(values)),
      fields: () => {
        const everybody = (members.data ?? []).map((member) => [member.id, `${member.name} (${member.id})`]);
        const keys = useData(() => api.all("/keys"), []);
        return html`${!replica && html`<${Field} label="Id" name="id" required pattern="[a-z0-9](?:[a-z0-9\\-]*[a-z0-9])?" placeholder="mirror" />`}
          <div class="row"><${Field} label="Gets the devices of" as="select" name="only" value=${replica?.only ?? ""} options=${[["", "all members"], ...everybody]} /><${Field} label="Names" as="select" name="names" value=${replica?.names ?? "nibble"} options=${[["nibble", "nibbles"], ["flat", "flat"], ["both", "both"]]} /></div>
          <${Field} label="A member may fetch as it" as="select" name="holder" value=${replica?.holder ?? ""} options=${[["", "no: it has a certificate or key of its own"], ...everybody]} />
          <div class="row"><${Field} label="Tell it of changes at" name="notify" value=${replica?.notify.join(", ") ?? ""} placeholder="203.0.113.53:53" hint="Addresses with ports, commas between them." /><${Field} label="signed with" as="select" name="notify_key" value=${replica?.notify_key ?? ""} options=${[["", "no key"], ...(keys.data ?? []).map((key) => [key.name, host(key.name)])]} /></div>
          <${Check} label="It may fetch over plain TCP" name="clear_text" checked=${replica?.clear_text} hint="A TSIG key signs and does not hide: whoever is on the way reads the devices." />`;
      },
    });
  const gone = (replica) => confirm({ title: `Take replica ${replica.id} out?`, name: replica.id, verb: "Take it out", text: "Its certificates and keys are worthless at once, also for a transfer under way. What it has fetched it keeps.", act: () => api.remove(`/replicas/${api.seg(replica.id)}`), done: "It gets nothing any more." });
  const add = who.change && html`<button class="primary" onClick=${() => edit(null)}>Add a replica</button>`;
  return html`<${Page} title="Replicas" lead="Servers that hold copies of the private zones by zone transfer: BIND, Knot or NSD." actions=${add}>
    <div class="stack"><${Card} flush><${Got} from=${list}>${({ items }) => html`<${Table} caption="Replicas" rows=${items} keyOf=${(replica) => replica.id} empty=${html`<${Empty} icon="replicas" title="No replicas" action=${add}>Each is known by name, with a certificate or a TSIG key, and never by its address.<//>`} columns=${[
      { label: "Replica", show: (replica) => html`<strong class="mono">${replica.id}</strong>` },
      { label: "Gets", show: (replica) => (replica.only ? html`<${Member} id=${replica.only} />` : "all members") },
      { label: "Names", show: (replica) => replica.names },
      { label: "Held by", show: (replica) => (replica.holder ? html`<${Member} id=${replica.holder} />` : html`<span class="soft">itself</span>`) },
      { label: "Told at", show: (replica) => html`<span class="mono small">${replica.notify.join(", ") || "–"}</span>` },
      { label: "Transport", show: (replica) => (replica.clear_text ? html`<${Badge} tone="warn">also plain TCP<//>` : html`<${Badge} tone="ok">TLS<//>`) },
      { label: "Since", show: (replica) => html`<${When} at=${replica.since} />` },
      { label: "", hide: !who.change, show: (replica) => html`<div class="actions"><button class="small" onClick=${() => edit(replica)} aria-label=${`Change ${replica.id}`}>Change</button><button class="small danger" onClick=${() => gone(replica)} aria-label=${`Take out ${replica.id}`}>Take out</button></div>` },
    ]} />`}<//><//>
    <${Note}>Give it a certificate with <code>dnsbroker cert issue --replica ID --new-key --out DIR</code>, under <a href="#/certificates">Certificates</a> with its request, or a key that allows “transfer” under <a href="#/keys">Keys and tokens</a>.<//></div>
  <//>`;
}
