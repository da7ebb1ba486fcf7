// The frame around every page: who is here, the menu, the search, what the broker is up to.
import { html, render, useState, useEffect, useLayoutEffect, useMemo, useErrorBoundary } from "./html.js";
import * as api from "./api.js";
import * as live from "./live.js";
import { useRoute, to, go } from "./route.js";
import { WhoContext, useWho } from "./who.js";
import { Icon } from "./icons.js";
import { Dialogs, Toasts } from "./dialogs.js";
import { Login } from "./login.js";
import { Trouble, Page, Empty } from "./parts.js";
import { host, devEui } from "./text.js";
import { menus, find } from "./menu.js";

function Side({ route, open, close, counts }) {
  const who = useWho();
  const here = route.parts[0] ?? "";
  const title = host(who.federation);
  return html`<nav class=${`side ${open ? "open" : ""}`} aria-label="Pages" id="menu">
    <a class="brand" href="#/" onClick=${close}><img src="icon.svg" alt="" /><div><strong>dnsbroker</strong><span>${title}</span></div></a>
    ${menus(who).map(([head, entries]) => html`${head && html`<h2>${head}</h2>`}<ul>${entries.map(
      ([page, words, icon]) => html`<li><a href=${to(...(page ? [page] : []))} onClick=${close} aria-current=${here === page ? "page" : undefined}><${Icon} name=${icon} />${words}${counts[page] ? html`<span class="count">${counts[page]}<span class="hidden"> waiting</span></span>` : null}</a></li>`,
    )}</ul>`)}
  </nav>`;
}

function Search() {
  const [text, set] = useState("");
  const search = (event) => {
    event.preventDefault();
    const known = devEui(text);
    if (known.eui) go("devices", known.eui);
    else if (text.trim()) location.hash = `#/search?q=${encodeURIComponent(text.trim())}`;
    set("");
  };
  return html`<form role="search" aria-label="Everything" onSubmit=${search}><${Icon} name="search" /><label class="hidden" for="find">Find a device, member or NetID</label><input id="find" type="search" placeholder="Find a device, member or NetID" autocomplete="off" spellcheck=${false} value=${text} onInput=${(event) => set(event.currentTarget.value)} /></form>`;
}

function Theme() {
  const [dark, set] = useState(document.documentElement.dataset.theme === "dark");
  useEffect(() => {
    const changed = () => set(document.documentElement.dataset.theme === "dark");
    addEventListener("theme", changed);
    return () => removeEventListener("theme", changed);
  }, []);
  const turn = () => dispatchEvent(new CustomEvent("theme-choose", { detail: dark ? "light" : "dark" }));
  return html`<button class="icon quiet" onClick=${turn} aria-label=${dark ? "Use the light theme" : "Use the dark theme"}><${Icon} name=${dark ? "sun" : "moon"} /></button>`;
}

const LIVE = { live: ["live", "Live"], poll: ["poll", "Every 10 s"], off: ["off", "Not connected"] };

function Top({ toggle, menuOpen, logout, relogin }) {
  const who = useWho();
  const [tone, words] = LIVE[live.useLiveState()];
  return html`<header class="top">
    <button class="icon quiet menu" onClick=${toggle} aria-expanded=${menuOpen ? "true" : "false"} aria-controls="menu" aria-label="Menu"><${Icon} name="menu" /></button>
    <${Search} />
    <span class=${`pulse push ${tone}`} role="status"><i></i>${words}</span>
    <${Theme} />
    <span class="who small"><bdi>${who.name}</bdi> <span class="soft">(${who.role})</span></span>
    ${who.expires ? html`<button class="small" onClick=${logout}>Log out</button>` : html`<button class="small" onClick=${relogin}>Log in as administrator</button>`}
  </header>`;
}

function Safe({ route, children }) {
  const [error, reset] = useErrorBoundary();
  useEffect(() => reset(), [route.hash]);
  if (error) console.error(error);
  return error ? html`<${Page} title="This page broke"><${Trouble} error=${{ message: `A fault of the page itself: ${error.message}. Load it again; if it stays, tell whoever runs the broker.` }} retry=${reset} /><//>` : children;
}

function Shell({ logout, relogin }) {
  const route = useRoute();
  const who = useWho();
  const [open, set] = useState(false);
  const status = live.useData(() => (who.member ? null : api.get("/status")), [], ["store.", "private.", "standby."]);
  const standing = live.useData(() => (who.role === "admin" ? api.get("/standby").catch(() => null) : null), [], ["standby.", "store.", "primary."]);
  const claims = live.useGet("/claims", { limit: 100 }, ["claim.", "devices.", "move."]);
  const waiting = claims.data?.items.filter((claim) => !claim.rejected && (!who.member || claim.claimant !== who.member)).length ?? 0;
  const [name] = route.parts;
  const address = route.parts.join("/");
  const { page, given } = find(who, route.parts);
  // Together with what is shown, so that there is no moment when the focus is nowhere.
  useLayoutEffect(() => {
    set(false);
    if (route.hash !== Shell.first) document.querySelector("h1")?.focus();
    Shell.first = null;
    scrollTo(0, 0);
  }, [address]);
  const shut = () => {
    set(false);
    document.querySelector(".top .menu")?.focus();
  };
  // The menu of a narrow screen: the focus goes in, and back to where it came from.
  useLayoutEffect(() => {
    if (!open) return;
    document.querySelector("#menu a")?.focus();
    const escape = (event) => event.key === "Escape" && shut();
    addEventListener("keydown", escape);
    return () => removeEventListener("keydown", escape);
  }, [open]);
  return html`<button class="skip" onClick=${() => document.querySelector("h1")?.focus()}>Skip to the content</button>
    <div class="frame">
      <${Side} route=${route} open=${open} close=${() => set(false)} counts=${{ claims: waiting >= 100 ? "99+" : waiting }} />
      ${open && html`<button class="veil" aria-label="Close the menu" onClick=${shut}></button>`}
      <div class="right">
        <${Top} toggle=${() => set(!open)} menuOpen=${open} logout=${logout} relogin=${relogin} />
        ${status.data && !status.data.ready && html`<div class="banner bad" role="alert">The broker takes no changes: ${status.data.trouble}. Look-ups are answered.</div>`}
        ${standing.data && standing.data.role !== "primary" && html`<div class="banner" role="status">${standing.data.role === "standby" ? "This is a standby: it answers look-ups, and takes no changes until it is promoted." : "Another broker has taken this one's place: it takes no changes."} <a href="#/settings">Settings</a></div>`}
        ${who.role === "admin" && who.expires && !who.totp && name !== "settings" && html`<div class="banner" role="status">Your account has no second factor yet. <a href="#/settings">Set it up</a> – it takes a minute.</div>`}
        <main class="main" id="main" data-address=${address}><${Safe} route=${route} key=${address}><${Shown} page=${page} given=${given} query=${route.query} /><//></main>
      </div>
    </div>
    <${Dialogs} /><${Toasts} />`;
}
Shell.first = location.hash;

/** The page that the address names. */
function Shown({ page, given, query }) {
  const who = useWho();
  if (!page) return html`<${Page} title="There is no such page"><${Empty} title="Nothing is here">The address may be mistyped, or be of a page that is not for ${who.role}s. <a href="#/">Go to the overview</a>.<//><//>`;
  if (page.changes && !who.change) return html`<${Page} title="Only for administrators"><${Empty} title="You look on">As ${who.role === "auditor" ? "an auditor" : who.role} you see everything and change nothing: ask an administrator to do this. <a href="#/">Go to the overview</a>.<//><//>`;
  return html`<${page.show} ...${given} query=${query} />`;
}

/** What is known of the federation from the start. */
async function introduce(session) {
  if (session.role === "member") {
    const [self, directory] = await Promise.all([api.get("/self").catch(() => null), api.get("/directory")]);
    return { member: self?.member ?? session.name, self, federation: directory.federation, deveuis: directory.deveuis, directory };
  }
  const status = await api.get("/status");
  return { member: null, federation: status.federation, deveuis: `deveuis.${host(status.federation)}` };
}

function App() {
  const [session, set] = useState(undefined);
  const [facts, learn] = useState(null);
  const [error, fail] = useState(null);
  const [door, openDoor] = useState(false);
  const [reason, because] = useState(null);
  const begin = async (known) => {
    try {
      learn(known && (await introduce(known)));
      set(known);
      openDoor(false);
      because(null);
      if (known) live.start(known.role === "admin");
    } catch (problem) {
      fail(problem);
    }
  };
  // Who comes in by the door stands before the heading of the page that was asked for.
  const enter = (known) => {
    Shell.first = null;
    return begin(known);
  };
  const first = () => {
    fail(null);
    api.session().then(begin).catch(fail);
  };
  useEffect(() => {
    first();
    return api.onLoggedOut((problem) => {
      live.end();
      set((now) => {
        if (now) because(now.expires ? "You were logged out, since nothing was done for a while or your password was changed." : problem.message);
        return null;
      });
    });
  }, []);
  const refresh = async () => set(await api.session());
  const who = useMemo(() => session && { ...session, ...facts, change: session.role === "admin", refresh }, [session, facts]);
  if (error) return html`<main class="gate"><div class="card"><h1>dnsbroker</h1><${Trouble} error=${error} retry=${first} /></div></main>`;
  if (session === undefined) return html`<main class="gate"><h1 class="hidden">dnsbroker</h1><p class="loading" role="status">Loading…</p></main>`;
  if (!session || door) return html`<${Login} enter=${enter} reason=${reason} back=${session ? () => openDoor(false) : undefined} />`;
  const logout = async () => {
    live.end();
    await api.logout();
    location.hash = "#/";
    because(null);
    first();
  };
  return html`<${WhoContext.Provider} value=${who}><${Shell} logout=${logout} relogin=${() => openDoor(true)} /><//>`;
}

render(html`<${App} />`, document.getElementById("app"));
