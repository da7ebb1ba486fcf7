// Moves: devices that change operator, at once, at a time, or when the other side accepts.
import { html } from "../html.js";
import * as api from "../api.js";
import { useGet, useData } from "../live.js";
import { Page, Card, Table, State, Eui, When, Got, Empty, Field, Words } from "../parts.js";
import { fill } from "../dialogs.js";
import { are, count, moment, plural } from "../text.js";
import { sorted } from "../route.js";
import { useWho } from "../who.js";
import { moveForm } from "./devices.js";
import { inWords, particulars } from "../acts.js";

export function Moves({ query }) {
  const who = useWho();
  const by = sorted(query, "id");
  const list = useGet("/moves", { limit: 1000, sort: by.sort, order: by.order }, ["move."]);
  const cancel = (move) => fill({ title: `${move.to === who.member ? "Decline" : "Stop"} move ${move.id}?`, verb: move.to === who.member ? "Decline" : "Stop it", act: ({ reason }) => api.post(`/moves/${move.id}/cancel`, reason ? { reason } : {}), done: "The devices stay where they are.", fields: html`<${Field} label="Reason" name="reason" maxlength="255" />` });
  const accept = (move) =>
    fill({
      title: `Accept ${plural(move.devices, "device")}?`, verb: "Accept", act: ({ netid }) => api.post(`/moves/${move.id}/accept`, { netid }),
      done: (moved) => (moved.waits ? "Accepted: they come at the time that was set." : `${plural(moved.moved, "device")} ${are(moved.moved)} yours.`),
      fields: () => {
        const networks = useData(() => api.all("/netids", { member: move.to }), []);
        return html`<${Field} label="Under which NetID" as="select" name="netid" options=${(networks.data ?? []).map((network) => [network.netid, network.netid])} />`;
      },
    });
  const start = (who.change || who.member) && html`<button class="primary" onClick=${() => moveForm([], who)}>${who.member ? "Offer devices" : "Move devices"}</button>`;
  return html`<${Page} title="Moves" lead="A device changes its operator without being touched: from then on it resolves to the new one." actions=${start}>
    <div class="stack"><${Card} flush title="Under way"><${Got} from=${list}>${({ items }) => html`<${Table} caption="Moves under way" sorted=${by} rows=${items} keyOf=${(move) => move.id} empty=${html`<${Empty} icon="moves" title="No move is under way">Moves that were made at once are in the history of the device. Planned ones and offers wait here.<//>`} columns=${[
      { label: "Move", sort: "id", show: (move) => move.id },
      { label: "Devices", sort: "devices", show: (move) => html`${count(move.devices)} <span class="small">${move.devices_shown.slice(0, 2).map((id) => html`<${Eui} id=${id} /> `)}${move.devices > 2 ? "…" : ""}</span>` },
      { label: "From", show: (move) => (move.from ? html`<bdi>${move.from}</bdi>` : html`${move.holders?.length ? html`<bdi>${move.holders.join(", ")}</bdi>, ` : ""}ordered by an administrator`) },
      { label: "To", show: (move) => html`<bdi>${move.to}</bdi>${move.netid && html` <span class="soft small">under ${move.netid}</span>`}` },
      { label: "When", sort: "at", show: (move) => (move.at ? html`<span title=${moment(move.at)}><${When} at=${move.at} /></span>` : "once accepted") },
      { label: "Reason", show: (move) => html`<${Words}>${move.reason}<//>` },
      { label: "State", show: (move) => html`<${State} of=${move.state} />` },
      { label: "", hide: !who.change && !who.member, show: (move) => html`<div class="actions">${move.state === "offered" && (who.change || move.to === who.member) && html`<button class="small primary" onClick=${() => accept(move)}>Accept</button>`}${(who.change || move.from) && html`<button class="small" onClick=${() => cancel(move)}>${move.to === who.member ? "Decline" : "Stop"}</button>`}</div>` },
    ]} />`}<//><//>
    ${!who.member && html`<${Past} />`}</div>
  <//>`;
}

function Past() {
  const rows = useData(async () => {
    const [moves, direct] = await Promise.all([api.get("/audit", { act: "move.", limit: 20, order: "desc" }), api.get("/audit", { act: "devices.move", limit: 20, order: "desc" })]);
    return [...moves.items, ...direct.items].sort((a, b) => b.number - a.number).slice(0, 20);
  }, [], ["move.", "devices.move"]);
  return html`<${Card} flush title="Before"><${Got} from=${rows}>${(items) => html`<${Table} caption="Moves before" rows=${items} keyOf=${(row) => row.number} empty=${html`<${Empty} title="None yet" />`} columns=${[
    { label: "When", show: (row) => html`<${When} at=${row.at} />` },
    { label: "What", show: (row) => inWords(row.act) },
    { label: "Which", show: (row) => html`<bdi class="mono small">${row.object}</bdi>` },
    { label: "Particulars", show: (row) => html`<bdi class="small">${particulars(row.detail)}</bdi>` },
    { label: "By", show: (row) => html`<bdi>${row.actor}</bdi>` },
  ]} />`}<//><//>`;
}
