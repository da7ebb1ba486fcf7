// Webhooks: where the broker posts what happens, and how that goes.
import { html, useEffect, useRef } from "../html.js";
import * as api from "../api.js";
import { useList } from "../live.js";
import { Page, Card, Table, Badge, Member, Got, Empty, Field, More, Note, Copy, Words, items } from "../parts.js";
import { confirm, fill, reveal, say } from "../dialogs.js";
import { plural } from "../text.js";
import { sorted } from "../route.js";
import { useWho } from "../who.js";

const PAGE = 100;

/** What most want to hear of. */
const USUAL = "claim., move., certificate., source.";

const at = (hook) => `/webhooks/${hook.id}`;

export function Webhooks({ query }) {
  const who = useWho();
  const by = sorted(query, "url");
  const list = useList("/webhooks", { limit: PAGE, sort: by.sort, order: by.order }, ["webhook."]);
  // How the posting goes is told by no event. Who reads on is left alone.
  const look = useRef(null);
  look.current = () => list.items.length <= PAGE && list.reload();
  useEffect(() => {
    const timer = setInterval(() => look.current(), 5000);
    return () => clearInterval(timer);
  }, []);
  const acts = who.change || who.member;
  const fields = (hook) => html`<${Field} label="Where to" name="url" type="url" required value=${hook?.url ?? ""} placeholder="https://hooks.example.net/dnsbroker" />
    <${Field} label="Events" name="events" required value=${hook ? hook.events.join(", ") : USUAL} hint="Kinds, or how they begin, commas between them: “claim.” is all about claims. The stream of events and the audit have their names." />`;
  const body = ({ url, events }) => ({ url: url.trim(), events: items(events) });
  const add = () =>
    fill({
      title: "Post events to a program", verb: "Add", wide: true, fields: fields(),
      act: async (values) => {
        const made = await api.create("/webhooks", body(values));
        list.reload();
        reveal("The secret", html`<p>It is shown only now. The program finds a signature in <code>webhook-signature</code> of each message: <code>v1,</code> and the base64 of HMAC-SHA256 over <code>webhook-id.webhook-timestamp.body</code> under the secret's octets (Standard Webhooks).</p><${Copy} text=${made.secret} />`);
        return false;
      },
    });
  const change = (hook) => fill({ title: `Change webhook ${hook.id}`, verb: "Save", wide: true, fields: fields(hook), act: (values) => api.put(at(hook), body(values)), done: () => { list.reload(); return hook.disabled ? "Saved: it is tried again." : "Saved."; } });
  const test = async (hook) => {
    try {
      const { ok, error, milliseconds } = await api.post(`${at(hook)}/test`);
      say(ok ? `Taken, after ${milliseconds} ms.` : `Not taken: ${error}.`);
    } catch (problem) {
      say(problem.message);
    }
  };
  const gone = (hook) => confirm({ title: `Post nothing more to ${hook.url}?`, name: String(hook.id), verb: "Remove", text: "What has not been delivered yet is not, and its secret is worthless.", act: () => api.remove(at(hook)), done: () => { list.reload(); return "Nothing is posted there any more."; } });
  const state = (hook) => {
    if (hook.disabled) return html`<${Badge} tone="bad">disabled<//><p class="small"><${Words}>${hook.disabled}<//></p>`;
    if (hook.failures) return html`<${Badge} tone="warn">failed ${plural(hook.failures, "time")}<//><p class="small"><${Words}>${hook.error}<//></p>`;
    return html`<${Badge} tone="ok">works<//>`;
  };
  const button = acts && html`<button class="primary" onClick=${add}>Add a webhook</button>`;
  return html`<${Page} title="Webhooks" lead="Programs that are told of what happens, by signed messages in the order in which it did." actions=${button}>
    <div class="stack"><${Card} flush><${Got} from=${list}>${() => html`<${Table} caption="Webhooks" sorted=${by} rows=${list.items} keyOf=${(hook) => hook.id} empty=${html`<${Empty} icon="webhooks" title="No webhooks" action=${button}>A chat, a ticket system or a script of yours can hear of claims, moves, certificates that end and sources that fail.<//>`} columns=${[
      { label: "Where to", sort: "url", show: (hook) => html`<bdi class="wordy">${hook.url}</bdi><p class="soft small mono">${hook.id}</p>` },
      { label: "Events", show: (hook) => html`<ul class="inline-list">${hook.events.map((kind) => html`<li><span class="mono small">${kind}</span></li>`)}</ul>` },
      { label: "Of", hide: who.member, show: (hook) => (hook.member ? html`<${Member} id=${hook.member} />` : "all") },
      { label: "State", show: state },
      { label: "", hide: !acts, show: (hook) => html`<div class="actions"><button class="small" onClick=${() => test(hook)} aria-label=${`Test ${hook.id}`}>Test</button><button class="small" onClick=${() => change(hook)} aria-label=${`Change ${hook.id}`}>Change</button><button class="small danger" onClick=${() => gone(hook)} aria-label=${`Remove ${hook.id}`}>Remove</button></div>` },
    ]} /><${More} list=${list} shown=${list.items.length} />`}<//><//>
    <${Note}>What is not answered with 2xx is sent again for a day; then the webhook is disabled, and to change it is to have it tried again. ${who.member ? "Yours hear what concerns you, need HTTPS and reach public addresses only." : ""}<//></div>
  <//>`;
}
