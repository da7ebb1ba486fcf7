//! Revocation and suspension: within a second on everything that is open, whichever way they are said, and in the lists.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{Api, ca_id, enrolled, federation, fetch_list, succeed};
use dnsbroker_tests::tls::{Tls, ask, client, connect, credential};
use dnsbroker_tests::{Broker, eventually, query};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;

/// What has to bite within this time does.
const A_SECOND: Duration = Duration::from_secs(1);

fn question() -> Vec<u8> {
    query(1, 0, "600013.netids.fed.example", 1, 1)
}

/// All ways in that one certificate has opened.
struct Open {
    doh: Tls,
    /// Holds a ticket.
    sessions: Arc<ClientConfig>,
    xot: Tls,
    api: Api,
}

fn xot_question() -> Vec<u8> {
    let question = query(1, 0, "fed.example", 6, 1);
    [&(question.len() as u16).to_be_bytes()[..], &question].concat()
}

fn xot_answers(tls: &mut Tls) -> anyhow::Result<()> {
    tls.write_all(&xot_question())?;
    let mut length = [0; 2];
    tls.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    Ok(tls.read_exact(&mut answer)?)
}

impl Open {
    fn all(broker: &Broker, dir: &Path) -> anyhow::Result<Self> {
        let sessions = client(broker, Some(credential(dir)?), &["http/1.1"])?;
        let mut doh = connect(broker.doh()?, &sessions)?;
        ensure!(ask(&mut doh, &question())?.0 == 200);
        let mut resumed = connect(broker.doh()?, &sessions)?;
        ensure!(resumed.conn.handshake_kind() == Some(HandshakeKind::Resumed), "sessions are resumed");
        ensure!(ask(&mut resumed, &question())?.0 == 200);
        let mut xot = connect(broker.xot()?, &client(broker, Some(credential(dir)?), &["dot"])?)?;
        xot_answers(&mut xot)?;
        let mut api = Api::of(broker, dir)?;
        ensure!(api.get("/api/v1/self")?.0 == 200);
        Ok(Self { doh, sessions, xot, api })
    }

    /// Nothing of it is of use any more, a second after `begun` at the latest.
    fn assert_shut(mut self, broker: &Broker, code: &str, begun: Instant) -> anyhow::Result<()> {
        let (status, refused) = self.api.get("/api/v1/self")?;
        ensure!(status == 403 && refused["code"] == code, "the API says {status} {refused}");
        ended(&mut self.doh, begun).context("DoH")?;
        ended(&mut self.xot, begun).context("XoT")?;
        let resumed = connect(broker.doh()?, &self.sessions).and_then(|mut tls| ask(&mut tls, &question()));
        ensure!(!matches!(resumed, Ok((200, _))), "a resumed session is served");
        Ok(())
    }
}

/// Waits for the end of a connection that nothing is sent on.
fn ended(tls: &mut Tls, begun: Instant) -> anyhow::Result<()> {
    let left = A_SECOND.checked_sub(begun.elapsed()).unwrap_or(Duration::from_millis(1));
    tls.sock.set_read_timeout(Some(left))?;
    match tls.read(&mut [0; 512]) {
        Ok(0) => Ok(()),
        Ok(count) => anyhow::bail!("{count} octets came instead of the end"),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            anyhow::bail!("it is still there after {:?}", begun.elapsed())
        }
        Err(_) => Ok(()),
    }
}

fn certificate(broker: &Broker, serial: &str) -> anyhow::Result<Value> {
    broker.json(&["cert", "show", serial])
}

#[test]
fn revocation_bites_within_a_second_on_all_that_is_open_whichever_way_it_is_said() -> anyhow::Result<()> {
    let broker = federation()?;
    let (other, _) = enrolled(&broker, "atlantic", "other")?;
    let mut others = Open::all(&broker, &other)?;
    for way in ["certificate", "key", "lineage", "member"] {
        let (dir, serial) = enrolled(&broker, "alpine", way)?;
        let open = Open::all(&broker, &dir)?;
        let key = certificate(&broker, &serial)?["key"].as_str().context("key")?.to_owned();
        let args: &[&str] = match way {
            "certificate" => &[&serial],
            "key" => &["--key", &key],
            "lineage" => &["--lineage", &serial],
            _ => &["--member", "alpine"],
        };
        broker.json(&[&["cert", "revoke"], args].concat())?;
        open.assert_shut(&broker, "certificate-revoked", Instant::now()).context(way)?;
        ensure!(certificate(&broker, &serial)?["state"] == "revoked (unspecified)");
    }
    ensure!(ask(&mut others.doh, &question())?.0 == 200, "others stay on DoH");
    xot_answers(&mut others.xot).context("others stay on XoT")?;
    ensure!(others.api.get("/api/v1/self")?.0 == 200, "others stay on the API");
    Ok(())
}

#[test]
fn a_replica_that_is_revoked_or_removed_is_out_within_a_second() -> anyhow::Result<()> {
    let broker = federation()?;
    for way in ["revoke", "remove"] {
        broker.json(&["replica", "add", "mirror", "--all"])?;
        let dir = broker.replica_certificate("mirror")?;
        let mut xot = connect(broker.xot()?, &client(&broker, Some(credential(&dir)?), &["dot"])?)?;
        xot_answers(&mut xot)?;
        match way {
            "revoke" => broker.json(&["cert", "revoke", "--replica", "mirror"])?,
            _ => broker.json(&["replica", "remove", "mirror"])?,
        };
        ended(&mut xot, Instant::now()).context(way)?;
        let again = connect(broker.xot()?, &client(&broker, Some(credential(&dir)?), &["dot"])?)
            .and_then(|mut tls| xot_answers(&mut tls));
        ensure!(again.is_err(), "{way}");
    }
    Ok(())
}

#[test]
fn a_suspended_members_certificates_are_on_hold_until_it_is_resumed() -> anyhow::Result<()> {
    let broker = federation()?;
    let (dir, serial) = enrolled(&broker, "alpine", "op")?;
    let issuing = ca_id(&broker.path().join("ca/issuing.pem"))?;
    let open = Open::all(&broker, &dir)?;
    let (before, _) = fetch_list(&broker, &dir, &issuing)?;
    broker.json(&["member", "suspend", "alpine", "--reason", "has not paid"])?;
    open.assert_shut(&broker, "member-suspended", Instant::now())?;
    eventually("a list with the hold", || {
        let (number, list) = fetch_list(&broker, &dir, &issuing)?;
        Ok(number > before && list.contains(&serial) && list.contains("certificate hold"))
    })?;
    std::fs::copy(broker.path().join("ca/issuing.pem"), dir.join("issuing.pem"))?;
    let url = format!("http://{}/ocsp", broker.pki()?);
    let ocsp = ["ocsp", "-issuer", "issuing.pem", "-cert", "client.pem", "-CAfile", "ca.pem", "-url", &url];
    let told = succeed(&dir, "openssl", &ocsp)?.stdout;
    ensure!(told.contains("client.pem: revoked") && told.contains("certificateHold"), "{told}");
    ensure!(certificate(&broker, &serial)?["state"] == "suspended");

    let (held, _) = fetch_list(&broker, &dir, &issuing)?;
    broker.json(&["member", "resume", "alpine"])?;
    Open::all(&broker, &dir).context("the same certificate opens all again")?;
    eventually("a list without it", || {
        let (number, list) = fetch_list(&broker, &dir, &issuing)?;
        Ok(number > held && !list.contains(&serial))
    })?;
    let told = succeed(&dir, "openssl", &ocsp)?.stdout;
    ensure!(told.contains("client.pem: good"), "{told}");
    // Revoked while suspended is not undone by resuming.
    broker.json(&["member", "suspend", "alpine"])?;
    broker.json(&["cert", "revoke", &serial, "--reason", "privilege-withdrawn"])?;
    broker.json(&["member", "resume", "alpine"])?;
    ensure!(Open::all(&broker, &dir).is_err());
    Ok(())
}

#[test]
fn lists_are_made_anew_and_their_number_grows_over_restarts() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let issuing = ca_id(&broker.path().join("ca/issuing.pem"))?;
    let (dir, _) = enrolled(&broker, "atlantic", "reader")?;
    let mut last = fetch_list(&broker, &dir, &issuing)?.0;
    let mut revoked = Vec::new();
    for round in 0..3 {
        let (_, serial) = enrolled(&broker, "alpine", &format!("op-{round}"))?;
        broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;
        revoked.push(serial);
        let begun = Instant::now();
        eventually("a list with all of them", || {
            let list = fetch_list(&broker, &dir, &issuing)?.1;
            Ok(revoked.iter().all(|serial| list.contains(serial)))
        })?;
        ensure!(begun.elapsed() < 3 * A_SECOND, "the list took {:?}", begun.elapsed());
        match round {
            0 => broker.restart()?,
            1 => {
                broker.kill()?;
                broker.serve()?;
            }
            _ => {}
        }
        let (number, list) = fetch_list(&broker, &dir, &issuing)?;
        ensure!(number > last, "{number} after {last}");
        ensure!(revoked.iter().all(|serial| list.contains(serial)), "in the first list after a start too");
        last = number;
    }
    let shown = broker.json(&["ca", "crl"])?;
    ensure!(shown["items"][0]["number"] == last && shown["items"][0]["revoked"] == 3, "{shown}");
    Ok(())
}

#[test]
fn who_revokes_and_looks_sees_the_list_that_names_it() -> anyhow::Result<()> {
    let broker = federation()?;
    let mut last = 0;
    for round in 0..3 {
        let (_, serial) = enrolled(&broker, "alpine", &format!("op{round}"))?;
        broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;
        let shown = broker.json(&["ca", "crl"])?["items"][0].clone();
        let number = shown["number"].as_u64().context("no number")?;
        ensure!(number > last && shown["revoked"] == round + 1, "{shown} after {last}");
        last = number;
        let ca = shown["ca"].as_str().context("no CA")?;
        let (published, list) = fetch_list(&broker, broker.path(), ca)?;
        ensure!(published == number && list.contains(&serial), "{published} is published, {number} is shown");
    }
    Ok(())
}
