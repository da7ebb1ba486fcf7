// NetIDs and where their network servers are.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData, useGet, useList } from "../live.js";
import { Page, Card, Table, Member, NetId, Got, Empty, Field, Form, More, Tile, items } from "../parts.js";
import { confirm, fill } from "../dialogs.js";
import { count, host } from "../text.js";
import { go, sorted } from "../route.js";
import { useWho } from "../who.js";

export function NetIds({ query }) {
  const who = useWho();
  const by = sorted(query, "netid");
  const list = useList("/netids", { limit: 250, member: who.member ?? query.member, sort: by.sort, order: by.order }, ["netid.", "devices.", "source.transfer", "move.", "member."]);
  const add = who.change && html`<a class="button primary" href="#/netids/new">Add a NetID</a>`;
  return html`<${Page} title="NetIDs" lead=${who.member ? "Your networks, and where the federation finds their servers." : "Which network is whose, and where its server is: what every answer ends with."} actions=${add}>
    <${Card} flush>
      <${Got} from=${list}>${() => html`<${Table} caption="NetIDs" sorted=${by} rows=${list.items} keyOf=${(network) => network.netid} empty=${html`<${Empty} icon="netids" title="No NetIDs yet" action=${add}>${who.member ? "Ask the federation's administrator to enter yours." : "Give a member its NetID with the address of its network server."}<//>`} columns=${[
        { label: "NetID", sort: "netid", show: (network) => html`<${NetId} id=${network.netid} />` },
        { label: "Member", sort: "member", hide: who.member, show: (network) => html`<${Member} id=${network.member} />` },
        { label: "Network server", show: (network) => html`<span class="mono small">${network.addresses.join(", ") || "–"}</span>` },
        { label: "Port", show: (network) => network.port ?? html`<span class="soft">–</span>` },
        { label: "Certificate's name", show: (network) => (network.target ? html`<bdi class="small">${host(network.target)}</bdi>` : html`<span class="soft">the NetID's own</span>`) },
        { label: "Devices", num: true, sort: "devices", show: (network) => html`<a href=${`#/devices?netid=${network.netid}`}>${count(network.devices)}</a>` },
      ]} /><${More} list=${list} shown=${list.items.length} />`}<//>
    <//>
  <//>`;
}

export function NetIdPage({ netid: id }) {
  const who = useWho();
  const path = `/netids/${api.seg(id)}`;
  const known = useGet(path, undefined, ["netid.", "devices.", "source.", "move."]);
  const sources = useGet("/sources", { limit: 1000 }, ["source."]);
  const source = sources.data?.items.find((one) => one.netid === id);
  const gone = () =>
    confirm({ title: `Take NetID ${id} away?`, name: id, verb: "Take it away", text: "It must have no devices any more. Its name is gone from the zone; anybody may be given it then.", act: () => api.remove(path), done: () => { go("netids"); return `NetID ${id} is free.`; } });
  const { data } = known;
  const own = data && (who.change || who.member === data.member);
  return html`<${Page} title=${`NetID ${id}`} crumb=${html`<a href="#/netids">NetIDs</a>`} lead=${data && html`Held by ${who.member ? data.member : html`<${Member} id=${data.member} />`}`} actions=${data && who.change && html`<a class="button" href=${`#/netids/${id}/edit`}>Change</a><button class="danger" onClick=${gone}>Take away</button>`}>
    <${Got} from=${known}>${(network) => html`<div class="stack">
      <div class="tiles">
        <${Tile} label="Devices" value=${count(network.devices)} href=${`#/devices?netid=${id}`} note="see them" />
        <${Tile} label="Filled by" value=${source ? "A primary" : "Lists and updates"} href=${source ? `#/sources/${id}` : `#/imports?netid=${id}`} note=${source ? source.state : "import a list"} />
      </div>
      <${Card} title="In the zone">
        <dl class="facts">
          <dt>Name</dt><dd class="mono">${host(network.name)}</dd>
          <dt>Addresses</dt><dd class="mono">${network.addresses.join(", ") || "none"}</dd>
          <dt>Port</dt><dd>${network.port ?? "not said"}</dd>
          <dt>Name in its certificate</dt><dd>${network.target ? html`<bdi>${host(network.target)}</bdi>` : "the NetID's own name"}</dd>
        </dl>
      <//>
      ${own && html`<${Anchors} id=${id} path=${path} />`}
    </div>`}<//>
  <//>`;
}

/** What the network's servers are trusted by, where that is not the federation's CA. */
function Anchors({ id, path }) {
  const bundle = useGet("/bundle", undefined, ["netid.anchors"]);
  const known = bundle.data?.anchors.find((one) => one.netid === id);
  const edit = () => fill({ title: "Trust anchors", verb: "Publish", wide: true, done: "Published.", undo: () => api.put(`${path}/anchors`, { pem: known?.pem ?? "" }), act: ({ pem }) => api.put(`${path}/anchors`, { pem }), fields: html`<p>If the network's servers have certificates of another CA than the federation's, publish that CA here, so that the other members can trust them. Empty takes it back.</p><${Field} label="Certificates (PEM)" as="textarea" name="pem" value=${known?.pem ?? ""} />` });
  return html`<${Card} title="Trust anchors of its servers" actions=${html`<button class="small" onClick=${edit}>Change</button>`}>
    ${known ? html`<p>Published since ${new Date(known.since).toLocaleDateString("en-GB")}:</p><pre class="answer mono">${known.tlsa.join("\n")}</pre>` : html`<p class="soft">None: its servers have certificates of the federation's CA.</p>`}
  <//>`;
}

export function NetIdForm({ netid: id, query }) {
  const loaded = useData(() => (id ? api.tagged(`/netids/${api.seg(id)}`) : { data: null }), [id]);
  const members = useData(() => api.all("/members"), []);
  const crumb = html`<a href="#/netids">NetIDs</a>`;
  const act = async (values) => {
    const netid = id ?? values.netid.trim();
    const body = { member: values.member, addresses: items(values.addresses), ...(values.port ? { port: Number(values.port) } : {}), ...(values.target ? { target: values.target.trim() } : {}) };
    await api.put(`/netids/${api.seg(netid)}`, body, id ? { match: loaded.data.tag } : {});
    go("netids", netid.toLowerCase());
  };
  return html`<${Page} title=${id ? `Change NetID ${id}` : "Add a NetID"} crumb=${crumb}><${Got} from=${loaded}>${({ data }) => html`<${Got} from=${members}>${(members) => html`<${Card} className="narrow"><${Form} act=${act} verb="Save" onCancel=${() => history.back()}>
    ${!id && html`<${Field} label="NetID" name="netid" required pattern="[0-9a-fA-F]{6}" placeholder="600013" hint="Six hexadecimal digits." />`}
    <${Field} label="Member" as="select" name="member" value=${data?.member ?? query.member ?? members[0]?.id} options=${members.map((member) => [member.id, `${member.name} (${member.id})`])} />
    <${Field} label="Addresses of its network server" name="addresses" value=${data?.addresses.join(", ") ?? ""} placeholder="198.51.100.19, 2001:db8:13::1" hint="IPv4 or IPv6, with commas between them." />
    <div class="row"><${Field} label="Port" name="port" type="number" min="1" max="65535" value=${data?.port ?? ""} /><${Field} label="Name in its certificate" name="target" value=${host(data?.target)} /></div>
  <//><//>`}<//>`}<//><//>`;
}
