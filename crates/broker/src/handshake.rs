//! In words why a TLS handshake failed: for the log of every listener that wants certificates.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dnsbroker_store::Denial;
use rustls::{AlertDescription, CertificateError};

use crate::committer::now;
use crate::metrics::Handshake;
use crate::peer::PeerError;
use crate::tls::{cause, is_identity};

/// Failed handshakes that are logged in a second; all are counted.
const LOGGED_PER_SECOND: u32 = 10;

/// What a certificate is refused for.
pub fn refusal(error: &PeerError) -> (Handshake, String) {
    let result = match error {
        error if is_identity(error) => Handshake::Identity,
        PeerError::Denied(Denial::Revoked(_)) => Handshake::Revoked,
        PeerError::Denied(Denial::Expired(_)) => Handshake::Expired,
        _ => Handshake::Denied,
    };
    (result, error.to_string())
}

/// The cause in words.
pub fn explain(error: &io::Error) -> (Handshake, String) {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        let words = match error.kind() {
            ErrorKind::UnexpectedEof => "it went away in the middle of the handshake".to_owned(),
            _ => format!("the connection broke: {error}"),
        };
        return (Handshake::Broken, words);
    };
    match tls {
        rustls::Error::NoCertificatesPresented => {
            (Handshake::NoCertificate, "it presented no client certificate".to_owned())
        }
        rustls::Error::InvalidCertificate(error) => explain_certificate(error),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => (
                Handshake::Distrust,
                format!("it does not trust our certificate (alert {alert:?}): has it the right CA?"),
            ),
            other => (Handshake::Distrust, format!("it gave up with alert {other:?}")),
        },
        rustls::Error::PeerIncompatible(why) => {
            (Handshake::Protocol, format!("it speaks no TLS 1.3 that we know: {why:?}"))
        }
        rustls::Error::InvalidMessage(_) => (Handshake::Protocol, "what it sends is no TLS".to_owned()),
        rustls::Error::NoApplicationProtocol => {
            (Handshake::Protocol, "it offers no protocol of ours (ALPN)".to_owned())
        }
        other => (Handshake::Protocol, other.to_string()),
    }
}

fn explain_certificate(error: &CertificateError) -> (Handshake, String) {
    if let Some(error) = cause(error) {
        return refusal(error);
    }
    match error {
        CertificateError::UnknownIssuer => {
            (Handshake::WrongCa, "its certificate was not issued by this federation's CA".to_owned())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (Handshake::Expired, "its certificate has expired".to_owned())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (Handshake::Expired, "its certificate is not valid yet: is its clock, or ours, wrong?".to_owned())
        }
        CertificateError::Revoked => (Handshake::Revoked, "its certificate is revoked".to_owned()),
        other => (Handshake::Identity, format!("its certificate is not good for a client: {other}")),
    }
}

/// Whether one more failed handshake may be logged in this second.
pub fn may_log() -> bool {
    static SECOND: AtomicU64 = AtomicU64::new(0);
    static LOGGED: AtomicU32 = AtomicU32::new(0);
    let second = now() as u64;
    if SECOND.swap(second, Ordering::Relaxed) != second {
        LOGGED.store(0, Ordering::Relaxed);
    }
    LOGGED.fetch_add(1, Ordering::Relaxed) < LOGGED_PER_SECOND
}
