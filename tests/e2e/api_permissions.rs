//! Who may do what: every route, in every role, on one's own things and on another's.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use dnsbroker_api::endpoint::{Content, Endpoint, fill};
use dnsbroker_api::endpoints;
use dnsbroker_tests::Broker;
use dnsbroker_tests::ca::Api;
use dnsbroker_tests::rest::{Answer, Rest};
use serde_json::json;

/// Routes, and who gets past the gate: `n` nobody, `m` a member on its own things, `f` a member on another's, `r` an auditor,
/// `a` an administrator by token, `s` an administrator's session. What happens behind the gate is for other tests.
const TABLE: &[(&str, &str)] = &[
    ("enroll", "nmfras"),
    ("ca_show", "nmfras"),
    ("renew", "mf"),
    ("myself", "mfras"),
    ("directory", "mfras"),
    ("bundle", "mfras"),
    ("session_open", "nmfras"),
    ("session_show", "nmfras"),
    ("session_close", "nmfras"),
    ("session_password", "s"),
    ("session_list", "s"),
    ("session_end", "s"),
    ("session_totp_begin", "s"),
    ("session_totp_confirm", "s"),
    ("session_list", "s"),
    ("session_end", "s"),
    ("administrator_list", "ras"),
    ("administrator_add", "as"),
    ("administrator_change", "as"),
    ("administrator_remove", "as"),
    ("api_token_list", "mfras"),
    ("api_token_create", "mfas"),
    ("api_token_revoke", "mfas"),
    ("claim_list", "mfras"),
    ("claim_decide", "as"),
    ("claim_withdraw", "mfas"),
    ("device_release", "mfas"),
    ("move_list", "mfras"),
    ("move_create", "mfas"),
    ("move_accept", "mfas"),
    ("move_cancel", "mfas"),
    ("device_history", "mfras"),
    ("device_change", "mas"),
    ("limits_show", "mras"),
    ("limits_set", "as"),
    ("policy_show", "mfras"),
    ("policy_set", "as"),
    ("policy_change", "mfas"),
    ("status", "ras"),
    ("member_list", "ras"),
    ("member_add", "as"),
    ("member_show", "mras"),
    ("member_change", "as"),
    ("member_remove", "as"),
    ("member_suspend", "as"),
    ("member_resume", "as"),
    ("member_grace", "as"),
    ("member_approve", "as"),
    ("member_withdraw", "as"),
    ("device_import", "mas"),
    ("device_replace", "mas"),
    ("netid_list", "mfras"),
    ("netid_show", "mfras"),
    ("netid_set", "as"),
    ("netid_remove", "as"),
    ("netid_anchors", "mfas"),
    ("token_list", "ras"),
    ("token_create", "as"),
    ("certificate_list", "mfras"),
    ("certificate_issue", "mfas"),
    ("certificate_show", "mfras"),
    ("certificate_revoke", "mfas"),
    ("certificate_renew", "as"),
    ("certificate_revoke_several", "as"),
    ("ca_request", "as"),
    ("ca_install", "as"),
    ("ca_retire", "as"),
    ("root_crl_install", "as"),
    ("crl_list", "ras"),
    ("device_list", "mfras"),
    ("device_show", "mfras"),
    ("device_lookup", "mfras"),
    ("key_list", "ras"),
    ("key_create", "as"),
    ("key_revoke", "as"),
    ("replica_list", "ras"),
    ("replica_show", "ras"),
    ("replica_set", "as"),
    ("replica_remove", "as"),
    ("source_list", "mfras"),
    ("source_show", "mfras"),
    ("source_set", "as"),
    ("source_remove", "as"),
    ("source_refresh", "mfas"),
    ("source_accept", "as"),
    ("zone_list", "ras"),
    ("zone_check", "ras"),
    ("zone_export", "ras"),
    ("audit_list", "ras"),
    ("audit_verify", "ras"),
    ("backup", "as"),
    ("events", "mfras"),
    ("statistics", "mfras"),
    ("webhook_list", "mfras"),
    ("webhook_add", "mfas"),
    ("webhook_show", "mfras"),
    ("webhook_set", "mfas"),
    ("webhook_remove", "mfas"),
    ("webhook_test", "mfas"),
    ("standby", "ras"),
    ("standby_promote", "as"),
    ("replication", "mf"),
    ("replication_certificate", "mf"),
    ("replication_heard", "mf"),
    ("replication_login", "mf"),
    ("replication_fence", "mf"),
];

/// Codes by which the gate refuses.
const GATE: [&str; 9] = [
    "no-certificate",
    "login-needed",
    "session-needed",
    "administrators-only",
    "auditors-read",
    "certificate-limited",
    "scope-lacking",
    "not-yours",
    "csrf",
];

/// The parameters of a path, of a member's own things or of another's. Nothing here is there, so that nothing is changed.
fn path_of(endpoint: &Endpoint, own: bool) -> String {
    let value = |name: &str| match name {
        "id" if ["moves", "webhooks"]
            .map(|part| format!("/api/v1/{part}"))
            .iter()
            .any(|part| endpoint.path.starts_with(part)) =>
        {
            "77".to_owned()
        }
        "id" if endpoint.path.starts_with("/api/v1/members") => if own { "alpine" } else { "atlantic" }.to_owned(),
        "id" => "nobody-there".to_owned(),
        "netid" => "6000ff".to_owned(),
        "deveui" => "00000000000000aa".to_owned(),
        "serial" => "7f".repeat(16),
        "zone" => "nowhere".to_owned(),
        _ => "nobody.example".to_owned(),
    };
    let values: Vec<String> = endpoint.parameters.iter().map(|(name, _)| value(name)).collect();
    fill(endpoint.path, &values)
}

/// Sends what gets past the gate and no further: a body that does not read, where there is one.
fn knock(caller: &mut Rest<'_>, endpoint: &Endpoint, own: bool) -> anyhow::Result<Answer> {
    let path = path_of(endpoint, own);
    match endpoint.takes {
        // A stream would have no end.
        Content::Nothing if endpoint.name == "events" => caller.get(&format!("{path}?after=nothing")),
        Content::Nothing => caller.send(endpoint.method, &path, "", None),
        Content::Json(_) => {
            caller.octets(endpoint.method, &path, "content-type: application/json\r\n", Some(b"{\"no such\":1}"))
        }
        Content::Octets(types) => {
            let media_type = format!("content-type: {}\r\n", types[0]);
            caller.octets(endpoint.method, &format!("{path}?no_such=1"), &media_type, Some(b"nothing"))
        }
    }
    .with_context(|| format!("{} {path}", endpoint.method))
}

#[test]
fn each_role_gets_past_the_gate_of_its_routes_and_of_no_other() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    let password = "a password for the matrix";
    let file = broker.path().join("secrets/auditor");
    std::fs::write(&file, password)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    broker.json(&["admin", "add", "eve", "--role", "auditor", "--password-file", &file.to_string_lossy()])?;
    broker.json(&["admin", "add", "ada", "--password-file", &file.to_string_lossy()])?;
    let mut callers = [
        ('n', Rest::nobody(&broker)?),
        ('m', Rest::member(&broker, "alpine")?),
        ('f', Rest::member(&broker, "alpine")?),
        ('r', Rest::token(&broker, "eve", "read")?),
        ('a', Rest::token(&broker, "admin", "admin")?),
        ('s', Rest::session(&broker, "ada", password)?),
    ];
    let known: BTreeSet<&str> = endpoints::all().map(|endpoint| endpoint.name).collect();
    let tabled: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    ensure!(
        known == tabled,
        "routes without a row, or rows without a route: {:?}",
        known.symmetric_difference(&tabled)
    );
    let mut wrong = Vec::new();
    for (name, allowed) in TABLE {
        let endpoint = endpoints::named(name).context("named")?;
        // Logging out ends the session that the others are asked in; a backup and an export are not of one piece.
        if ["session_close", "backup", "zone_export"].contains(name) {
            continue;
        }
        for (role, caller) in &mut callers {
            let answer = knock(caller, endpoint, *role != 'f')?;
            let refused = [401, 403].contains(&answer.status) && GATE.contains(&answer.code());
            // Whoever is nobody is told so by the route itself there.
            let refused = refused && !(*name == "session_show" && *role == 'n');
            if refused == allowed.contains(*role) {
                wrong.push(format!("{name} as {role}: {} {}", answer.status, answer.code()));
            }
            ensure!(answer.status < 500, "{name} as {role}: {answer:?}");
            ensure!(answer.header("x-request-id").is_some(), "{name}: every answer has its request's id");
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_session_changes_something_only_with_its_csrf_token_and_ends_at_logout() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let password = std::fs::read_to_string(broker.path().join("secrets/admin-password"))?;
    let mut session = Rest::session(&broker, "admin", password.trim())?;
    let body = json!({ "id": "alpine" });
    ensure!(session.post("/api/v1/members", &body)?.status == 201);
    let shown = session.get("/api/v1/session")?;
    ensure!(shown.json["role"] == "admin" && shown.json["totp"] == false, "{shown:?}");
    let kept = session.forget_csrf();
    let forged = session.post("/api/v1/members", &json!({ "id": "other" }))?;
    ensure!((forged.status, forged.code()) == (403, "csrf"), "{forged:?}");
    ensure!(session.get("/api/v1/members/alpine")?.status == 200, "reading needs none");
    session.add_header(&kept);
    ensure!(session.post("/api/v1/members", &json!({ "id": "other" }))?.status == 201);
    ensure!(session.send("DELETE", "/api/v1/session", "", None)?.status == 204);
    ensure!(session.get("/api/v1/members/alpine")?.status == 401, "the session is over");
    let mut wrong = Rest::nobody(&broker)?;
    for _ in 0..5 {
        let login = json!({ "name": "admin", "password": "not the password" });
        ensure!(wrong.post("/api/v1/session", &login)?.status == 401);
    }
    let login = json!({ "name": "admin", "password": password.trim() });
    let held = wrong.post("/api/v1/session", &login)?;
    ensure!(held.status == 429 && held.header("retry-after").is_some(), "guessing is held up: {held:?}");
    ensure!(!broker.log().contains(password.trim()), "passwords stay out of the log");
    Ok(())
}

/// Who hides from a member is not for it to know, neither when it asks nor in the answer to a change of its own.
#[test]
fn a_member_is_shown_its_own_part_of_the_policy() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    for (id, netid) in [("alpine", "600013"), ("atlantic", "60002d"), ("baltic", "60000a")] {
        broker.member(id, netid, "192.0.2.45")?;
    }
    broker.json(&["policy", "change", "deny", "alpine", "--holder", "baltic"])?;
    broker.json(&["policy", "change", "agree", "atlantic", "baltic"])?;
    broker.json(&["policy", "change", "agree", "alpine", "baltic"])?;
    let mut alpine = Api::of(&broker, &broker.certificate("alpine")?)?;
    let change = json!({ "share": { "netid": "600013", "sharing": "closed" } });
    let (status, changed) = alpine.post("/api/v1/policy/changes", &change)?;
    ensure!(status == 200, "{changed}");
    for shown in [changed, alpine.get("/api/v1/policy")?.1] {
        ensure!(shown["deny"] == json!([]), "it sees who bans it: {shown}");
        ensure!(shown["agreements"] == json!([["alpine", "baltic"]]), "{shown}");
        ensure!(shown["netids"] == json!({ "600013": "closed" }), "{shown}");
    }
    Ok(())
}
