// What the search at the top found: members, NetIDs, devices by their first digits.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData } from "../live.js";
import { Page, Card, Member, NetId, Eui, Got, Empty } from "../parts.js";
import { devEui, plural } from "../text.js";
import { useWho } from "../who.js";

export function Find({ query }) {
  const who = useWho();
  const text = (query.q ?? "").trim();
  const found = useData(async () => {
    const { prefix } = devEui(text);
    const [members, networks, devices] = await Promise.all([
      who.member ? [] : api.get("/members", { text, limit: 20 }).then((page) => page.items),
      api.all("/netids").then((all) => all.filter((network) => network.netid.startsWith(text.toLowerCase())).slice(0, 20)),
      prefix ? api.get("/devices", { prefix, limit: 20 }).then((page) => page.items) : [],
    ]);
    return { members, networks, devices };
  }, [text]);
  const list = (title, items) => items.length > 0 && html`<${Card} title=${title}><ul class="recent">${items}</ul><//>`;
  return html`<${Page} title=${`Search: ${text}`} lead="Members by id or name, NetIDs and devices by their first digits."><${Got} from=${found}>${({ members, networks, devices }) => html`<div class="stack">
    ${list("Members", members.map((member) => html`<li><${Member} id=${member.id} name=${member.name} /> <span class="soft small">${plural(member.devices, "device")}</span></li>`))}
    ${list("NetIDs", networks.map((network) => html`<li><${NetId} id=${network.netid} /> <span class="soft small">${network.member}</span></li>`))}
    ${list("Devices", devices.map((device) => html`<li><${Eui} id=${device.deveui} /> <span class="soft small">${device.member}</span></li>`))}
    ${!members.length && !networks.length && !devices.length && html`<${Card}><${Empty} icon="search" title="Nothing fits">Try the first digits of a DevEUI or NetID${who.member ? "" : ", or a part of a member's name"}.<//><//>`}
  </div>`}<//><//>`;
}
