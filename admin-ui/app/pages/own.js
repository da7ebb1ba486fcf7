// An operator's own overview: its certificate, its devices, what waits for it.
import { html } from "../html.js";
import * as api from "../api.js";
import { useGet } from "../live.js";
import { useStatistics } from "../stats.js";
import { Page, Card, Tile, Badge, When, Got, Words, Copy } from "../parts.js";
import { are, count, daysLeft, host, plural, moment } from "../text.js";
import { Networks } from "./members.js";
import { useWho } from "../who.js";

export function Own() {
  const who = useWho();
  const self = useGet("/self", undefined, ["certificate.", "member."]);
  const member = useGet(`/members/${api.seg(who.member)}`, undefined, ["member.", "devices.", "netid.", "move.", "certificate.", "source."]);
  const figures = useStatistics({ fresh: 5000 });
  const claims = useGet("/claims", { limit: 200 }, ["claim.", "devices.", "move."]);
  const moves = useGet("/moves", { limit: 200 }, ["move."]);
  const sources = useGet("/sources", { limit: 200 }, ["source."]);
  const against = claims.data?.items.filter((claim) => claim.holder === who.member && !claim.rejected).length ?? 0;
  const made = claims.data?.items.filter((claim) => claim.claimant === who.member).length ?? 0;
  const offered = moves.data?.items.filter((move) => move.to === who.member && move.state === "offered").length ?? 0;
  const trouble = sources.data?.items.filter((source) => ["failing", "held", "expired"].includes(source.state)) ?? [];
  const share = figures.data?.members?.find((one) => one.member === who.member);
  return html`<${Page} title=${self.data?.name ?? who.self?.name ?? who.name} lead=${html`Your part of the federation <strong>${host(who.federation)}</strong>.`}>
    <${Got} from=${self}>${(self) => html`<div class="stack">
      <div class="tiles">
        <${Tile} label="Your certificate" value=${`${Math.max(0, Math.floor(daysLeft(self.certificate.not_after)))} days`} tone=${daysLeft(self.certificate.not_after) < 2 ? "bad" : new Date(self.renew_at) < Date.now() ? "warn" : "ok"} note=${html`ends ${moment(self.certificate.not_after)}`} href=${`#/certificates/${self.certificate.serial}`} />
        <${Tile} label="Devices" value=${html`<span id="device-count">${count(member.data?.devices)}</span>`} note="registered" href="#/devices" />
        ${share && html`<${Tile} label="Your look-ups" value=${count(share.queries)} note=${`since the start; ${plural(share.connections, "open connection")}`} />`}
        <${Tile} label="Waiting" value=${count(against + offered)} tone=${against + offered ? "warn" : ""} note="claims against you, moves offered" href=${against ? "#/claims" : "#/moves"} />
      </div>
      <div class="grid">
        <div class="half stack">
          <${Card} title="Your NetIDs"><${Networks} id=${who.member} /><//>
          <${Card} title="Waiting for you"><ul class="todo">
            ${against > 0 && html`<li><${Badge} tone="warn">claims<//> <span><a href="#/claims">${plural(against, "device")}</a> of yours ${are(against)} wanted by others: let go, or keep</span></li>`}
            ${made > 0 && html`<li><${Badge} tone="info">claims<//> <span><a href="#/claims">${plural(made, "device")}</a> that you listed ${are(made)} held by others</span></li>`}
            ${offered > 0 && html`<li><${Badge} tone="warn">moves<//> <span><a href="#/moves">${plural(offered, "move")}</a> offered to you: accept or decline</span></li>`}
            ${trouble.map((source) => html`<li><${Badge} tone="bad">${source.state}<//> <span><a href=${`#/sources/${source.netid}`}>Your primary of ${source.netid}</a>: <${Words}>${source.held ?? source.error ?? ""}<//></span></li>`)}
            ${new Date(self.renew_at) < Date.now() && html`<li><${Badge} tone="warn">renewal<//> <span>Your certificate is due for renewal since <${When} at=${self.renew_at} />: the agent does it by itself; see that it runs.</span></li>`}
          </ul>${!(against + made + offered + trouble.length) && html`<p class="soft">Nothing waits for you.</p>`}<//>
        </div>
        <${Card} className="half" title="How your network server asks">
          <p>Look-ups go over DNS-over-HTTPS with your certificate:</p><${Copy} text=${who.directory.brokers[0]?.doh_url ?? ""} label="Copy the address" />
          <dl class="facts"><dt>Devices</dt><dd class="mono small">${host(who.directory.deveuis)}</dd><dt>NetIDs</dt><dd class="mono small">${host(who.directory.netids)}</dd><dt>Members</dt><dd>${new Set(who.directory.networks.map((network) => network.member)).size}, with ${plural(who.directory.networks.length, "NetID")}</dd></dl>
          <p><a href="#/devices">Try a look-up</a>: open a device and resolve it as yourself.</p>
        <//>
      </div>
    </div>`}<//>
  <//>`;
}
