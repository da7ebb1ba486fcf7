// Who sees whom: the policy as a matrix of members, each cell with its rule.
import { html, useState, useMemo } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Table, Badge, Member, NetId, Got, Empty, Field, Note } from "../parts.js";
import { fill, say, open, confirm } from "../dialogs.js";
import { plural, count } from "../text.js";
import { useWho } from "../who.js";
import { index, sight, byHolder } from "../rules.js";

/** Members on each side of the matrix at once: more is no picture any more. */
const SIDE = 30;
const SHARING = [["", "As the default says"], ["open", "Everybody"], ["agreements", "Only who has an agreement"], ["closed", "Nobody else"]];

export const change = (body) => api.post("/policy/changes", body);

/** Makes a change, and says so with the way back. */
async function apply(body, words, back) {
  try {
    await change(body);
    say(words, back && (() => change(back)));
  } catch (problem) {
    say(problem.message);
  }
}

export function Policy() {
  const who = useWho();
  const policy = useGet("/policy", undefined, ["policy.", "member.", "netid."]);
  const networks = useData(() => api.all("/netids"), [], ["netid.", "member."]);
  return who.member ? html`<${Own} policy=${policy} networks=${networks} who=${who} />` : html`<${Full} policy=${policy} networks=${networks} />`;
}

function Full({ policy, networks }) {
  const who = useWho();
  const members = useData(() => api.all("/members"), [], ["member."]);
  return html`<${Page} title="Policy" lead="Who may resolve whose devices. The first rule that fits decides: a ban, the NetID's own rule, an agreement, the default.">
    <${Got} from=${policy}>${(policy) => html`<div class="stack">
      <${Basics} policy=${policy} />
      <${Got} from=${members}>${(members) => html`<${Got} from=${networks}>${(networks) => (members.length
        ? html`<${Matrix} policy=${policy} members=${members} networks=${networks} /><${Rules} policy=${policy} networks=${networks} members=${members} />`
        : html`<${Card}><${Empty} icon="policy" title="No members yet">The matrix shows who sees whom as soon as there are two.<//><//>`)}<//>`}<//>
    </div>`}<//>
  <//>`;
}

function Basics({ policy }) {
  const who = useWho();
  const turn = () => {
    const next = policy.default === "open" ? "closed" : "open";
    confirm({
      title: next === "closed" ? "Close the federation by default?" : "Open the federation by default?", verb: next === "closed" ? "Close it" : "Open it", name: next,
      text: next === "closed" ? "Members without an agreement no longer see each other's devices; roaming between them ends with the next look-up." : "Every member sees every device, unless a ban or a NetID's own rule says otherwise.",
      act: () => change({ default: next }), done: `The default is ${next} now.`, undo: () => change({ default: policy.default }),
    });
  };
  const tell = () => apply({ tell: !policy.tell }, policy.tell ? "What is hidden looks unregistered." : "Answers say that policy hides something.", { tell: policy.tell });
  return html`<${Card} title="Ground rules"><dl class="facts">
    <dt>Default</dt><dd>${policy.default === "open" ? "Open: every member may resolve every device" : "Closed: only who has an agreement"} ${who.change && html`<button class="small" onClick=${turn}>${policy.default === "open" ? "Close" : "Open"}</button>`}</dd>
    <dt>What is hidden</dt><dd>${policy.tell ? "is answered with “Prohibited” (extended error 18)" : "looks as if nobody had registered it"} ${who.change && html`<button class="small" onClick=${tell}>Change</button>`}</dd>
  </dl><//>`;
}

const SIGNS = { all: ["yes", "✓", "sees all"], part: ["part", "◐", "sees a part"], none: ["no", "✕", "sees nothing"] };

function Matrix({ policy, members, networks }) {
  const [text, set] = useState("");
  const [from, move] = useState(0);
  const known = useMemo(() => index(policy), [policy]);
  const held = useMemo(() => byHolder(networks), [networks]);
  const wanted = members.filter((member) => !text || `${member.id} ${member.name}`.toLowerCase().includes(text.toLowerCase()));
  const askers = wanted.slice(from, from + SIDE);
  const holders = wanted.slice(0, Math.max(SIDE, from + SIDE)).slice(-SIDE);
  const cell = (asker, holder) => {
    if (asker.id === holder.id) return html`<td><div class="self" title="itself">·<span class="hidden"> itself</span></div></td>`;
    const { extent, rulings } = sight(known, asker.id, holder.id, held.get(holder.id) ?? []);
    const [tone, sign, words] = SIGNS[extent];
    return html`<td><button class=${tone} title=${`${asker.id} ${words} of ${holder.id}: ${rulings[0].why}`} onClick=${() => openCell(policy, asker, holder, held.get(holder.id) ?? [])} aria-label=${`${asker.id} ${words} of ${holder.id}`}>${sign}</button></td>`;
  };
  return html`<${Card} title="Who sees whom">
    <p class="soft">A row asks, a column holds. Choose a cell to see its rule and to change it.</p>
    ${members.length > SIDE && html`<div class="row"><${Field} label="Find members" type="search" value=${text} onInput=${(event) => { set(event.currentTarget.value); move(0); }} hint=${`${plural(wanted.length, "member")}, ${SIDE} at once.`} /></div>`}
    <div class="matrix" tabindex="0" role="region" aria-label="Matrix of who sees whom"><table><caption class="hidden">Who sees whom</caption>
      <thead><tr><td></td>${holders.map((holder) => html`<th scope="col" title=${holder.id}><div><bdi>${holder.name}</bdi></div></th>`)}</tr></thead>
      <tbody>${askers.map((asker) => html`<tr key=${asker.id}><th scope="row" title=${asker.id}><bdi>${asker.name}</bdi></th>${holders.map((holder) => cell(asker, holder))}</tr>`)}</tbody>
    </table></div>
    <ul class="legend">${Object.values(SIGNS).map(([tone, sign, words]) => html`<li><${Badge} tone=${{ yes: "ok", part: "warn", no: "bad" }[tone]}>${sign}<//> ${words}</li>`)}</ul>
    ${wanted.length > SIDE && html`<div class="form-end"><button disabled=${from === 0} onClick=${() => move(from - SIDE)}>Before</button><button disabled=${from + SIDE >= wanted.length} onClick=${() => move(from + SIDE)}>Next</button></div>`}
  <//>`;
}

function openCell(policy, asker, holder, networks) {
  open(`${asker.name} → ${holder.name}`, (close) => html`<${Cell} ...${{ policy, asker, holder, networks, close }} />`);
}

function Cell({ policy, asker, holder, networks, close }) {
  const who = useWho();
  const { rulings } = sight(index(policy), asker.id, holder.id, networks);
  const pair = [asker.id, holder.id];
  const agreed = policy.agreements.some(([a, b]) => (a === asker.id && b === holder.id) || (b === asker.id && a === holder.id));
  const banned = policy.deny.some((ban) => ban.asker === asker.id && ban.holder === holder.id);
  const ban = { asker: asker.id, holder: holder.id };
  const act = async (body, words, back) => {
    close();
    await apply(body, words, back);
  };
  return html`<p><bdi>${asker.name}</bdi> asks for devices of <bdi>${holder.name}</bdi>:</p>
    <ul>${rulings.map((one) => html`<li>${one.network.netid ? html`<span class="mono">${one.network.netid}</span>: ` : ""}<strong>${one.seen ? "answered" : "hidden"}</strong>, since ${one.why}</li>`)}</ul>
    ${who.change && html`<div class="actions">
      ${agreed ? html`<button onClick=${() => act({ part: pair }, "The agreement has ended.", { agree: pair })}>End their agreement</button>` : html`<button class="primary" onClick=${() => act({ agree: pair }, "They have an agreement now.", { part: pair })}>Let them agree</button>`}
      ${banned ? html`<button onClick=${() => act({ permit: ban }, "The ban is lifted.", { deny: ban })}>Lift the ban</button>` : html`<button class="danger" onClick=${() => act({ deny: ban }, `${asker.id} sees nothing of ${holder.id} any more.`, { permit: ban })}>Ban ${asker.id}</button>`}
    </div>`}
    <div class="form-end"><button onClick=${close}>Close</button></div>`;
}


function Rules({ policy, networks, members }) {
  const who = useWho();
  const own = Object.entries(policy.netids);
  const share = () => shareForm(networks, policy);
  return html`<div class="grid">
    <${Card} className="half" flush title="NetIDs with a rule of their own" actions=${who.change && networks.length > 0 && html`<button class="small" onClick=${share}>Set a rule</button>`}><${Table} caption="NetIDs with a rule of their own" rows=${own} keyOf=${([netid]) => netid} empty=${html`<${Empty} title="None">Each NetID follows agreements and the default.<//>`} columns=${[
      { label: "NetID", show: ([netid]) => html`<${NetId} id=${netid} />` },
      { label: "Who sees it", show: ([, sharing]) => SHARING.find(([value]) => value === sharing)?.[1] ?? sharing },
      { label: "", hide: !who.change, show: ([netid, sharing]) => html`<div class="actions"><button class="small" onClick=${() => apply({ unshare: netid }, `${netid} has no rule of its own any more.`, { share: { netid, sharing } })} aria-label=${`Remove the rule of ${netid}`}>Remove</button></div>` },
    ]} /><//>
    <${Card} className="half" flush title="Bans"><${Table} caption="Bans" rows=${policy.deny} keyOf=${(ban) => `${ban.asker} ${ban.holder} ${ban.netid}`} empty=${html`<${Empty} title="Nobody is banned">A ban goes before every other rule. Choose a cell of the matrix to set one.<//>`} columns=${[
      { label: "Who", show: (ban) => html`<bdi>${ban.asker}</bdi>` },
      { label: "From", show: (ban) => (ban.netid ? html`<${NetId} id=${ban.netid} />` : html`<bdi>${ban.holder}</bdi>`) },
      { label: "", hide: !who.change, show: (ban) => html`<div class="actions"><button class="small" onClick=${() => apply({ permit: ban }, "The ban is lifted.", { deny: ban })} aria-label=${`Lift the ban of ${ban.asker}`}>Lift</button></div>` },
    ]} /><//>
    <${Card} flush title="Agreements"><${Table} caption="Agreements" rows=${policy.agreements} keyOf=${(pair) => pair.join(" ")} empty=${html`<${Empty} title="No agreements">${policy.default === "open" ? "None is needed while the default is open." : "With a closed default nobody sees anybody: choose a cell of the matrix to let two agree."}<//>`} columns=${[
      { label: "Member", show: ([a]) => html`<${Member} id=${a} />` },
      { label: "and", show: ([, b]) => html`<${Member} id=${b} />` },
      { label: "", hide: !who.change, show: (pair) => html`<div class="actions"><button class="small" onClick=${() => apply({ part: pair }, "The agreement has ended.", { agree: pair })} aria-label=${`End the agreement of ${pair.join(" and ")}`}>End</button></div>` },
    ]} /><//>
  </div>`;
}

function shareForm(networks, policy, only) {
  const list = networks.filter((network) => !only || network.member === only);
  fill({
    title: "Who sees the devices of a NetID", verb: "Set", done: "The rule is set.",
    act: ({ netid, sharing }) => change(sharing ? { share: { netid, sharing } } : { unshare: netid }),
    fields: html`<${Field} label="NetID" as="select" name="netid" options=${list.map((network) => [network.netid, `${network.netid} · ${network.member}`])} /><${Field} label="Who sees its devices" as="select" name="sharing" value=${policy?.netids[list[0]?.netid] ?? ""} options=${SHARING} />`,
  });
}

/** A member's own part: its NetIDs' rules, and whom it bans. */
function Own({ policy, networks, who }) {
  const ban = (others) =>
    fill({ title: "Ban a member from your devices", verb: "Ban", act: ({ asker }) => change({ deny: { asker, holder: who.member } }), done: "It sees none of your devices any more.", fields: html`<${Field} label="Member" as="select" name="asker" options=${others.map((member) => [member, member])} />` });
  return html`<${Page} title="Who sees you" lead="Who may resolve your devices. You decide for your own NetIDs; what holds for all is the administrator's.">
    <${Got} from=${networks}>${(networks) => {
      const mine = networks.filter((network) => network.member === who.member);
      const others = [...new Set(networks.map((network) => network.member))].filter((member) => member !== who.member);
      const known = policy.data;
      return html`<div class="stack">
        ${policy.error && html`<${Note}>The rules as they are now are shown to administrators. You can set yours all the same.<//>`}
        <${Card} flush title="Your NetIDs" actions=${mine.length > 0 && html`<button onClick=${() => shareForm(networks, known, who.member)}>Set a rule</button>`}><${Table} caption="Your NetIDs" rows=${mine} keyOf=${(network) => network.netid} empty=${html`<${Empty} icon="netids" title="You have no NetID" />`} columns=${[
          { label: "NetID", show: (network) => html`<${NetId} id=${network.netid} />` },
          { label: "Devices", num: true, show: (network) => count(network.devices) },
          { label: "Who sees them", show: (network) => (known ? SHARING.find(([value]) => value === (known.netids[network.netid] ?? ""))?.[1] : "–") },
        ]} /><//>
        <${Card} flush title="Whom you ban" actions=${others.length > 0 && html`<button onClick=${() => ban(others)}>Ban a member</button>`}><${Table} caption="Whom you ban" rows=${known?.deny ?? []} keyOf=${(one) => `${one.asker} ${one.netid}`} empty=${html`<${Empty} title="Nobody">A banned member gets the answer of a device that nobody has registered.<//>`} columns=${[
          { label: "Member", show: (one) => html`<bdi>${one.asker}</bdi>` },
          { label: "From", show: (one) => one.netid ?? "all of yours" },
          { label: "", show: (one) => html`<div class="actions"><button class="small" onClick=${() => apply({ permit: one }, "The ban is lifted.", { deny: one })}>Lift</button></div>` },
        ]} /><//>
        ${known && html`<${Card} title="What else holds"><dl class="facts"><dt>Default</dt><dd>${known.default === "open" ? "Open: every member may resolve every device" : "Closed: only who has an agreement"}</dd><dt>Your agreements</dt><dd>${known.agreements.length ? known.agreements.map((pair) => pair.find((member) => member !== who.member)).join(", ") : "none"}</dd></dl><//>`}
      </div>`;
    }}<//>
  <//>`;
}
