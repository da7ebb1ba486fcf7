//! How many requests each caller may make: by identity, in windows of a minute, told with the fields of the IETF draft
//! "RateLimit header fields for HTTP" (httpapi-ratelimit-headers) and `Retry-After`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Seconds of a window.
const WINDOW: i64 = 60;
/// Callers that are remembered; addresses without an identity are forgotten first.
const MAX_CALLERS: usize = 20_000;

/// What a caller has used of its window.
#[derive(Debug, Clone, Copy)]
struct Used {
    window: i64,
    count: u32,
}

/// All callers' windows.
#[derive(Default)]
pub struct Quotas(Mutex<HashMap<String, Used>>);

/// What is left to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Requests of a window.
    pub limit: u32,
    /// Requests that are left in it.
    pub remaining: u32,
    /// Seconds until the next begins.
    pub reset: i64,
    /// Whether this one was too many.
    pub exceeded: bool,
}

impl Quotas {
    /// Counts a request of a caller.
    pub fn count(&self, caller: &str, limit: u32, now: i64) -> Left {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = now / WINDOW;
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, used| used.window == window);
        }
        if callers.len() >= MAX_CALLERS && !callers.contains_key(caller) {
            callers.retain(|name, _| !name.starts_with("address:"));
        }
        let used = callers.entry(caller.to_owned()).or_insert(Used { window, count: 0 });
        if used.window != window {
            *used = Used { window, count: 0 };
        }
        let exceeded = used.count >= limit;
        used.count = used.count.saturating_add(1);
        Left { limit, remaining: limit.saturating_sub(used.count), reset: WINDOW - now.rem_euclid(WINDOW), exceeded }
    }
}

impl Left {
    /// Tells it in an answer.
    pub fn tell(self, headers: &mut HeaderMap) {
        let policy = format!("\"requests\";q={};w={WINDOW}", self.limit);
        let state = format!("\"requests\";r={};t={}", self.remaining, self.reset);
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_so_many_requests_and_the_next_is_full_again() {
        let quotas = Quotas::default();
        for expected in [2, 1, 0] {
            let left = quotas.count("member:a", 3, 120);
            assert_eq!((left.remaining, left.exceeded, left.reset), (expected, false, 60));
        }
        assert!(quotas.count("member:a", 3, 179).exceeded);
        assert!(!quotas.count("member:b", 3, 179).exceeded, "another caller has its own");
        assert!(!quotas.count("member:a", 3, 180).exceeded);
    }
}
