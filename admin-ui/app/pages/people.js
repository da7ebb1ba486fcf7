// Administrators and auditors.
import { html } from "../html.js";
import * as api from "../api.js";
import { useGet } from "../live.js";
import { Page, Card, Table, Badge, When, Got, Field, Check, Copy } from "../parts.js";
import { confirm, fill, reveal, say } from "../dialogs.js";
import { useWho } from "../who.js";
import { Qr } from "../qr.js";

const ROLES = [["admin", "Administrator: may do everything"], ["auditor", "Auditor: reads everything, changes nothing"]];

export function People() {
  const who = useWho();
  const list = useGet("/administrators", { limit: 1000 }, ["administrator."]);
  const add = () =>
    fill({
      title: "Add an administrator or auditor", verb: "Add",
      act: async (values) => {
        const made = await api.create("/administrators", { name: values.name.trim(), role: values.role, totp: values.totp === "on" });
        reveal(`${made.name} is added`, html`<p>Both are shown only now. Hand them over in person or on a channel you trust.</p><h3>Password, to be changed at once</h3><${Copy} text=${made.password} />${made.secret && html`<h3>Second factor</h3><${Qr} text=${made.secret.uri} /><${Copy} text=${made.secret.secret} />`}`);
        return false;
      },
      fields: html`<${Field} label="Name to log in with" name="name" required pattern="[a-z0-9._@\\-]+" maxlength="64" hint="Lower-case letters, digits, and . _ @ -" /><${Field} label="Role" as="select" name="role" value="admin" options=${ROLES} /><${Check} label="Make a second factor for them" name="totp" hint="Or they set one up themselves, in the settings." />`,
    });
  const path = (one) => `/administrators/${api.seg(one.name)}`;
  const act = async (one, body, words, back) => {
    try {
      await api.patch(path(one), body);
      say(words, back && (() => api.patch(path(one), back)));
    } catch (problem) {
      say(problem.message);
    }
  };
  const role = (one) => fill({ title: `Role of ${one.name}`, verb: "Change", act: ({ role }) => api.patch(path(one), { role }), done: "Changed.", undo: () => api.patch(path(one), { role: one.role }), fields: html`<${Field} label="Role" as="select" name="role" value=${one.role} options=${ROLES} />` });
  const reset = (one) => confirm({ title: `Take the second factor of ${one.name} away?`, name: one.name, verb: "Take it away", text: "For somebody who has lost it. Until they set up a new one, the password alone opens the door.", act: () => api.patch(path(one), { totp: false }), done: "They can set up a new one now." });
  const disable = (one) => confirm({ title: `Lock ${one.name} out?`, name: one.name, verb: "Lock out", text: "Their sessions and API tokens end at once. You can let them in again.", act: () => api.patch(path(one), { disabled: true }), done: `${one.name} is locked out.`, undo: () => api.patch(path(one), { disabled: false }) });
  const gone = (one) => confirm({ title: `Remove ${one.name}?`, name: one.name, verb: "Remove", text: "Their API tokens go with them. What they did stays in the audit.", act: () => api.remove(path(one)), done: `${one.name} is removed.` });
  return html`<${Page} title="Administrators" lead="Who runs this federation from here." actions=${who.change && html`<button class="primary" onClick=${add}>Add somebody</button>`}>
    <${Card} flush><${Got} from=${list}>${({ items }) => html`<${Table} caption="Administrators" rows=${items} keyOf=${(one) => one.name} columns=${[
      { label: "Name", show: (one) => html`<bdi>${one.name}</bdi>${one.name === who.name && who.expires ? html` <span class="soft small">(you)</span>` : ""}` },
      { label: "Role", show: (one) => one.role },
      { label: "Second factor", show: (one) => (one.totp ? html`<${Badge} tone="ok">yes<//>` : html`<${Badge} tone="warn">no<//>`) },
      { label: "State", show: (one) => (one.disabled ? html`<${Badge} tone="bad">locked out<//>` : html`<${Badge} tone="ok">active<//>`) },
      { label: "Since", show: (one) => html`<${When} at=${one.created} />` },
      { label: "", hide: !who.change, show: (one) => html`<div class="actions wrap"><button class="small" onClick=${() => role(one)} aria-label=${`Role of ${one.name}`}>Role</button>${one.totp && html`<button class="small" onClick=${() => reset(one)} aria-label=${`Reset the second factor of ${one.name}`}>Reset factor</button>`}${one.disabled ? html`<button class="small" onClick=${() => act(one, { disabled: false }, `${one.name} may log in again.`, { disabled: true })} aria-label=${`Let ${one.name} in`}>Let in</button>` : html`<button class="small danger" onClick=${() => disable(one)} aria-label=${`Lock out ${one.name}`}>Lock out</button>`}<button class="small danger" onClick=${() => gone(one)} aria-label=${`Remove ${one.name}`}>Remove</button></div>` },
    ]} />`}<//><//>
  <//>`;
}
