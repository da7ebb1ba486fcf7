// The audit: every change, who and when; and the proof that no row was altered.
import { html, useState } from "../html.js";
import * as api from "../api.js";
import { useList, useGet } from "../live.js";
import { Page, Card, Table, When, Got, Empty, Field, More, Note, Trouble } from "../parts.js";
import { count, moment } from "../text.js";
import { requery } from "../route.js";
import { inWords, particulars } from "../acts.js";

const KINDS = [["", "Everything"], ["member.", "Members"], ["netid.", "NetIDs"], ["devices.", "Devices"], ["claim.", "Claims"], ["move.", "Moves"], ["source.", "Sources"], ["replica.", "Replicas"], ["certificate.", "Certificates"], ["ca.", "The CA"], ["crl.", "Revocation lists"], ["token.", "Enrolment tokens"], ["key.", "TSIG keys"], ["policy.", "Policy"], ["limits.", "Limits"], ["administrator.", "Administrators"], ["api-token.", "API tokens"], ["webhook.", "Webhooks"], ["backup", "Backups"], ["store.", "Restores"], ["primary.", "Primary and standbys"], ["private.", "Private zones"], ["public.", "Public zone"]];

export function Audit({ query }) {
  const list = useList("/audit", { limit: 100, order: query.order ?? "desc", actor: query.actor, act: query.act, object: query.object }, [""]);
  const [typed, type] = useState({ actor: query.actor ?? "", object: query.object ?? "" });
  const search = (event) => {
    event.preventDefault();
    requery({ ...query, ...typed });
  };
  const field = (name, label, placeholder) => html`<${Field} label=${label} type="search" value=${typed[name]} placeholder=${placeholder} onInput=${(event) => type({ ...typed, [name]: event.currentTarget.value })} />`;
  const filtered = query.actor || query.act || query.object;
  return html`<${Page} title="Audit" lead="Every change of the federation: who made it, when, and to what. Each row carries the hash of the one before.">
    <div class="stack"><${Verify} />
    <${Card} flush>
      <form class="filters" role="search" aria-label="The audit" onSubmit=${search}>
        <${Field} label="What" as="select" value=${query.act ?? ""} options=${KINDS.some(([value]) => value === (query.act ?? "")) ? KINDS : [...KINDS, [query.act, query.act]]} onChange=${(event) => requery({ ...query, act: event.currentTarget.value })} />
        ${field("actor", "By", "administrator:admin")}${field("object", "To what", "alpine-lora")}
        <${Field} label="Order" as="select" value=${query.order ?? "desc"} options=${[["desc", "Newest first"], ["asc", "Oldest first"]]} onChange=${(event) => requery({ ...query, order: event.currentTarget.value })} />
        <button class="primary">Filter</button>${filtered && html`<button type="button" onClick=${() => { type({ actor: "", object: "" }); requery({}); }}>Clear</button>`}
      </form>
      <${Got} from=${list}>${() => html`<${Table} caption="Audit" rows=${list.items} keyOf=${(row) => row.number} empty=${html`<${Empty} icon="audit" title="No row fits">Actor and object have to match as a whole.<//>`} columns=${[
        { label: "Row", num: true, show: (row) => count(row.number) },
        { label: "When", show: (row) => html`<span class="nowrap" title=${row.at}>${moment(row.at)}</span>` },
        { label: "By", show: (row) => html`<button class="quiet small wrapped" onClick=${() => { type({ ...typed, actor: row.actor }); requery({ ...query, actor: row.actor }); }}><bdi>${row.actor}</bdi></button>` },
        { label: "What", show: (row) => html`${inWords(row.act)}<p class="soft small mono">${row.act}</p>` },
        { label: "To", show: (row) => html`<button class="quiet small wrapped" onClick=${() => { type({ ...typed, object: row.object }); requery({ ...query, object: row.object }); }}><bdi class="mono">${row.object}</bdi></button>` },
        { label: "Particulars", show: (row) => html`<bdi class="small roomy">${particulars(row.detail)}</bdi>` },
        { label: "Serial", num: true, show: (row) => row.serial },
      ]} /><${More} list=${list} shown=${count(list.items.length)} />`}<//>
    <//></div>
  <//>`;
}

function Verify() {
  const status = useGet("/status", undefined, [""]);
  const [verdict, set] = useState(null);
  const [busy, work] = useState(false);
  const [error, fail] = useState(null);
  const verify = async () => {
    work(true);
    fail(null);
    try {
      set(await api.get("/audit/verify"));
    } catch (problem) {
      fail(problem);
    }
    work(false);
  };
  return html`<${Card} title="The chain" actions=${html`<button class="primary" onClick=${verify} disabled=${busy}>${busy ? "Reading every row…" : "Verify the chain"}</button>`}>
    ${status.data && html`<dl class="facts"><dt>Last row</dt><dd>${count(status.data.audit.number)}</dd><dt>Its hash</dt><dd class="mono small">${status.data.audit.hash}</dd></dl>`}
    <div role="status" id="verdict">${verdict && (verdict.ok
      ? html`<${Note} tone="ok" title="The chain is whole">${count(verdict.rows)} rows were read; none was changed, dropped or put in between. Keep this hash somewhere else, and you can prove it later: <span class="mono small">${verdict.head}</span><//>`
      : html`<${Note} tone="bad" title="The chain is broken"><bdi>${verdict.broken}</bdi> Stop the broker, keep its directory as it is, and restore a backup.<//>`)}</div>
    <${Trouble} error=${error} retry=${verify} />
  <//>`;
}
