//! Passwords: hashed with argon2id (RFC 9106), in PHC form, and compared in the same time whether there is such a name or
//! not.
//!
//! A hash takes 19 MiB and some 20 ms on purpose, so only a few are made at once: whoever guesses many at a time waits, and
//! takes nothing from look-ups.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::key::{KeyError, new_secret};

/// Hashes at once.
static TURNS: Semaphore = Semaphore::const_new(2);
/// What a password that belongs to nobody is compared with.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash_now(b"nobody has this password"));
/// Characters of a password.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=1024;

/// Why a text is not taken as a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short to be safe, or too long to be meant.
    #[error("the password does not have 12 to 1024 characters")]
    Length,
    /// The provider failed.
    #[error("the password cannot be hashed now")]
    Hash,
}

/// The hash, where blocking is allowed.
pub fn hash_now(password: &[u8]) -> Option<String> {
    Argon2::default().hash_password(password).ok().map(|hash| hash.to_string())
}

/// The hash of a new password, in PHC form.
pub async fn hash(password: Zeroizing<String>) -> Result<String, PasswordError> {
    if !LENGTH.contains(&password.chars().count()) {
        return Err(PasswordError::Length);
    }
    // The semaphore is never closed.
    let _turn = TURNS.acquire().await.ok();
    let hashed = tokio::task::spawn_blocking(move || hash_now(password.as_bytes())).await;
    hashed.ok().flatten().ok_or(PasswordError::Hash)
}

/// Whether a password is the one of this hash; without a hash it takes as long and is not.
pub async fn verify(password: Zeroizing<String>, hash: Option<String>) -> bool {
    let _turn = TURNS.acquire().await.ok();
    let verified = tokio::task::spawn_blocking(move || {
        let known = hash.is_some();
        let Some(hash) = hash.or_else(|| NOBODY.clone()) else { return false };
        let Ok(parsed) = PasswordHash::new(&hash) else { return false };
        // A longer one was never set; it would only cost time.
        let long = password.len() > 4 * *LENGTH.end();
        let right = !long && Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
        known && right
    });
    verified.await.unwrap_or(false)
}

/// A password of 120 random bits, in groups that can be typed.
pub fn random() -> Result<Zeroizing<String>, KeyError> {
    // 32 characters without those that look alike.
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789x";
    let octets = new_secret(24)?;
    let mut text = Zeroizing::new(String::with_capacity(30));
    for (place, octet) in octets.iter().enumerate() {
        if place > 0 && place % 6 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(octet & 31)]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(password: &str) -> Zeroizing<String> {
        Zeroizing::new(password.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_verified_by_its_hash_and_nobody_has_one_by_guess() {
        let hashed = hash(text("correct horse battery")).await.expect("hashed");
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        assert!(verify(text("correct horse battery"), Some(hashed.clone())).await);
        assert!(!verify(text("correct horse batterz"), Some(hashed)).await);
        assert!(!verify(text("nobody has this password"), None).await);
    }

    #[tokio::test]
    async fn short_passwords_are_refused() {
        assert_eq!(hash(text("elevenchars")).await, Err(PasswordError::Length));
        assert_eq!(random().expect("made").len(), 27);
    }
}
