//! The URL below which the CA publishes stands in every certificate. When it changes, those that are there go on naming the one of
//! before, and whoever checks them asks there: which that are, until when, and what to do is told here.

use dnsbroker_api::Timestamp;
use dnsbroker_ca::{Facts, published_below};
use dnsbroker_store::Actor;
use dnsbroker_store::act::PublishAt;
use dnsbroker_store::record::FormerUrl;

use super::{Office, Pki, read_certificates};
use crate::app::App;
use crate::committer::{CommitError, now};
use crate::config::Config;

/// Tells the store where the CA publishes now, and the log what that leaves behind.
pub async fn settle(app: &App) -> Result<(), CommitError> {
    let url = app.pki.base().unwrap_or_default().to_owned();
    app.committer.commit(Actor::Broker, PublishAt(url)).await?;
    notices(app).iter().for_each(|notice| tracing::warn!("{notice}"));
    Ok(())
}

/// What an administrator has to see to, in words.
pub fn notices(app: &App) -> Vec<String> {
    let (view, now) = (app.view(), now());
    let former = view.publication.iter().flat_map(|publication| &publication.before);
    let mut notices: Vec<String> = former.filter(|former| former.until >= now).map(of_leaves).collect();
    let base = app.pki.base();
    for (office, certificate, until) in issuing(&app.pki) {
        notices.extend(of_issuing(office, published_below(&certificate).as_deref(), base, until));
    }
    notices
}

fn of_leaves(FormerUrl { url, until }: &FormerUrl) -> String {
    let until = Timestamp(*until);
    if url.is_empty() {
        return format!(
            "certificates issued before do not say where they could be seen to be revoked, the last of them until {until}: \
             renewed, they will"
        );
    }
    format!(
        "certificates issued before name {url} for lists and OCSP, the last of them until {until}: keep that URL leading to \
         this broker's pki listener until then, or have the certificates renewed"
    )
}

fn of_issuing(office: Office, found: Option<&str>, base: Option<&str>, until: i64) -> Option<String> {
    let (base, until, name) = (base?, Timestamp(until), office.name());
    let which = if office == Office::Lns { " --for lns" } else { "" };
    let remedy = format!("`dnsbroker ca rotate --renew{which}` (or `request --renew`) gives it one that names {base}");
    match found {
        Some(found) if found == base => None,
        Some(found) => Some(format!(
            "the certificate of the {name} names {found} for the root's list, until {until}: keep that URL leading to this \
             broker's pki listener; {remedy}"
        )),
        None => Some(format!(
            "the certificate of the {name} does not say where the root's list of revoked CAs is: {remedy}"
        )),
    }
}

fn issuing(pki: &Pki) -> Vec<(Office, Vec<u8>, i64)> {
    let authorities = pki.authorities();
    let of = |office| authorities.of(office).map(|ca| (office, ca.certificate().to_vec(), ca.facts().not_after));
    Office::ALL.into_iter().filter_map(of).collect()
}

/// What a change of `pki.url` in this configuration would leave behind: as far as the files tell, without the store.
pub fn check(config: &Config, pki: &Pki) -> Vec<String> {
    let url = config.pki.as_ref().and_then(|pki| pki.url.as_deref()).map(|url| url.trim_end_matches('/'));
    let (Some(url), Some(_)) = (url, &config.pki) else { return vec![] };
    let mut warnings: Vec<String> = issuing(pki)
        .into_iter()
        .filter_map(|(office, certificate, until)| {
            of_issuing(office, published_below(&certificate).as_deref(), Some(url), until)
        })
        .collect();
    // The broker's own certificate shows what was named lately.
    let own = read_certificates(&config.path(&config.ca.dir).join("server.pem")).unwrap_or_default();
    if let Some((leaf, named)) = own.first().and_then(|leaf| Some((leaf, published_below(leaf)?)))
        && named != url
    {
        let until = Timestamp(Facts::of(leaf).map_or(0, |facts| facts.not_after));
        warnings.push(format!(
            "pki.url is {url}, and certificates that were issued name {named} for lists and OCSP (the broker's own until \
             {until}): keep that URL leading to this broker's pki listener; once it runs, `status` says until when"
        ));
    }
    warnings
}
