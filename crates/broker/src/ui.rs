//! The admin UI: the files of `admin-ui/`, in the program, served under `/ui/`.
//!
//! They are the same for everybody and hold no secret; what a page shows it asks of `/api/v1`, as who looks at it. Scripts,
//! styles and pictures come from here and nowhere else, and nothing may put the pages into a frame: see [`POLICY`].

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::api::ApiError;

/// Where it is.
pub const PATH: &str = "/ui/";
/// What a page may load and do (Content Security Policy, level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A file of the UI.
struct File {
    path: &'static str,
    octets: &'static [u8],
}

macro_rules! files {
    ($($path:literal)+) => {
        &[$(File { path: $path, octets: include_bytes!(concat!("../../../admin-ui/", $path)) }),+]
    };
}

/// All files. That none is missing is held by a test.
const FILES: &[File] = files! {
    "app/acts.js"
    "app/api.js"
    "app/charts.js"
    "app/dialogs.js"
    "app/html.js"
    "app/icons.js"
    "app/live.js"
    "app/login.js"
    "app/main.js"
    "app/menu.js"
    "app/pages/audit.js"
    "app/pages/ca.js"
    "app/pages/certificates.js"
    "app/pages/claims.js"
    "app/pages/devices.js"
    "app/pages/enrol.js"
    "app/pages/find.js"
    "app/pages/imports.js"
    "app/pages/keys.js"
    "app/pages/map.js"
    "app/pages/members.js"
    "app/pages/moves.js"
    "app/pages/netids.js"
    "app/pages/overview.js"
    "app/pages/own.js"
    "app/pages/people.js"
    "app/pages/policy.js"
    "app/pages/replicas.js"
    "app/pages/settings.js"
    "app/pages/sources.js"
    "app/pages/transfers.js"
    "app/pages/webhooks.js"
    "app/parts.js"
    "app/qr.js"
    "app/route.js"
    "app/rules.js"
    "app/stats.js"
    "app/text.js"
    "app/theme.js"
    "app/who.js"
    "icon.svg"
    "index.html"
    "style/base.css"
    "style/charts.css"
    "style/parts.css"
    "vendor/LICENSES.txt"
    "vendor/hooks.mjs"
    "vendor/htm.mjs"
    "vendor/preact.mjs"
    "vendor/qrcode.mjs"
};

/// Entity tags, in the order of the files.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| FILES.iter().map(|file| tag(file.octets)).collect());

fn tag(octets: &[u8]) -> String {
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, octets)))
}

/// The routes of the UI, beside those of the API.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let home = || async { Redirect::to(PATH) };
    let index = |headers: HeaderMap| async move { serve("index.html", &headers) };
    let file = |Path(path): Path<String>, headers: HeaderMap| async move { serve(&path, &headers) };
    Router::new().route("/", get(home)).route("/ui", get(home)).route(PATH, get(index)).route("/ui/{*path}", get(file))
}

fn serve(path: &str, headers: &HeaderMap) -> Response {
    #[cfg(debug_assertions)]
    if let Some(response) = from_disk(path) {
        return response;
    }
    let Some((file, tag)) = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.path == path) else {
        let uri: Uri = path.parse().unwrap_or_default();
        let detail = format!("there is no page {uri} of the UI: it begins at {PATH}");
        return ApiError::not_found("no-route", detail).into_response();
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let fresh = known.is_some_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    match fresh {
        true => dressed(StatusCode::NOT_MODIFIED.into_response(), path, tag),
        false => dressed(file.octets.into_response(), path, tag),
    }
}

/// For who works on the UI: a debug build serves the files as they are in this directory now.
#[cfg(debug_assertions)]
fn from_disk(path: &str) -> Option<Response> {
    let dir = std::env::var_os("DNSBROKER_UI_DIR")?;
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let octets = std::fs::read(std::path::Path::new(&dir).join(path)).ok()?;
    let tag = tag(&octets);
    Some(dressed(octets.into_response(), path, &tag))
}

/// An answer with its headers.
fn dressed(mut response: Response, path: &str, tag: &str) -> Response {
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, media_type(path)),
        // It is asked for anew each time, and not sent again unless the program is another one.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn files_under(dir: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("the UI's directory").flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => files_under(&entry.path(), &format!("{name}/"), found),
                false => _ = found.insert(name),
            }
        }
    }

    #[test]
    fn every_file_of_the_ui_is_in_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../admin-ui");
        let mut found = BTreeSet::new();
        files_under(&root, "", &mut found);
        found.retain(|path| !path.starts_with("screenshots/") && path != "README.md");
        assert_eq!(FILES.iter().map(|file| file.path.to_owned()).collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn no_page_has_script_or_style_of_its_own_or_from_elsewhere() {
        for file in FILES.iter().filter(|file| !file.path.starts_with("vendor/")) {
            let text = std::str::from_utf8(file.octets).expect("text");
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "javascript:"] {
                assert!(!text.contains(word), "{} has {word}", file.path);
            }
            let foreign =
                text.split("://").count() > 1 && (file.path.ends_with(".html") || file.path.ends_with(".css"));
            assert!(!foreign, "{} names another site", file.path);
            if file.path.ends_with(".html") {
                assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains(" onclick="));
                assert_eq!(
                    text.matches("<script").count(),
                    text.matches("<script src=").count() + text.matches("<script type=\"module\" src=").count()
                );
            }
        }
    }

    fn script(path: &str) -> &'static str {
        let file = FILES.iter().find(|file| file.path == path).expect("a file");
        std::str::from_utf8(file.octets).expect("text")
    }

    /// Names that are written in quotes and look like that of an act.
    fn acts(text: &str) -> impl Iterator<Item = &str> {
        let act = |word: &&str| {
            word.contains('.') && word.bytes().all(|byte| byte.is_ascii_lowercase() || b".-".contains(&byte))
        };
        text.split('"').skip(1).step_by(2).filter(act)
    }

    #[test]
    fn every_act_of_the_audit_has_words_and_can_be_filtered() {
        let (words, audit) = (script("app/acts.js"), script("app/pages/audit.js"));
        let mut known = 0;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/src/act");
        for entry in std::fs::read_dir(root).expect("the acts").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("text");
            for act in acts(&text) {
                known += 1;
                assert!(words.contains(&format!("\"{act}\": \"")), "{act} has no words in app/acts.js");
                let (kind, _) = act.split_once('.').expect("a dot");
                assert!(audit.contains(&format!("\"{kind}.\"")), "{kind}. is no filter of app/pages/audit.js");
            }
        }
        assert!(known > 40, "{known} acts were found");
    }

    #[test]
    fn a_script_uses_what_it_imports() {
        for file in FILES.iter().filter(|file| file.path.starts_with("app/")) {
            let text = script(file.path);
            let lists = text.lines().filter_map(|line| line.strip_prefix("import {")?.split_once('}'));
            for name in lists.flat_map(|(names, _)| names.split(',').map(str::trim)) {
                let part = |char: char| char.is_ascii_alphanumeric() || char == '$' || char == '_';
                let count = text.split(|char| !part(char)).filter(|word| *word == name).count();
                assert!(count > 1, "{} imports {name} for nothing", file.path);
            }
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let first = serve("index.html", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tag);
        assert_eq!(serve("index.html", &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(serve("../Cargo.toml", &headers).status(), StatusCode::NOT_FOUND);
    }
}
