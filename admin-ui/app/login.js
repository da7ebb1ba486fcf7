// The door: name, password and, where there is one, the second factor.
import { html, useState, useLayoutEffect, useRef } from "./html.js";
import * as api from "./api.js";
import { Field, Form, Note } from "./parts.js";

export function Login({ enter, reason, back }) {
  const [known, keep] = useState(null);
  const card = useRef(null);
  // With the page itself, so that there is no moment when the focus is nowhere.
  useLayoutEffect(() => {
    document.title = "Log in · dnsbroker";
  }, []);
  useLayoutEffect(() => card.current.querySelector("input").focus(), [known]);
  const act = async ({ name, password, code }) => {
    const given = known ?? { name, password };
    try {
      enter(await api.login(given.name, given.password, code?.replace(/\s/g, "")));
    } catch (problem) {
      if (problem.code === "totp-needed") return keep(given);
      if (problem.code === "login-wrong" && known) keep(known);
      throw problem;
    }
  };
  return html`<main class="gate" id="main"><div class="card" ref=${card}>
    <div class="brand"><img src="icon.svg" alt="" /><div><strong>dnsbroker</strong><span>${location.host}</span></div></div>
    <h1 tabindex="-1">${known ? "Second factor" : "Log in"}</h1>
    <p class="soft">${known ? "Enter the six digits that your authenticator shows now." : "For administrators and auditors of the federation."}</p>
    ${reason && html`<${Note} tone="warn" live="alert">${reason}<//>`}
    <${Form} key=${known ? "code" : "name"} act=${act} verb=${known ? "Confirm" : "Log in"} onCancel=${known ? () => keep(null) : back}>
      ${known
        ? html`<${Field} label="One-time code" name="code" inputmode="numeric" autocomplete="one-time-code" maxlength="8" required />`
        : html`<${Field} label="Name" name="name" autocomplete="username" required /><${Field} label="Password" name="password" type="password" autocomplete="current-password" required />`}
    <//>
    ${!known && html`<p class="soft small"><br />Operators need no password: put your federation certificate into this browser, open this page again, and choose it when asked. The first administrator's password is in the file <code>secrets/admin-password</code> on the broker's machine.</p>`}
  </div></main>`;
}
