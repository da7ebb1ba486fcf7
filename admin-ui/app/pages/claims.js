// Claims: one member lists a device that another holds. Somebody has to decide.
import { html, useState } from "../html.js";
import * as api from "../api.js";
import { useList } from "../live.js";
import { Page, Card, Table, Badge, Member, Eui, When, Got, Empty, Field, More, Words } from "../parts.js";
import { fill, confirm } from "../dialogs.js";
import { plural } from "../text.js";
import { sorted } from "../route.js";
import { useWho } from "../who.js";

export function Claims({ query }) {
  const who = useWho();
  const by = sorted(query, "claimant");
  const list = useList("/claims", { limit: 200, sort: by.sort, order: by.order }, ["claim.", "devices.", "move.", "source.transfer"]);
  const [marked, mark] = useState(new Set());
  const name = (id) => (who.member ? html`<bdi>${id ?? "another member"}</bdi>` : id ? html`<${Member} id=${id} />` : html`<span class="soft">nobody</span>`);
  const key = (claim) => `${claim.claimant}/${claim.deveui}`;
  const turn = (claim) => {
    const next = new Set(marked);
    next.has(key(claim)) ? next.delete(key(claim)) : next.add(key(claim));
    mark(next);
  };
  const chosen = list.items.filter((claim) => marked.has(key(claim)));
  const one = new Set(chosen.map((claim) => claim.claimant)).size === 1;
  const act = (claims, grant) =>
    fill({
      title: grant ? `Give ${plural(claims.length, "device")} to ${claims[0].claimant}?` : `Reject ${plural(claims.length, "claim")} of ${claims[0].claimant}?`,
      verb: grant ? "Give" : "Reject",
      act: async ({ reason }) => {
        const result = await api.post("/claims/decide", { claimant: claims[0].claimant, devices: claims.map((claim) => claim.deveui), grant, reason });
        mark(new Set());
        list.reload();
        return result;
      },
      done: (settled) => (grant ? `${plural(settled.moved, "device")} went over.` : `${plural(claims.length, "claim")} rejected.`),
      fields: html`<p>${grant ? "The holder loses the devices in one step; no look-up fails meanwhile. To take it back, move them." : "The holder keeps the devices. The claimant sees the reason with its next list."}</p><${Field} label="Reason" name="reason" required maxlength="255" />`,
    });
  const release = (claim) => confirm({ title: `Let ${claim.deveui} go?`, name: claim.deveui, verb: `Give it to ${claim.claimant}`, text: "The device resolves to the claimant from then on.", act: () => api.post("/devices/release", { devices: [claim.deveui], to: claim.claimant }), done: "The device went over." });
  const withdraw = (claim) => fill({ title: `Give up ${claim.deveui}?`, verb: "Give it up", act: () => api.post("/claims/withdraw", { devices: [claim.deveui] }), done: "The claim is withdrawn. Your next list that names the device claims it again.", fields: html`<p>You no longer claim the device.</p>` });
  return html`<${Page} title="Claims" lead=${who.member ? "Devices that you and another member both list. The holder lets go, the claimant gives up, or an administrator decides." : "Devices that one member lists and another holds. Nothing changes hands until somebody decides."}
      actions=${who.change && chosen.length > 0 && one && html`<button onClick=${() => act(chosen, false)}>Reject ${chosen.length}</button><button class="primary" onClick=${() => act(chosen, true)}>Give ${chosen.length}</button>`}>
    <${Card} flush><${Got} from=${list}>${() => html`<${Table} caption="Claims" sorted=${by} rows=${list.items} keyOf=${key} empty=${html`<${Empty} icon="claims" title="No claims">If two members list the same device, it shows here with both names. The holder keeps it until this is settled.<//>`} columns=${[
      { label: "Choose", hide: !who.change, show: (claim) => html`<input type="checkbox" class="tick" aria-label=${`Choose ${claim.deveui} claimed by ${claim.claimant}`} checked=${marked.has(key(claim))} onChange=${() => turn(claim)} />` },
      { label: "Device", sort: "deveui", show: (claim) => html`<${Eui} id=${claim.deveui} />` },
      { label: "Wanted by", sort: "claimant", show: (claim) => html`${name(claim.claimant)} <span class="soft small">under ${claim.netid}</span>` },
      { label: "Held by", show: (claim) => html`${name(claim.holder)}${claim.held && html` <span class="soft small">under ${claim.held}</span>`}` },
      { label: "Since", sort: "since", show: (claim) => html`<${When} at=${claim.since} />` },
      { label: "State", show: (claim) => (claim.rejected ? html`<${Badge} tone="bad">rejected<//><p class="soft small"><${Words}>${claim.rejected}<//></p>` : html`<${Badge} tone="warn">waits<//>`) },
      { label: "", hide: !who.change && !who.member, show: (claim) => html`<div class="actions">${who.change && html`<button class="small" onClick=${() => act([claim], true)}>Give</button>${!claim.rejected && html`<button class="small" onClick=${() => act([claim], false)}>Reject</button>`}`}${who.member && claim.holder === who.member && html`<button class="small" onClick=${() => release(claim)}>Let go</button>`}${who.member && claim.claimant === who.member && html`<button class="small" onClick=${() => withdraw(claim)}>Give up</button>`}</div>` },
    ]} /><${More} list=${list} shown=${list.items.length} />`}<//><//>
  <//>`;
}
