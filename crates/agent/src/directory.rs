//! What a federation tells its members: brokers and networks (`directory`), and what their servers are trusted by
//! (`bundle`). Fetched now and then and kept as files, so that a restart without a broker knows both.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dnsbroker_api::operator::{Bundle, Directory};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::Call;
use crate::files;
use crate::upstream::federation::Federation;

/// How soon it is asked for again when it did not come, at the latest.
const AGAIN: Duration = Duration::from_secs(20);

/// Fetches directory and bundle; tells whether something changed.
pub async fn fetch(federation: &Federation) -> Result<bool, String> {
    let directory: Directory = federation.api("/api/v1/directory", &Call::Get).await?;
    let bundle: Bundle = federation.api("/api/v1/bundle", &Call::Get).await?;
    let mut changed = federation.take_directory(&directory)?;
    // `enroll`, which is another process, has perhaps written it already; what was damaged is written anew.
    if federation.home.directory().ok().flatten().as_ref() != Some(&directory) {
        let kept = federation.home.keep("directory.json", &directory);
        kept.map_err(|error| dnsbroker_api::problem::chain(&error))?;
    }
    let anchors = federation.home.file("anchors");
    changed |= keep_anchors(&anchors, &bundle).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    Ok(changed)
}

/// Keeps the anchors as files, one a NetID, and forgets those that are no longer published.
fn keep_anchors(dir: &Path, bundle: &Bundle) -> Result<bool, files::FileError> {
    // Certificates are public, and the network server runs as another user.
    files::public_dir(dir)?;
    let mut wanted = vec![("federation.pem".to_owned(), bundle.federation.clone())];
    for anchors in &bundle.anchors {
        wanted.push((format!("{}.pem", anchors.netid), anchors.pem.clone()));
        wanted.push((format!("{}.tlsa", anchors.netid), anchors.tlsa.join("\n") + "\n"));
    }
    let mut changed = false;
    for (name, text) in &wanted {
        let path = dir.join(name);
        if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            files::write_whole(&path, text.as_bytes(), 0o644)?;
            changed = true;
        }
    }
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let ours = |name: &str| name.ends_with(".pem") || name.ends_with(".tlsa");
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| ours(name) && !names.contains(name)) {
            // One that cannot be removed is tried again the next time.
            changed |= std::fs::remove_file(entry.path()).is_ok();
        }
    }
    Ok(changed)
}

/// Keeps the directory fresh until told to stop; `changed` counts up when there is something new.
pub async fn follow(
    federation: Arc<Federation>,
    every: Duration,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
) {
    let mut complained = false;
    loop {
        let pause = match fetch(&federation).await {
            Ok(new) => {
                complained = false;
                if new {
                    tracing::info!(federation = federation.name(), "brokers, members or anchors have changed");
                    changed.send_modify(|count| *count += 1);
                }
                every
            }
            Err(reason) => {
                if !complained {
                    tracing::warn!(
                        federation = federation.name(),
                        reason,
                        "the directory is not to be had; what is known stays"
                    );
                }
                complained = true;
                AGAIN.min(every)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use dnsbroker_api::Timestamp;
    use dnsbroker_api::operator::NetIdAnchors;

    use super::*;

    #[test]
    fn anchors_are_files_that_come_and_go() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path().join("anchors");
        let anchors = NetIdAnchors {
            netid: "60002d".parse().expect("valid"),
            member: "atlantic".parse().expect("valid"),
            pem: "PEM".to_owned(),
            tlsa: vec!["_8444._tcp.60002d.netids.fed.example. TLSA 2 0 1 ab".to_owned()],
            since: Timestamp(0),
        };
        let mut bundle = Bundle { federation: "ROOT".to_owned(), anchors: vec![anchors] };
        assert!(keep_anchors(&dir, &bundle).expect("kept"));
        assert!(!keep_anchors(&dir, &bundle).expect("kept"), "nothing new");
        assert_eq!(std::fs::read_to_string(dir.join("60002d.pem")).expect("read"), "PEM");
        assert!(dir.join("60002d.tlsa").exists());
        bundle.anchors.clear();
        assert!(keep_anchors(&dir, &bundle).expect("kept"));
        assert!(!dir.join("60002d.pem").exists() && dir.join("federation.pem").exists());
    }
}
