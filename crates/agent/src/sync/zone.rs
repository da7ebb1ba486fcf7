//! A zone whose names are DevEUIs, by AXFR (RFC 5936): for a member whose primary the broker cannot reach. Verified message
//! by message where there is a TSIG key, and taken as a whole or not at all.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dnsbroker_zone::transfer::inbound::{Asked, Bounds, Content, Inbound};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key};
use dnsbroker_zone::wire::RecordType;
use dnsbroker_zone::wire::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::config::SyncConfig;
use super::source::Listing;
use crate::clock::now;
use crate::files;
use crate::limits::{DEVICES, LIST};

/// Time to connect, and for the next octets.
const STALL: Duration = Duration::from_secs(30);

/// Lists devices.
pub async fn list(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let (Some(zone), Some(primary)) = (&config.zone, config.primary) else {
        return Err("zone and primary are needed".to_owned());
    };
    let mut id = [0; 2];
    SystemRandom::new().fill(&mut id).map_err(|_| "no entropy".to_owned())?;
    let mut query = vec![id[0], id[1], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(zone.wire());
    query.extend_from_slice(&RecordType::AXFR.0.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    let mut chain = key(config, dir)?.map(|key| Chain::request(key, &mut query, now().unsigned_abs()));
    let bounds = Bounds { records: 4 * DEVICES as u64, octets: LIST };
    let mut inbound = Inbound::new(zone, Asked::Whole, id, &[], bounds);
    let mut stream = within(TcpStream::connect(primary)).await?;
    within(stream.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat())).await?;
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    loop {
        let mut octets = vec![0; usize::from(within(stream.read_u16()).await?)];
        within(stream.read_exact(&mut octets)).await?;
        let message = Message::new(&octets).map_err(|error| format!("a message is malformed: {error}"))?;
        let signed = match &mut chain {
            None => true,
            Some(chain) => chain.verify(message, now().unsigned_abs()).map_err(|error| error.to_string())?,
        };
        if inbound.take(&octets).map_err(|error| error.to_string())? {
            // RFC 8945, section 5.3.1: the last message is signed.
            if !signed {
                return Err("the last message is not signed".to_owned());
            }
            break;
        }
    }
    let received = inbound.finish().map_err(|error| error.to_string())?;
    let Content::Whole(devices) = received.content else { return Err("the primary sent no whole zone".to_owned()) };
    let mut listing = Listing { devices, ..Listing::default() };
    for (line, text) in received.tally.strangers_shown.into_iter().enumerate() {
        let reason = "the name is no DevEUI".to_owned();
        listing.reject(dnsbroker_api::message::Reject { line: line as u64 + 1, text, reason });
    }
    listing.rejected = received.tally.strangers;
    Ok(listing)
}

fn key(config: &SyncConfig, dir: &Path) -> Result<Option<Key>, String> {
    let (Some(name), Some(file)) = (&config.tsig_name, &config.tsig_secret_file) else { return Ok(None) };
    let algorithm: Algorithm = match &config.tsig_algorithm {
        None => Algorithm::HmacSha256,
        Some(text) => text.parse().map_err(|error| format!("tsig_algorithm {text:?} {error}"))?,
    };
    let secret = files::read_secret_text(&dir.join(file)).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    let secret = BASE64_STANDARD.decode(secret.as_bytes()).map_err(|_| "the TSIG secret is not base64".to_owned())?;
    Ok(Some(Key::new(name.clone(), algorithm, &secret)))
}

async fn within<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(STALL, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("the connection to the primary broke: {error}")),
        Err(_) => Err(format!("the primary has been silent for {} s", STALL.as_secs())),
    }
}
