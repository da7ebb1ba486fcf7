// The federation's policy as the broker applies it: the first rule that fits decides. Bans, then the NetID's own rule, then
// agreements, then the default. A member always sees its own.

/** An index of a policy, for many questions. */
export function index(policy) {
  const pairs = new Set(policy.agreements.flatMap(([a, b]) => [`${a} ${b}`, `${b} ${a}`]));
  const bans = new Set(policy.deny.map((ban) => (ban.netid ? `${ban.asker} #${ban.netid}` : `${ban.asker} ${ban.holder}`)));
  return { policy, pairs, bans };
}

/** Whether `asker` sees the devices of a network `{netid, member}`, and why. */
export function ruling({ policy, pairs, bans }, asker, network) {
  const holder = network.member;
  if (asker === holder) return { seen: true, why: "its own" };
  if (bans.has(`${asker} #${network.netid}`)) return { seen: false, why: `banned from NetID ${network.netid}`, ban: { asker, netid: network.netid } };
  if (bans.has(`${asker} ${holder}`)) return { seen: false, why: `banned from all of ${holder}`, ban: { asker, holder } };
  const agreed = pairs.has(`${asker} ${holder}`);
  const own = policy.netids[network.netid];
  if (own === "open") return { seen: true, why: `NetID ${network.netid} is open to all` };
  if (own === "closed") return { seen: false, why: `NetID ${network.netid} is closed` };
  if (own === "agreements") return { seen: agreed, why: agreed ? "they have an agreement" : `NetID ${network.netid} is for agreements only` };
  if (agreed) return { seen: true, why: "they have an agreement" };
  return policy.default === "open" ? { seen: true, why: "the default is open" } : { seen: false, why: "the default is closed" };
}

/** What `asker` sees of a holder with these networks: `all`, `part`, `none`; of one without networks what it would. */
export function sight(known, asker, holder, networks) {
  const list = networks.length ? networks : [{ netid: "", member: holder }];
  const rulings = list.map((network) => ({ network, ...ruling(known, asker, network) }));
  const seen = rulings.filter((one) => one.seen).length;
  return { extent: seen === rulings.length ? "all" : seen ? "part" : "none", rulings };
}

/** Networks by who holds them. */
export function byHolder(networks) {
  const held = new Map();
  for (const network of networks) held.set(network.member, [...(held.get(network.member) ?? []), network]);
  return held;
}
