//! Enrolment: a key made here, the broker's root compared with the pin before anything secret is said, a certificate for
//! the token. The same walk recovers from an expired certificate.

use std::net::IpAddr;

use dnsbroker_api::client::{Client, ClientError, UrlError};
use dnsbroker_api::message::{Ca, Enroll, Issued};
use dnsbroker_api::operator::Directory;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::files::{self, FileError};
use crate::identity::{Enrolment, Home, Identity, IdentityError, request};
use crate::tls;

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// A pin that is none.
    #[error("{0:?} is no pin: sha256: and 64 hexadecimal digits, as `dnsbroker token create` prints them")]
    Pin(String),
    /// Somebody else answers there, or the pin was copied wrongly.
    #[error("the CA at {url} has the pin {found}, not {expected}: nothing was sent; compare the pin, and the address")]
    WrongCa {
        /// Where.
        url: String,
        /// Its pin.
        found: String,
        /// The pin that was given.
        expected: String,
    },
    /// An answer that is no certificate.
    #[error("the broker's answer has no root certificate that can be read")]
    Root(#[source] rustls_pki_types::pem::Error),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The broker, or the way there.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// The address.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// Keys and certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The directory is of another federation.
    #[error("{dir} is of federation {there}, and the token of {here}: give another directory")]
    OtherFederation {
        /// The directory.
        dir: String,
        /// What is there.
        there: String,
        /// What was enrolled.
        here: String,
    },
}

impl From<ClientError> for EnrollError {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

/// What is needed to enrol.
pub struct Enrolling<'a> {
    /// The API.
    pub url: &'a str,
    /// Its addresses, where its name is not in DNS yet.
    pub addresses: Vec<IpAddr>,
    /// The one-time token.
    pub token: &'a str,
    /// SHA-256 of the root certificate.
    pub pin: &'a str,
    /// Where to keep things.
    pub home: &'a Home,
}

/// What came of it.
pub struct Enrolled {
    /// Who we are now.
    pub identity: Identity,
    /// Brokers and members, or why they are not known yet.
    pub directory: Result<Directory, String>,
}

/// Enrols.
pub async fn enroll(enrolling: Enrolling<'_>) -> Result<Enrolled, EnrollError> {
    let Enrolling { url, addresses, token, pin, home } = enrolling;
    // What `dnsbroker token create` prints is the whole route.
    let url = url.trim_end_matches('/').trim_end_matches("/api/v1/enroll");
    let expected = normal_pin(pin)?;
    let root = pinned_root(url, &addresses, &expected).await?;
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    files::public_dir(home.path())?;
    let csr = request(&home.pending_key()?).map_err(IdentityError::from)?;
    let client = Client::https(url, addresses.clone(), &tls::one_sided(roots)?)?;
    let issued: Issued = client.enroll(&Enroll { token: token.to_owned(), csr }).await?;
    let found = tls::pin(&CertificateDer::from_pem_slice(issued.ca.as_bytes()).map_err(EnrollError::Root)?);
    if found != expected {
        return Err(EnrollError::WrongCa { url: url.to_owned(), found, expected });
    }
    let here = federation_of(&issued)?;
    if let Ok(before) = home.identity()
        && before.federation.to_string() != here
    {
        let dir = home.path().display().to_string();
        return Err(EnrollError::OtherFederation { dir, there: before.federation.to_string(), here });
    }
    home.install(&issued)?;
    home.keep(
        "enrolment.json",
        &Enrolment { api_url: url.to_owned(), addresses: addresses.clone(), ca_pin: expected },
    )?;
    let identity = home.identity()?;
    let directory = first_directory(url, addresses, &identity, home).await;
    Ok(Enrolled { identity, directory })
}

/// The root, if it is the one that was announced.
async fn pinned_root(url: &str, addresses: &[IpAddr], expected: &str) -> Result<CertificateDer<'static>, EnrollError> {
    let ca: Ca = Client::https(url, addresses.to_vec(), &tls::blind()?)?.ca_show().await?;
    let root = CertificateDer::from_pem_slice(ca.root.as_bytes()).map_err(EnrollError::Root)?;
    let found = tls::pin(&root);
    if found == expected {
        Ok(root)
    } else {
        Err(EnrollError::WrongCa { url: url.to_owned(), found, expected: expected.to_owned() })
    }
}

async fn first_directory(
    url: &str,
    addresses: Vec<IpAddr>,
    identity: &Identity,
    home: &Home,
) -> Result<Directory, String> {
    let directory = async {
        let directory: Directory = Client::https(url, addresses, &identity.tls)?.directory().await?;
        Ok::<_, ClientError>(directory)
    };
    let directory = directory.await.map_err(|error| dnsbroker_api::problem::chain(&error))?;
    home.keep("directory.json", &directory).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    Ok(directory)
}

fn federation_of(issued: &Issued) -> Result<String, EnrollError> {
    let wrong = |reason| IdentityError::Certificate { path: "the broker's answer".to_owned(), reason };
    let leaf = CertificateDer::from_pem_slice(issued.chain.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let facts = crate::identity::Facts::of(&leaf).map_err(wrong)?;
    let member = facts.member().ok_or(IdentityError::Member { path: "the broker's answer".to_owned() })?;
    Ok(member.0.to_string())
}

/// A pin as it is compared: lower case, without colons between octets.
fn normal_pin(pin: &str) -> Result<String, EnrollError> {
    let digits = pin.trim().to_ascii_lowercase();
    let digits: String =
        digits.strip_prefix("sha256:").unwrap_or(&digits).chars().filter(|char| *char != ':').collect();
    if digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(format!("sha256:{digits}"))
    } else {
        Err(EnrollError::Pin(pin.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_taken_as_openssl_and_the_broker_write_it() {
        let digits = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        for text in [format!("sha256:{digits}"), digits.clone(), format!("SHA256:{colons}"), format!(" {colons} ")] {
            assert_eq!(normal_pin(&text).expect("a pin"), format!("sha256:{digits}"), "{text}");
        }
        for text in ["", "sha256:", "sha256:abcd", &"zz".repeat(32)] {
            assert!(matches!(normal_pin(text), Err(EnrollError::Pin(_))), "{text}");
        }
    }
}
