//! Sessions of administrators: in memory, so that a restart ends them all.
//!
//! The browser keeps a cookie that no script sees (`__Host-`, Secure, HttpOnly, SameSite=Strict), and the page a token that no
//! other site knows, which comes back in a header with each change (CSRF). Only the cookie's hash is kept. A session ends
//! when nobody uses it, after a working day, at logout, and when its administrator's password changes or they may no longer
//! log in: that is looked at on each request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use dnsbroker_store::View;
use dnsbroker_store::record::{Administrator, Role};
use zeroize::Zeroizing;

use super::totp::OneTime;
use crate::key::{KeyError, new_secret};

/// The cookie's name. The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis, section 4.1.3.2).
pub const COOKIE: &str = "__Host-session";
/// The header with the CSRF token.
pub const CSRF: &str = "x-csrf-token";
/// Seconds that a session lasts.
const LIFE: i64 = 12 * 3_600;
/// Seconds without a request after which it ends.
const IDLE: i64 = 30 * 60;
/// Sessions at once; of more, those that were not used for longest end.
const MAX_SESSIONS: usize = 1_000;
/// Failures to log in under one name, or from one address, after which it waits.
const FAILURES: u32 = 5;
/// Seconds that it waits, and after which failures are forgotten.
const PENALTY: i64 = 60;
/// Names and addresses that are remembered for their failures.
const MAX_FAILURES: usize = 10_000;

type Hash = [u8; 32];

fn hash(text: &str) -> Hash {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// The token that a page sends back: it follows from the cookie, which no script and no other site can read.
pub fn csrf_of(cookie: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(hash(&format!("csrf of {cookie}")))
}

/// One session.
struct Session {
    name: String,
    /// The password's hash as it was at the login.
    password: String,
    began: i64,
    used: i64,
    /// Where it was opened from.
    address: String,
    /// A secret that was shown and not confirmed yet.
    pending: Option<OneTime>,
}

/// What a browser gets once.
pub struct Opened {
    /// The cookie's value.
    pub cookie: Zeroizing<String>,
    /// The CSRF token.
    pub csrf: String,
    /// When the session ends at the latest.
    pub expires: i64,
}

/// Who has a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The administrator.
    pub name: String,
    /// What they may do now.
    pub role: Role,
    /// When the session ends at the latest.
    pub expires: i64,
}

/// All sessions, and who failed to open one.
#[derive(Default)]
pub struct Sessions {
    open: Mutex<HashMap<Hash, Session>>,
    failures: Mutex<HashMap<String, (u32, i64)>>,
    /// The time step of the last one-time code that each administrator gave here, at a standby.
    steps: Mutex<HashMap<String, u64>>,
}

impl Sessions {
    /// Takes a one-time code once: whether its time step is after the last one of this administrator. Administrators are
    /// few, and are known by then.
    pub fn use_step(&self, name: &str, step: u64) -> bool {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let last = steps.entry(name.to_owned()).or_default();
        let is_new = step > *last;
        *last = step.max(*last);
        is_new
    }

    /// Opens one for an administrator whose password and code were right.
    pub fn open(&self, administrator: &Administrator, address: &str, now: i64) -> Result<Opened, KeyError> {
        let cookie = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&*new_secret(32)?));
        let csrf = csrf_of(&cookie);
        let session = Session {
            name: administrator.name.clone(),
            password: administrator.password.clone(),
            began: now,
            used: now,
            address: address.to_owned(),
            pending: None,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| session.lives(now));
        if open.len() >= MAX_SESSIONS
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| *key)
        {
            open.remove(&oldest);
        }
        open.insert(hash(&cookie), session);
        Ok(Opened { cookie, csrf, expires: now + LIFE })
    }

    /// Whose session a cookie is, and whether the request that changes something came from our own page.
    pub fn known(&self, cookie: &str, csrf: Option<&str>, view: &View, now: i64) -> Result<Known, SessionError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = hash(cookie);
        let session = open.get_mut(&key).ok_or(SessionError::Over)?;
        let administrator = view.accounts.administrators.get(&session.name);
        let administrator = administrator
            .filter(|known| session.lives(now) && known.disabled.is_none() && known.password == session.password);
        let Some(administrator) = administrator else {
            open.remove(&key);
            return Err(SessionError::Over);
        };
        if let Some(csrf) = csrf
            && verify_slices_are_equal(csrf.as_bytes(), csrf_of(cookie).as_bytes()).is_err()
        {
            return Err(SessionError::Csrf);
        }
        session.used = now;
        Ok(Known { name: session.name.clone(), role: administrator.role, expires: session.began + LIFE })
    }

    /// Whether a session that was open still is. To look is no use of it: a page that only shows what happens ends with the
    /// person who has left it.
    pub fn lives(&self, cookie: &str, view: &View, now: i64) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&hash(cookie)).is_some_and(|session| {
            let administrator = view.accounts.administrators.get(&session.name);
            let same =
                |known: &std::sync::Arc<Administrator>| known.disabled.is_none() && known.password == session.password;
            session.lives(now) && administrator.is_some_and(same)
        })
    }

    /// Ends one.
    pub fn close(&self, cookie: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(cookie));
    }

    /// All of one administrator, the last one used first; `cookie` is that of who asks.
    pub fn of(&self, name: &str, cookie: &str, view: &View, now: i64) -> Vec<Seen> {
        let own = hash(cookie);
        let password = view.accounts.administrators.get(name).map(|known| known.password.clone());
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = open.iter().filter(|(_, session)| {
            session.name == name && session.lives(now) && Some(&session.password) == password.as_ref()
        });
        let mut seen: Vec<Seen> = theirs
            .map(|(key, session)| Seen {
                id: id(key),
                address: session.address.clone(),
                began: session.began,
                used: session.used,
                current: *key == own,
            })
            .collect();
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.used));
        seen
    }

    /// Ends one of an administrator, by its id; whether there was one.
    pub fn end(&self, name: &str, wanted: &str) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open.len();
        open.retain(|key, session| session.name != name || id(key) != wanted);
        open.len() < before
    }

    /// After a change of password: this session goes on, the administrator's others end by themselves.
    pub fn keep(&self, cookie: &str, administrator: &Administrator) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get_mut(&hash(cookie)) {
            session.password.clone_from(&administrator.password);
        }
    }

    /// Remembers a secret until a code of it was given.
    pub fn pend(&self, cookie: &str, secret: OneTime) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get_mut(&hash(cookie)) {
            session.pending = Some(secret);
        }
    }

    /// The secret that is waited for, if the code is one of it; with its time step.
    pub fn confirm(&self, cookie: &str, code: &str, now: i64) -> Option<(OneTime, u64)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get_mut(&hash(cookie))?;
        let step = session.pending.as_ref()?.step(code, now)?;
        session.pending.take().map(|secret| (secret, step))
    }

    /// Seconds that a name or an address has to wait after too many failures.
    pub fn must_wait(&self, who: &str, now: i64) -> Option<i64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = failures.get(who)?;
        (*count >= FAILURES && now < last + PENALTY).then(|| last + PENALTY - now)
    }

    /// Counts a failure, of the name and of the address.
    pub fn failed(&self, who: &str, now: i64) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_FAILURES {
            failures.retain(|_, (_, last)| now < *last + PENALTY);
        }
        // Where there is still no room somebody tries many names: those who are known are held back all the same.
        if failures.len() < MAX_FAILURES || failures.contains_key(who) {
            let entry = failures.entry(who.to_owned()).or_insert((0, now));
            *entry = if now < entry.1 + PENALTY { (entry.0 + 1, now) } else { (1, now) };
        }
    }

    /// Forgets the failures of who got in.
    pub fn succeeded(&self, who: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }
}

impl Session {
    fn lives(&self, now: i64) -> bool {
        now < self.began + LIFE && now < self.used + IDLE
    }
}

/// A session as its administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name in lists: nothing that opens anything.
    pub id: String,
    /// Where it was opened from.
    pub address: String,
    /// When.
    pub began: i64,
    /// When it was last used.
    pub used: i64,
    /// Whether it is that of who asks.
    pub current: bool,
}

/// What a session is called: the first half of the hash of what opens it.
fn id(key: &Hash) -> String {
    key[..16].iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Why a cookie opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is no such session, or none any more.
    #[error("the session is over: log in again")]
    Over,
    /// The request does not come from our own page.
    #[error("the request lacks the session's X-CSRF-Token: get it from GET /api/v1/session")]
    Csrf,
}

/// The value of a cookie among those of a `Cookie` header.
pub fn cookie(header: &str) -> Option<&str> {
    header.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, v)| v)
}

/// `Set-Cookie` of an open session.
pub fn set_cookie(value: &str) -> String {
    format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={LIFE}")
}

/// `Set-Cookie` that takes it away.
pub fn clear_cookie() -> String {
    format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_failures_a_name_waits_and_others_do_not() {
        let sessions = Sessions::default();
        for now in 100..105 {
            assert_eq!(sessions.must_wait("ada", now), None);
            sessions.failed("ada", now);
        }
        assert_eq!(sessions.must_wait("ada", 110), Some(54));
        assert_eq!(sessions.must_wait("bob", 110), None);
        assert_eq!(sessions.must_wait("ada", 104 + PENALTY), None);
        sessions.failed("ada", 104 + PENALTY);
        assert_eq!(sessions.must_wait("ada", 105 + PENALTY), None, "the old failures are forgotten");
    }

    #[test]
    fn a_standby_takes_each_code_once_and_none_from_before_it() {
        let sessions = Sessions::default();
        for (name, step, taken) in
            [("ada", 7, true), ("ada", 7, false), ("ada", 6, false), ("bob", 7, true), ("ada", 8, true)]
        {
            assert_eq!(sessions.use_step(name, step), taken, "{name} {step}");
        }
    }

    #[test]
    fn our_cookie_is_found_among_others() {
        assert_eq!(cookie("a=b; __Host-session=xyz; c=d"), Some("xyz"));
        assert_eq!(cookie("__Host-sessionx=1; session=2"), None);
    }
}
