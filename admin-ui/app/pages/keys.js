// Secrets that programs have: TSIG keys, API tokens, enrolment tokens. Each is shown once, when it is made.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Table, Badge, When, Got, Empty, Field, Check, Copy, Tabs, Words } from "../parts.js";
import { confirm, fill, reveal } from "../dialogs.js";
import { host } from "../text.js";
import { useWho } from "../who.js";
import { TokenTable } from "./members.js";

const SCOPES = [["read", "read"], ["devices", "devices, claims, moves"], ["members", "members, NetIDs, enrolment tokens"], ["transfers", "sources, replicas, TSIG keys"], ["certificates", "certificates and the CA"], ["policy", "policy"], ["admin", "everything"]];
const OWN_SCOPES = ["read", "devices", "certificates", "policy"];

const TABS = [[["keys"], "TSIG keys"], [["keys", "api"], "API tokens"], [["keys", "enrol"], "Enrolment tokens"]];

/** A member has one kind only. */
function Kind({ at, children }) {
  const who = useWho();
  if (who.member) return html`<${Page} title="API tokens" lead="For your programs: each speaks for you, within what you allow it.">${children}<//>`;
  return html`<${Page} title="Keys and tokens" lead="What programs prove themselves with. Secrets are shown once, when they are made."><${Tabs} label="Kinds" now=${at} tabs=${TABS} />${children}<//>`;
}

export function TsigKeys() {
  const who = useWho();
  const list = useGet("/keys", { limit: 1000 }, ["key."]);
  const make = () =>
    fill({
      title: "A TSIG key", verb: "Make the key",
      act: async (values, data) => {
        const [kind, id] = values.holder.split("/");
        const made = await api.create("/keys", { name: values.name.trim(), [kind]: id, allows: data.getAll("allows"), algorithm: values.algorithm, ...(values.secret ? { secret: values.secret.trim() } : {}) });
        reveal("The key", html`<p>Both sides need it. It is shown only now: send it on a channel you both trust.</p><${Copy} text=${`key "${host(made.name)}" {\n    algorithm ${made.algorithm};\n    secret "${made.secret}";\n};`} /><p class="soft">For nsupdate:</p><${Copy} text=${`${made.algorithm}:${host(made.name)}:${made.secret}`} />`);
        return false;
      },
      fields: () => {
        const holders = useData(async () => [...(await api.all("/members")).map((member) => [`member/${member.id}`, `member ${member.id}`]), ...(await api.all("/replicas")).map((replica) => [`replica/${replica.id}`, `replica ${replica.id}`])], []);
        return html`<${Field} label="Name" name="name" required placeholder="op1.example" /><${Field} label="Whose" as="select" name="holder" options=${holders.data ?? []} />
          <fieldset><legend>What it allows</legend><${Check} label="transfer" name="allows" value="transfer" hint="Fetch copies of the zones." /><${Check} label="update" name="allows" value="update" hint="Register devices record by record (RFC 2136)." /><${Check} label="source" name="allows" value="source" hint="Fetch from the member's primary, and take its NOTIFY." /></fieldset>
          <${Field} label="Algorithm" as="select" name="algorithm" value="hmac-sha256" options=${["hmac-sha256", "hmac-sha384", "hmac-sha512"].map((name) => [name, name])} />
          <${Field} label="Secret" name="secret" hint="Base64, if the other side has one already. Empty: a new one is made." />`;
      },
    });
  const gone = (key) => confirm({ title: `Revoke the key ${host(key.name)}?`, name: host(key.name), verb: "Revoke", text: "It is worthless at once, on transfers under way too. A new one has to be given to the other side.", act: () => api.remove(`/keys/${api.seg(key.name)}`), done: "The key is worthless now." });
  return html`<${Kind} at="keys"><${Card} flush title="TSIG keys" actions=${who.change && html`<button class="primary" onClick=${make}>New key</button>`}><${Got} from=${list}>${({ items }) => html`<${Table} caption="TSIG keys" rows=${items} keyOf=${(key) => key.name} empty=${html`<${Empty} icon="keys" title="No keys">Name servers that have no certificate sign their transfers, updates and NOTIFYs with such a key.<//>`} columns=${[
    { label: "Name", show: (key) => html`<bdi>${host(key.name)}</bdi>` },
    { label: "Whose", show: (key) => html`<bdi class="wordy">${key.holder}</bdi>` },
    { label: "Allows", show: (key) => html`<ul class="inline-list">${key.allows.map((one) => html`<li><${Badge}>${one}<//></li>`)}</ul>` },
    { label: "Algorithm", show: (key) => key.algorithm },
    { label: "Made", show: (key) => html`<${When} at=${key.created} />` },
    { label: "", hide: !who.change, show: (key) => html`<div class="actions"><button class="small danger" onClick=${() => gone(key)} aria-label=${`Revoke ${host(key.name)}`}>Revoke</button></div>` },
  ]} />`}<//><//><//>`;
}

export function ApiTokens() {
  const who = useWho();
  const list = useGet("/api-tokens", { limit: 1000, order: "desc" }, ["api-token."]);
  const scopes = who.member ? SCOPES.filter(([name]) => OWN_SCOPES.includes(name)) : SCOPES;
  const acts = who.change || who.member;
  const make = () =>
    fill({
      title: "An API token", verb: "Make the token",
      act: async (values, data) => {
        const made = await api.create("/api-tokens", { name: values.name, scopes: data.getAll("scopes"), ...(values.days ? { ttl: Number(values.days) * 86_400 } : {}), ...(values.owner ? { owner: values.owner } : {}) });
        reveal("The token", html`<p>It is shown only now. Programs send it as a header:</p><${Copy} text=${`Authorization: Bearer ${made.token}`} />`);
        return false;
      },
      fields: () => {
        const owners = useData(async () => (who.member ? [] : [...(await api.all("/administrators")).map((one) => [`administrator:${one.name}`, `administrator ${one.name}`]), ...(await api.all("/members")).map((member) => [`member:${member.id}`, `member ${member.id}`])]), []);
        return html`<${Field} label="What for" name="name" required maxlength="255" placeholder="nightly import" />
          ${!who.member && html`<${Field} label="Speaks for" as="select" name="owner" value=${`administrator:${who.name}`} options=${owners.data ?? []} />`}
          <fieldset><legend>May change</legend>${scopes.map(([name, words]) => html`<${Check} label=${words} name="scopes" value=${name} checked=${name === "read"} />`)}</fieldset>
          <${Field} label="Ends after (days)" name="days" type="number" min="1" value="365" hint="Empty: never." />`;
      },
    });
  const gone = (token) => confirm({ title: `Revoke “${token.name}”?`, name: token.id, verb: "Revoke", text: "Programs that use it are refused at once.", act: () => api.remove(`/api-tokens/${api.seg(token.id)}`), done: "The token is worthless now." });
  return html`<${Kind} at="keys/api"><${Card} flush title="API tokens" actions=${acts && html`<button class="primary" onClick=${make}>New token</button>`}><${Got} from=${list}>${({ items }) => html`<${Table} caption="API tokens" rows=${items} keyOf=${(token) => token.id} empty=${html`<${Empty} icon="keys" title="No API tokens">Scripts use the same API as these pages, with a token of their own.<//>`} columns=${[
    { label: "What for", show: (token) => html`<${Words}>${token.name}<//><p class="soft small mono">${token.id}</p>` },
    { label: "Speaks for", show: (token) => html`<bdi class="wordy">${token.owner}</bdi>` },
    { label: "May", show: (token) => html`<ul class="inline-list">${token.scopes.map((one) => html`<li><${Badge}>${one}<//></li>`)}</ul>` },
    { label: "State", show: (token) => (token.revoked ? html`<${Badge} tone="bad">revoked<//>` : token.expires && new Date(token.expires) < Date.now() ? html`<${Badge}>expired<//>` : html`<${Badge} tone="ok">good<//>`) },
    { label: "Ends", show: (token) => (token.expires ? html`<${When} at=${token.expires} />` : "never") },
    { label: "", hide: !acts, show: (token) => !token.revoked && html`<div class="actions"><button class="small danger" onClick=${() => gone(token)} aria-label=${`Revoke ${token.name}`}>Revoke</button></div>` },
  ]} />`}<//><//><//>`;
}

export function EnrolmentTokens() {
  const list = useGet("/tokens", { limit: 500, order: "desc" }, ["token.", "certificate.enrol"]);
  return html`<${Kind} at="keys/enrol"><${Card} flush title="Enrolment tokens" actions=${html`<a href="#/members">Made on a member's page</a>`}><${Got} from=${list}>${({ items }) => html`<${TokenTable} rows=${items} withMember=${true} />`}<//><//><//>`;
}
