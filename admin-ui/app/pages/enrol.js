// The guided way in for a new operator: who it is, where its network server is, and the one command it has to run.
import { html, useState, useLayoutEffect } from "../html.js";
import * as api from "../api.js";
import { useData } from "../live.js";
import { Page, Card, Field, Form, Note, Copy, items } from "../parts.js";
import { Link } from "../route.js";
import { host, moment } from "../text.js";
import { useWho } from "../who.js";

const STEPS = ["Who", "NetID", "Token", "Done"];
/** What the operator runs; the agent asks, and keeps what it gets in this directory. */
const DIR = "/var/lib/dnsbroker-agent";

/** Whoever opened these pages by an address has no name for the broker that resolves: nor has the operator. */
const by = () => (/^[\d.]+$|:/.test(location.hostname) ? ` --address ${location.hostname.replace(/[[\]]/g, "")}` : "");

/** The token goes in by a pipe, so that it is in no list of processes. */
const command = (token, federation) => `printf %s ${token.token} | dnsbroker-agent enroll --url ${token.instructions.url}${by()} --ca-pin ${token.instructions.ca_pin} --token - --dir ${DIR}/${host(federation)}`;

/** The token as a command to paste, with whether it was used. */
export function TokenCommand({ token }) {
  const who = useWho();
  const known = useData(() => api.get("/tokens", { member: token.member, limit: 50, order: "desc" }).then((page) => page.items.find((one) => one.id === token.id)), [token.id], ["token.", "certificate."]);
  const used = known.data?.certificate;
  return html`<p>Send this to the operator, on a channel you both trust. It works once, until ${moment(token.expires)}, and is shown only now.</p>
    <${Copy} text=${command(token, who.federation)} label="Copy the command" />
    <p class="soft small">Without the agent: any client of EST (RFC 7030), or <code>openssl</code> and <code>curl</code> as the README says.</p>
    <div role="status">${used
      ? html`<${Note} tone="ok" title="Enrolled">The operator has its certificate: <${Link} parts=${["certificates", used]}><span class="mono">${used}</span><//>.<//>`
      : html`<${Note} title="Waiting for the operator">This turns green when the command has run. You need not stay: the member's page shows it too.<//>`}</div>`;
}

export function Enrol() {
  const [step, go] = useState(0);
  const [made, keep] = useState({});
  useLayoutEffect(() => document.querySelector(".wizard-body input")?.focus(), [step]);
  const next = (more) => {
    keep({ ...made, ...more });
    go(step + 1);
  };
  const crumb = html`<a href="#/members">Members</a>`;
  return html`<${Page} title="Enrol a member" crumb=${crumb} lead="Three questions, and one command for the operator to run.">
    <ol class="wizard" aria-label="Steps">${STEPS.map((words, place) => html`<li class=${place < step ? "done" : ""} aria-current=${place === step ? "step" : undefined}><b aria-hidden="true">${place < step ? "✓" : place + 1}</b>${words}</li>`)}</ol>
    <${Card} className="wizard-body narrow" key=${step}>
      ${step === 0 && html`<${Name} next=${next} />`}
      ${step === 1 && html`<${Where} id=${made.id} next=${next} />`}
      ${step === 2 && html`<${Token} id=${made.id} next=${next} />`}
      ${step === 3 && html`<h2>The operator's turn</h2><br /><${TokenCommand} token=${made.token} /><div class="form-end"><a class="button" href=${`#/imports?netid=${made.netid.trim().toLowerCase()}`}>Import its devices</a><${Link} parts=${["members", made.id]} class="button primary">To the member's page<//></div>`}
    <//>
  <//>`;
}

function Name({ next }) {
  const act = async ({ id, name }) => {
    await api.create("/members", { id: id.trim(), ...(name.trim() ? { name: name.trim() } : {}) });
    next({ id: id.trim() });
  };
  return html`<${Form} act=${act} verb="Add the member" onCancel=${() => history.back()}>
    <${Field} label="Id" name="id" required pattern="[a-z0-9](?:[a-z0-9\\-]*[a-z0-9])?" maxlength="63" placeholder="alpine-lora" hint="Short, lower case, for certificates and logs. It stays for ever." />
    <${Field} label="Name for people" name="name" maxlength="255" placeholder="Alpine LoRa" hint="May be changed later. The id where it is empty." />
  <//>`;
}

function Where({ id, next }) {
  const act = async ({ netid, addresses, port, target }) => {
    const body = { member: id, addresses: items(addresses), ...(port ? { port: Number(port) } : {}), ...(target ? { target: target.trim() } : {}) };
    await api.put(`/netids/${api.seg(netid.trim())}`, body);
    next({ netid });
  };
  return html`<${Form} act=${act} verb="Give it the NetID" onCancel=${() => next({})} cancel="Skip">
    <${Note}>Answers about this member's devices say its NetID and where its network server (LNS) is. A member that only resolves needs none: skip this step.<//>
    <div class="row"><${Field} label="NetID" name="netid" required pattern="[0-9a-fA-F]{6}" placeholder="600013" hint="Six hexadecimal digits." /><${Field} label="Port" name="port" type="number" min="1" max="65535" placeholder="8444" hint="Of its network server; may be empty." /></div>
    <${Field} label="Addresses of its network server" name="addresses" required placeholder="198.51.100.19, 2001:db8:13::1" hint="IPv4 or IPv6, with commas between them." />
    <${Field} label="Name in its server's certificate" name="target" placeholder="lns.operator.example" hint="Where that is another than the NetID's own name; may be empty." />
  <//>`;
}

function Token({ id, next }) {
  const act = async ({ hours, pin }) => next({ token: await api.create("/tokens", { member: id, ttl: Number(hours) * 3600, ...(pin ? { key_pin: pin.trim() } : {}) }) });
  return html`<${Form} act=${act} verb="Make the token">
    <p>A one-time token lets <strong>${id}</strong> get its certificate. Its key is made at the operator's and never leaves it.</p>
    <${Field} label="Good for (hours)" name="hours" type="number" min="1" max="720" value="24" required />
    <${Field} label="Only for this key" name="pin" placeholder="sha256:…" hint="If the operator told you the hash of its public key; may be empty." />
  <//>`;
}
