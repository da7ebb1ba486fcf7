// Sources: members' own name servers, from which the broker fetches their devices.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData, useGet, useList } from "../live.js";
import { Page, Card, Table, State, Member, Eui, When, Got, Empty, Field, Form, More, Note, Words, Tile } from "../parts.js";
import { confirm, say } from "../dialogs.js";
import { count, host, plural } from "../text.js";
import { go, sorted, Link } from "../route.js";
import { useWho } from "../who.js";

const KINDS = ["source.", "devices.", "move."];

const link = (source) => html`<${Link} parts=${["sources", source.netid]}><span class="mono">${source.netid}</span><//>`;

export function Sources({ query }) {
  const who = useWho();
  const by = sorted(query, "netid");
  const list = useList("/sources", { limit: 500, sort: by.sort, order: by.order }, KINDS);
  const add = who.change && html`<a class="button primary" href="#/sources/new">Add a source</a>`;
  return html`<${Page} title="Sources" lead="Members' primaries: name servers of their own, from which the broker fetches their devices." actions=${add}>
    <${Card} flush><${Got} from=${list}>${() => html`<${Table} caption="Sources" sorted=${by} rows=${list.items} keyOf=${(source) => source.netid} empty=${html`<${Empty} icon="sources" title="No sources" action=${add}>${who.member ? "If you keep your devices in a zone of your own, the broker can fetch them: ask the administrator." : "A member that keeps its devices in a zone on BIND, Knot, NSD or PowerDNS need not send lists: the broker fetches the zone and follows its changes."}<//>`} columns=${[
      { label: "NetID", sort: "netid", show: link },
      { label: "Member", sort: "member", hide: who.member, show: (source) => html`<${Member} id=${source.member} />` },
      { label: "Zone", show: (source) => html`<bdi class="small">${host(source.zone)}</bdi><p class="soft small mono">${source.primary}</p>` },
      { label: "State", sort: "state", show: (source) => html`<${State} of=${source.state} />${(source.held || source.error) && html`<p class="small"><${Words}>${source.held ?? source.error}<//></p>`}` },
      { label: "Devices", num: true, sort: "devices", show: (source) => count(source.devices) },
      { label: "Serial", num: true, show: (source) => source.theirs ?? "–" },
      { label: "Last good", sort: "succeeded", show: (source) => html`<${When} at=${source.succeeded} />` },
    ]} /><${More} list=${list} shown=${list.items.length} />`}<//><//>
  <//>`;
}

export function SourcePage({ source: id }) {
  const who = useWho();
  const path = `/sources/${api.seg(id)}`;
  const known = useGet(path, undefined, KINDS);
  const gone = () =>
    confirm({ title: `Stop fetching ${id}?`, name: id, verb: "Stop", text: "The devices stay as they are. Lists and updates are taken for this NetID again.", act: () => api.remove(path), done: () => { go("sources"); return "The broker no longer fetches it."; } });
  const refresh = async () => {
    try {
      await api.post(`${path}/refresh`);
      say("The primary is being asked.");
      known.reload();
    } catch (problem) {
      say(problem.message);
    }
  };
  const accept = () => confirm({ title: "Take the transfer that is held back?", name: id, verb: "Take it", text: "It drops most of the devices. That is right when they really went.", act: () => api.post(`${path}/accept`), done: "Taken." });
  const { data } = known;
  return html`<${Page} title=${`Source of ${id}`} crumb=${html`<a href="#/sources">Sources</a>`} lead=${data && html`<bdi>${host(data.zone)}</bdi> at <span class="mono">${data.primary}</span>`} actions=${data && html`${(who.change || who.member) && html`<button onClick=${refresh}>Ask now</button>`}${who.change && html`<a class="button" href=${`#/sources/${id}/edit`}>Change</a><button class="danger" onClick=${gone}>Stop fetching</button>`}`}>
    <${Got} from=${known}>${(source) => html`<div class="stack">
      ${source.held && html`<${Note} tone="warn" title="A transfer is held back"><${Words}>${source.held}<//>${who.change && html`<p><button class="small danger" onClick=${accept}>Take it all the same…</button></p>`}<//>`}
      ${source.error && html`<${Note} tone="bad" title=${`Failed ${source.failures === 1 ? "once" : `${source.failures} times`}`}><${Words}>${source.error}<//>. It is asked again <${When} at=${source.next} />.<//>`}
      <div class="tiles"><${Tile} label="State" value=${source.state} tone=${{ failing: "bad", expired: "bad", held: "warn", current: "ok" }[source.state]} /><${Tile} label="Devices" value=${count(source.devices)} href=${`#/devices?netid=${id}`} /><${Tile} label="Their serial" value=${source.theirs ?? "–"} /><${Tile} label="Asked" value=${html`<${When} at=${source.looked} />`} note=${html`next <${When} at=${source.next} />`} /></div>
      <div class="grid">
        <${Card} className="half" title="Settings"><dl class="facts">
          <dt>Member</dt><dd>${who.member ? source.member : html`<${Member} id=${source.member} />`}</dd>
          <dt>TSIG key</dt><dd>${source.key ? html`<bdi>${host(source.key)}</bdi>` : "none"}</dd>
          <dt>Transport</dt><dd>${source.tls_name ? html`TLS, certificate of <bdi>${host(source.tls_name)}</bdi>` : source.tls_pin ? "TLS, by the pin of its key" : "TCP"}</dd>
          <dt>If it falls silent</dt><dd>${source.on_expiry === "withdraw" ? "its devices are withdrawn when its SOA's time is over" : "its devices are served on"}</dd>
        </dl><//>
        <${Card} className="half" title="Last transfer">${source.last ? html`<dl class="facts">
          <dt>When</dt><dd><${When} at=${source.last.at} /></dd><dt>Kind</dt><dd>${source.last.kind.toUpperCase()}, ${plural(source.last.records, "record")}, to serial ${source.last.serial}</dd>
          <dt>Names that are no DevEUI</dt><dd>${count(source.last.strangers)} <bdi class="small">${source.last.strangers_shown.slice(0, 5).join(", ")}</bdi></dd>
          <dt>Another address than the NetID's</dt><dd>${count(source.last.mismatches)}</dd>
          <dt>Outside its member's ranges</dt><dd>${count(source.last.outside)} ${source.last.outside_shown.slice(0, 5).map((device) => html`<${Eui} id=${device} /> `)}</dd>
          <dt>Held by another member</dt><dd>${count(source.last.claimed)} ${source.last.claims_shown.slice(0, 5).map((device) => html`<${Eui} id=${device} /> `)}</dd>
        </dl>` : html`<p class="soft">Nothing was transferred yet.</p>`}<//>
      </div>
    </div>`}<//>
  <//>`;
}

export function SourceForm({ source: id }) {
  const loaded = useData(async () => ({ ...(id ? await api.tagged(`/sources/${api.seg(id)}`) : {}), networks: await api.all("/netids"), keys: await api.all("/keys") }), [id]);
  const act = async (values, networks, tag) => {
    const netid = id ?? values.netid;
    const member = networks.find((network) => network.netid === netid)?.member;
    const set = Object.fromEntries(["key", "tls_name", "tls_ca", "tls_pin"].map((name) => [name, values[name]?.trim()]).filter(([, value]) => value));
    await api.put(`/sources/${api.seg(netid)}`, { member, primary: values.primary.trim(), zone: values.zone.trim(), on_expiry: values.on_expiry, ...set }, tag ? { match: tag } : {});
    go("sources", netid);
  };
  return html`<${Page} title=${id ? `Change the source of ${id}` : "Add a source"} crumb=${html`<a href="#/sources">Sources</a>`} lead="The member's primary has to allow the broker's transfers: the README says how for BIND, Knot and NSD."><${Got} from=${loaded}>${({ data, tag, networks, keys }) => (networks.length ? html`<${Card} className="narrow"><${Form} act=${(values) => act(values, networks, tag)} verb="Save" onCancel=${() => history.back()}>
    ${!id && html`<${Field} label="NetID it fills" as="select" name="netid" options=${networks.map((network) => [network.netid, `${network.netid} · ${network.member}`])} />`}
    <div class="row"><${Field} label="Primary" name="primary" required value=${data?.primary} placeholder="198.51.100.53:53" hint="Address and port." /><${Field} label="Zone" name="zone" required value=${host(data?.zone)} placeholder="mydevices.example" /></div>
    <${Field} label="TSIG key" as="select" name="key" value=${data?.key ?? ""} options=${[["", "none"], ...keys.filter((key) => key.allows.includes("source")).map((key) => [key.name, `${host(key.name)} · ${key.holder}`])]} hint="Keys that allow “source”, made under Keys and tokens. Without one it has to be TLS: by its address alone a primary is not known." />
    <div class="row"><${Field} label="TLS: name in its certificate" name="tls_name" value=${host(data?.tls_name)} hint="Empty: TLS by the pin, or plain TCP with a key." /><${Field} label="TLS: pin of its key" name="tls_pin" value=${data?.tls_pin} placeholder="sha256:…" /></div>
    <${Field} label="TLS: its CA (PEM)" as="textarea" name="tls_ca" hint="Empty: the federation's own CA." />
    <${Field} label="If it falls silent for as long as its SOA says" as="select" name="on_expiry" value=${data?.on_expiry ?? "keep"} options=${[["keep", "serve its devices on"], ["withdraw", "withdraw its devices"]]} />
  <//><//>` : html`<${Card}><${Empty} icon="netids" title="No NetID to fill" action=${html`<a class="button primary" href="#/netids/new">Add a NetID</a>`}>A source fills a NetID of a member.<//><//>`)}<//><//>`;
}
