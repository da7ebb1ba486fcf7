// Certificates: whose they are, when they end, and taking them back.
import { html, useState } from "../html.js";
import * as api from "../api.js";
import { useData, useGet, useList } from "../live.js";
import { Page, Card, Table, State, Member, When, Got, Empty, Field, More, Copy } from "../parts.js";
import { Timeline } from "../charts.js";
import { confirm, fill, reveal } from "../dialogs.js";
import { moment } from "../text.js";
import { Link, requery, sorted } from "../route.js";
import { useWho } from "../who.js";

/** Reasons that one gives (RFC 5280, section 5.3.1). */
const REASONS = [["superseded", "It was replaced"], ["key-compromise", "Its key is or may be known to others"], ["cessation-of-operation", "It is no longer needed"], ["affiliation-changed", "Its holder changed"], ["privilege-withdrawn", "Its holder may no longer"], ["unspecified", "Not said"]];

export const subject = (one) => one.names?.length ? one.names.join(", ") : one.gateway ? `gateway ${one.gateway}` : one.replica ? `replica ${one.replica}` : (one.member ?? one.serial);

export function Certificates({ query }) {
  const who = useWho();
  const valid = useData(() => api.all("/certificates", { state: "valid" }, 5000), [], ["certificate."]);
  const by = sorted(query, "issued", "desc");
  const values = { limit: 100, sort: by.sort, order: by.order, state: query.state, profile: query.profile, member: query.member };
  return html`<${Page} title="Certificates" lead=${who.member ? "Yours, your servers' and your gateways'." : "All that the federation's CA has issued, the newest first."} actions=${html`${(who.change || who.member) && html`<button class="primary" onClick=${() => issue(who)}>Issue for a request</button>`}${who.change && html`<button class="danger" onClick=${several}>Revoke several</button>`}`}>
    <div class="stack">
      <${Card} title="When they end"><${Got} from=${valid}>${(list) => (list.length ? html`<${Timeline} items=${list.map((one) => ({ label: subject(one), at: one.not_after, renew: one.renew_at }))} />` : html`<p class="soft">No certificate is valid now.</p>`)}<//><//>
      <${Card} flush>
        <div class="filters">
          <${Field} label="State" as="select" value=${query.state ?? ""} options=${[["", "All"], ["valid", "Valid"], ["suspended", "Suspended"], ["expired", "Expired"], ["revoked", "Revoked"]]} onChange=${(event) => requery({ ...query, state: event.currentTarget.value })} />
          <${Field} label="Kind" as="select" value=${query.profile ?? ""} options=${[["", "All"], ["operator", "Operators"], ["lns", "Servers"], ["gateway", "Gateways"], ["replica", "Replicas"]]} onChange=${(event) => requery({ ...query, profile: event.currentTarget.value })} />
        </div>
        <${CertificateTable} values=${values} sorted=${by} />
      <//>
    </div>
  <//>`;
}

export function CertificateTable({ values, sorted: by }) {
  const who = useWho();
  const list = useList("/certificates", values, ["certificate.", "member.", "token."]);
  return html`<${Got} from=${list}>${() => html`<${Table} caption="Certificates" sorted=${by} rows=${list.items} keyOf=${(one) => one.serial} empty=${html`<${Empty} icon="certificates" title="No certificates here">${who.member ? "None fits." : "A member gets its first with an enrolment token."}<//>`} columns=${[
    { label: "Of", sort: "member", show: (one) => html`<${Link} parts=${["certificates", one.serial]}><bdi>${subject(one)}</bdi><//><p class="soft small mono">${one.serial}</p>` },
    { label: "Kind", show: (one) => one.profile },
    { label: "State", show: (one) => html`<${State} of=${one.state} />` },
    { label: "Ends", sort: "not_after", show: (one) => html`<${When} at=${one.not_after} />` },
    { label: "Renewal due", sort: "renew_at", show: (one) => html`<${When} at=${one.renew_at} />` },
    { label: "", hide: !who.change && !who.member, show: (one) => html`<div class="actions">${one.state === "valid" && html`<button class="small danger" onClick=${() => revoke(one)} aria-label=${`Revoke ${one.serial}`}>Revoke</button>`}</div>` },
  ]} /><${More} list=${list} shown=${list.items.length} />`}<//>`;
}

export function revoke(one) {
  confirm({
    title: `Revoke the certificate of ${subject(one)}?`, name: one.serial.slice(-8), verb: "Revoke",
    text: "It is refused within a second, on open connections too, and stays revoked for ever. Its holder needs a new token or certificate. To stop a member for a while, suspend it instead: that can be undone.",
    fields: html`<${Field} label="Reason" as="select" name="reason" value="superseded" options=${REASONS} />`,
    act: ({ reason }) => api.post(`/certificates/${api.seg(one.serial)}/revoke`, { reason }), done: "The certificate is revoked.",
  });
}

function several() {
  confirm({
    title: "Revoke several certificates", name: "revoke", verb: "Revoke them",
    text: "All that fit are revoked in one step, for ever.",
    fields: html`<${Field} label="All of" as="select" name="which" options=${[["member", "a member: its own, its servers' and gateways'"], ["replica", "a replica"], ["key", "a public key (sha256:…)"], ["lineage", "a lineage: one certificate and its renewals"]]} /><${Field} label="Which one" name="value" required hint="The member's or replica's id, the pin of the key, or a serial number." /><${Field} label="Reason" as="select" name="reason" value="key-compromise" options=${REASONS} />`,
    act: ({ which, value, reason }) => api.post("/certificates/revoke", { [which]: value.trim(), reason }), done: (page) => `${page.items.length} revoked.`,
  });
}

function issue(who) {
  fill({
    title: "A certificate for a request", verb: "Issue", wide: true,
    act: async (values) => {
      const name = values.name.trim();
      const body = { csr: values.csr };
      if (values.kind !== "replica") body.member = who.member ?? values.member;
      if (values.kind === "server") body.names = name.split(/[\s,]+/).filter(Boolean);
      if (values.kind === "gateway") body.gateway = name;
      if (values.kind === "replica") body.replica = name;
      const made = await api.create("/certificates", body);
      reveal("The certificate", html`<p>Valid until ${moment(made.not_after)}. Send the holder both files; neither is a secret.</p><h3>Certificate and issuing CA</h3><${Copy} text=${made.chain} /><h3>What it trusts (the root)</h3><${Copy} text=${made.ca} />`);
      return false;
    },
    fields: () => {
      const [kind, set] = useState(who.member ? "server" : "member");
      const members = useData(() => (who.member ? [] : api.all("/members")), []);
      const kinds = [...(who.member ? [] : [["member", "A member"]]), ["server", "A member's server"], ["gateway", "A member's gateway"], ...(who.member ? [] : [["replica", "A replica"]])];
      return html`<${Field} label="For" as="select" name="kind" value=${kind} options=${kinds} onChange=${(event) => set(event.currentTarget.value)} />
        ${!who.member && kind !== "replica" && html`<${Field} label="Member" as="select" name="member" options=${(members.data ?? []).map((member) => [member.id, `${member.name} (${member.id})`])} />`}
        ${kind === "member" ? html`<input type="hidden" name="name" value="" />` : html`<${Field} label=${{ server: "Host names", gateway: "Gateway", replica: "Replica" }[kind]} name="name" required hint=${{ server: "Of the member's NetIDs, or approved ones; commas between them.", gateway: "A name of your choice, such as its EUI.", replica: "Its id." }[kind]} />`}
        <${Field} label="Certificate request (PEM)" as="textarea" name="csr" required placeholder="-----BEGIN CERTIFICATE REQUEST-----" hint="Only its public key is used; everything else is decided by the profile." />`;
    },
  });
}

export function CertificatePage({ serial }) {
  const who = useWho();
  const known = useGet(`/certificates/${api.seg(serial)}`, undefined, ["certificate.", "member."]);
  const { data } = known;
  return html`<${Page} title=${data ? subject(data) : "Certificate"} crumb=${html`<a href="#/certificates">Certificates</a>`} lead=${html`<span class="mono">${serial}</span>`} actions=${(who.change || who.member) && data?.state === "valid" && html`<button class="danger" onClick=${() => revoke(data)}>Revoke</button>`}>
    <${Got} from=${known}>${(one) => html`<${Card}><dl class="facts">
      <dt>State</dt><dd><${State} of=${one.state} /> ${one.revoked && html`since ${moment(one.revoked)}`}</dd>
      ${one.member && html`<dt>Member</dt><dd>${who.member ? one.member : html`<${Member} id=${one.member} />`}</dd>`}
      <dt>Kind</dt><dd>${one.profile}</dd>
      <dt>Valid</dt><dd>${moment(one.not_before)} to ${moment(one.not_after)}</dd>
      <dt>Renewal due</dt><dd><${When} at=${one.renew_at} /></dd>
      <dt>Issued by</dt><dd class="mono small">${one.issuer}</dd>
      <dt>Public key</dt><dd class="mono small">${one.key}</dd>
      ${one.renews && html`<dt>Renews</dt><dd><${Link} parts=${["certificates", one.renews]}><span class="mono small">${one.renews}</span><//></dd>`}
      <dt>Lineage</dt><dd><${Link} parts=${["certificates", one.lineage]}><span class="mono small">${one.lineage}</span><//></dd>
    </dl><//>`}<//>
  <//>`;
}
