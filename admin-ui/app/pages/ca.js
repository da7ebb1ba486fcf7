// The federation's certification authority: its chain, what it publishes, and its change.
import { html } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Table, Badge, When, Got, Empty, Field, Copy, Note } from "../parts.js";
import { Timeline } from "../charts.js";
import { confirm, fill, reveal } from "../dialogs.js";
import { count, daysLeft, host, moment } from "../text.js";
import { useWho } from "../who.js";

/** SHA-256 of each certificate of a PEM text. */
async function prints(pem) {
  const found = [...(pem ?? "").matchAll(/-----BEGIN CERTIFICATE-----([\s\S]*?)-----END CERTIFICATE-----/g)];
  return Promise.all(found.map(async ([whole, body]) => {
    const octets = Uint8Array.from(atob(body.replace(/\s/g, "")), (char) => char.charCodeAt(0));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", octets));
    return { pem: `${whole}\n`, print: [...digest].map((octet) => octet.toString(16).padStart(2, "0")).join("") };
  }));
}

export function Authority() {
  const who = useWho();
  const ca = useData(async () => {
    const known = await api.get("/ca");
    return { ...known, roots: await prints(known.root), issuings: await prints(known.issuing), servers: await prints(known.lns), previouses: await prints(known.previous) };
  }, [], ["ca.", "crl."]);
  const status = useGet("/status", undefined, ["ca.", "certificate.", "crl."]);
  const crls = useGet("/crls", undefined, ["crl.", "certificate."]);
  // The audit tells of it before it is done: this page asks once more when it is.
  const installed = () => [ca, status, crls].forEach((one) => one.reload());
  return html`<${Page} title="Certification authority" lead="Root, issuing CA and what they publish. The root's key belongs off line; the issuing key is at work here, encrypted at rest." actions=${who.change && html`<button onClick=${() => rotate(installed)}>New issuing CA</button>`}>
    <div class="stack"><${Got} from=${ca}>${(ca) => html`
      <${Card} title="Chain"><ol class="chain">
        <li><strong>Root</strong> <span class="soft">trusted by every member</span><p class="mono small">${ca.pin}</p><${Pem} words="root.pem" list=${ca.roots} /></li>
        <li><strong>Issuing CA</strong> <span class="soft">signs everything now</span><p class="mono small">sha256:${ca.issuings[0]?.print}</p><${Pem} words="issuing.pem" list=${ca.issuings} /></li>
        ${ca.servers.map((one) => html`<li><strong>LNS issuing CA</strong> <span class="soft">signs certificates of network servers alone, for names of NetIDs alone</span><p class="mono small">sha256:${one.print}</p><${Pem} words="lns.pem" list=${[one]} />${who.change && html`<p><button class="quiet" onClick=${retire}>Take it out of use</button></p>`}</li>`)}
        ${ca.previouses.map((one) => html`<li><strong>Earlier issuing CA</strong> <span class="soft">its certificates are still good</span><p class="mono small">sha256:${one.print}</p></li>`)}
        <li><strong>Members, servers, gateways, replicas, and the broker itself</strong><p><a href="#/certificates">Certificates</a></p></li>
      </ol>
      <${Note} title="The pin">Members compare this before they trust anything: tell it them on a channel of its own.<div class="mono small">${ca.pin}</div><//><//>`}<//>
      <${Got} from=${status}>${(status) => html`<${Card} title="When they end">
        <${Timeline} days=${365} items=${status.certificates.map((end) => ({ label: end.name, at: end.not_after }))} />
        <${Table} caption="The broker's own certificates" rows=${status.certificates} keyOf=${(end) => end.name} columns=${[{ label: "Certificate", show: (end) => html`<bdi>${end.name}</bdi>` }, { label: "Ends", show: (end) => moment(end.not_after) }, { label: "", show: (end) => html`<${Badge} tone=${daysLeft(end.not_after) < 7 ? "bad" : daysLeft(end.not_after) < 30 ? "warn" : "ok"}><${When} at=${end.not_after} /><//>` }]} />
      <//>`}<//>
      <${Card} flush title="Lists of revoked certificates"><${Got} from=${crls}>${({ items }) => html`<${Table} caption="Lists of revoked certificates" rows=${items} keyOf=${(crl) => crl.ca} empty=${html`<${Empty} title="No list yet" />`} columns=${[
        { label: "CA", show: (crl) => html`<span class="mono small">${crl.ca}</span>` },
        { label: "Number", num: true, show: (crl) => count(crl.number) },
        { label: "Revoked", num: true, show: (crl) => count(crl.revoked) },
        { label: "Made", show: (crl) => html`<${When} at=${crl.this_update} />` },
        { label: "Next", show: (crl) => html`<${When} at=${crl.next_update} />` },
        { label: "Published at", show: (crl) => (crl.url ? html`<span class="mono small">${crl.url}</span>` : html`<span class="soft">not published</span>`) },
      ]} />`}<//><//>
    </div>
  <//>`;
}

const Pem = ({ words, list }) => html`<details><summary>${words}</summary><${Copy} text=${list.map((one) => one.pem).join("")} /></details>`;

/** In two steps, since the root's key is elsewhere: a request goes out, and the signed certificate comes back. */
function rotate(installed) {
  fill({
    title: "A new issuing CA", verb: "Make the request", wide: true,
    act: async ({ kind, office }) => {
      const { csr, permitted } = await api.post("/ca/request", { renew: kind === "renew", lns: office === "lns" });
      const { federation, listeners } = await api.get("/status");
      const base = listeners.pki_url && ` --pki-url ${listeners.pki_url}`;
      const constraint = permitted ? ` --for lns --permit ${permitted}` : "";
      const sign = `dnsbroker ca sign request.pem --root-key DIR --federation ${host(federation)}${base}${constraint} --out ${permitted ? "lns.pem" : "issuing.pem"}`;
      reveal("Have it signed", html`<p>Save this as <code>request.pem</code> where the root's key is, run the command there, and bring the certificate back here.</p><h3>The request</h3><${Copy} text=${csr} label="Copy the request" /><h3>The command</h3><${Copy} text=${sign} label="Copy the command" /><div class="actions"><button onClick=${() => install(installed)}>I have the certificate</button></div>`);
      return false;
    },
    fields: html`<p>The issuing CA's certificate is signed by the root, whose key is not on this machine.</p><${Field} label="What for" as="select" name="kind" options=${[["new", "A new key, which takes the old one's place"], ["renew", "The key in use, for longer"]]} /><${Field} label="Which" as="select" name="office" options=${[["all", "The issuing CA"], ["lns", "One for network servers alone, constrained to names of NetIDs"]]} /><p><button type="button" class="quiet" onClick=${() => install(installed)}>I have a signed certificate already</button></p>`,
  });
}

/** Network servers go back to the issuing CA; what was issued stays good. */
function retire() {
  confirm({ title: "Take the LNS issuing CA out of use?", verb: "Take it out of use", text: "The issuing CA signs certificates of network servers again, and members' own names can be approved. Those that were issued stay good until they end.", act: () => api.remove("/ca/lns"), done: "The issuing CA signs certificates of network servers again." });
}

function install(installed) {
  const done = () => {
    installed();
    return "The new issuing CA is at work.";
  };
  fill({ title: "Install the issuing CA", verb: "Install", wide: true, done, act: ({ pem }) => api.put("/ca/issuing", { pem }), fields: html`<${Field} label="The certificate that the root has signed (PEM)" as="textarea" name="pem" required />` });
}
