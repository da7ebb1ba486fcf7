//! The invariants of crates/ARCHITECTURE.md that a compiler does not keep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_api::event::KINDS;

/// Crate, and the crates of ours it may know.
const ARROWS: [(&str, &[&str]); 9] = [
    ("dnsbroker-federation", &[]),
    ("dnsbroker-zone", &["dnsbroker-federation"]),
    ("dnsbroker-ca", &["dnsbroker-federation"]),
    ("dnsbroker-store", &["dnsbroker-federation", "dnsbroker-zone", "dnsbroker-ca"]),
    ("dnsbroker-api", &["dnsbroker-federation"]),
    ("dnsbroker", &["dnsbroker-federation", "dnsbroker-zone", "dnsbroker-ca", "dnsbroker-store", "dnsbroker-api"]),
    ("dnsbroker-agent", &["dnsbroker-federation", "dnsbroker-zone", "dnsbroker-api"]),
    ("dnsbroker-bench", &["dnsbroker-federation", "dnsbroker-zone", "dnsbroker-api"]),
    (
        "dnsbroker-tests",
        &["dnsbroker-federation", "dnsbroker-zone", "dnsbroker-ca", "dnsbroker-store", "dnsbroker-api"],
    ),
];

/// Crates that do no I/O.
const PURE: [&str; 3] = ["federation", "zone", "ca"];
/// What they may not name outside their tests.
const IMPURE: [&str; 12] = [
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "std::env",
    "SystemTime",
    "Instant::now",
    "rand::",
    "getrandom",
    "SystemRandom",
];
/// Dependencies they may not have.
const IMPURE_CRATES: [&str; 6] = ["tokio", "hyper", "axum", "redb", "sled", "rustls"];
/// Names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];
/// Lines of a source file at most.
const MAX_LINES: usize = 800;
/// Least versions: older ones have known faults.
const FLOORS: [(&str, (u64, u64, u64)); 6] = [
    ("hickory-proto", (0, 26, 3)),
    ("hickory-server", (0, 26, 3)),
    ("h2", (0, 4, 16)),
    ("rustls", (0, 23, 45)),
    ("rustls-webpki", (0, 103, 13)),
    ("quinn-proto", (0, 11, 15)),
];
/// Crates that are out of care, or a second TLS.
const BANNED: [&str; 4] = ["rustls-pemfile", "openssl", "openssl-sys", "native-tls"];
/// All that may stand at the top.
const TOP: [&str; 9] =
    ["Cargo.toml", "Cargo.lock", "crates", "zones", "certs", "admin-ui", "tests", "README.md", "CHANGELOG.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Of this platform only: crates of others are not on this machine.
fn metadata() -> anyhow::Result<serde_json::Value> {
    let version = Command::new("rustc").arg("-vV").output()?;
    let version = String::from_utf8(version.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Normal dependencies of each crate of ours, by name.
fn dependencies() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let metadata = metadata()?;
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        if package["source"].is_null() {
            let names = package["dependencies"].as_array().context("dependencies")?.iter();
            let normal = names.filter(|dependency| dependency["kind"].is_null());
            let names = normal.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned);
            found.insert(package["name"].as_str().context("name")?.to_owned(), names.collect());
        }
    }
    Ok(found)
}

/// All Rust sources of ours.
fn sources(under: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !["target", "corpus", ".git"].contains(&name) {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// A source without the tests at its end.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn crates_know_only_those_below_them() -> anyhow::Result<()> {
    let dependencies = dependencies()?;
    for (name, theirs) in &dependencies {
        let allowed = ARROWS.iter().find(|(known, _)| known == name);
        let (_, allowed) = allowed.with_context(|| format!("{name} is new: give it a place in ARROWS"))?;
        for dependency in theirs.iter().filter(|dependency| dependencies.contains_key(*dependency)) {
            ensure!(allowed.contains(&dependency.as_str()), "{name} must not know {dependency}");
        }
    }
    Ok(())
}

#[test]
fn only_the_store_names_an_engine() -> anyhow::Result<()> {
    for (name, theirs) in dependencies()? {
        let engines: Vec<_> =
            theirs.iter().filter(|dependency| ["redb", "sled"].contains(&dependency.as_str())).collect();
        ensure!(engines.is_empty() || name == "dnsbroker-store", "{name} names {engines:?}");
    }
    Ok(())
}

#[test]
fn the_core_does_no_io() -> anyhow::Result<()> {
    let dependencies = dependencies()?;
    for name in PURE {
        let theirs = &dependencies[&format!("dnsbroker-{name}")];
        for dependency in IMPURE_CRATES {
            ensure!(!theirs.iter().any(|known| known == dependency), "{name} depends on {dependency}");
        }
        for file in sources(&root().join("crates").join(name).join("src"))? {
            let text = std::fs::read_to_string(&file)?;
            for word in IMPURE {
                let line =
                    without_tests(&text).lines().find(|line| line.contains(word) && !line.trim().starts_with("//"));
                ensure!(line.is_none(), "{} names {word}: {line:?}", file.display());
            }
        }
    }
    Ok(())
}

#[test]
fn every_source_says_what_it_is_for_and_stays_readable() -> anyhow::Result<()> {
    let mut files = sources(&root().join("crates"))?;
    files.extend(sources(&root().join("tests"))?);
    ensure!(files.len() > 50, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let shown = file.display();
        let first = text.lines().next().unwrap_or_default();
        ensure!(first.starts_with("//! ") && first.len() > 12, "{shown} does not open by saying what it is for");
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        ensure!(!EMPTY_NAMES.contains(&stem), "{shown} has a name that says nothing");
        ensure!(text.lines().count() <= MAX_LINES, "{shown} has more than {MAX_LINES} lines");
        let unfinished = ["todo", "unimplemented"].map(|word| format!("{word}!("));
        ensure!(!unfinished.iter().any(|word| text.contains(word)), "{shown} is unfinished");
    }
    Ok(())
}

#[test]
fn the_top_has_nothing_else() -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let known = TOP.contains(&name.as_str()) || name.starts_with("LICENSE-") || name.starts_with('.');
        ensure!(known || ["target", "quickstart"].contains(&name.as_str()), "{name} does not belong at the top");
    }
    Ok(())
}

#[test]
fn dependencies_are_at_or_above_their_floors() -> anyhow::Result<()> {
    let metadata = metadata()?;
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?;
        let version = package["version"].as_str().context("version")?;
        ensure!(!BANNED.contains(&name), "{name} is banned: see .cargo/deny.toml");
        let Some((_, floor)) = FLOORS.iter().find(|(known, _)| *known == name) else { continue };
        let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let version = (next(), next(), next());
        ensure!(version >= *floor, "{name} {version:?} is below {floor:?}");
    }
    Ok(())
}

/// The fuzz targets are a workspace of their own: nothing that is built for the rest notices.
#[test]
fn the_lock_file_of_the_fuzz_targets_knows_what_our_crates_depend_on() -> anyhow::Result<()> {
    let lock: toml::Table = toml::from_str(&std::fs::read_to_string(root().join("tests/fuzz/Cargo.lock"))?)?;
    let ours = dependencies()?;
    let mut seen = 0;
    for package in lock["package"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?;
        let Some(wanted) = ours.get(name) else { continue };
        seen += 1;
        let listed = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        // A name, with its version where there are several.
        let listed: Vec<&str> = listed.filter_map(|one| one.as_str()?.split(' ').next()).collect();
        let missing: Vec<&String> = wanted.iter().filter(|wanted| !listed.contains(&wanted.as_str())).collect();
        ensure!(
            missing.is_empty(),
            "{name} depends on {missing:?}: `cargo metadata --manifest-path tests/fuzz/Cargo.toml` brings the lock file in step"
        );
    }
    ensure!(seen >= 4, "only {seen} crates of ours are under test");
    Ok(())
}

#[test]
fn every_dependency_says_why_it_is_here() -> anyhow::Result<()> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let section = manifest.split("[workspace.dependencies]").nth(1).context("no dependencies")?;
    let section = section.split("\n[").next().unwrap_or_default();
    let mut explained = false;
    for line in section.lines().filter(|line| !line.starts_with("dnsbroker-")) {
        match line {
            "" => explained = false,
            _ if line.starts_with('#') => explained = true,
            // A comment speaks for the lines that follow it.
            _ => ensure!(explained, "no reason is given above: {line}"),
        }
    }
    Ok(())
}

/// The words of a source that stand between quotes and look like the kind of an event.
fn dotted(source: &str) -> impl Iterator<Item = &str> {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'-');
    source.split('"').skip(1).step_by(2).filter(move |text| text.contains('.') && text.split('.').all(word))
}

#[test]
fn the_kinds_of_events_are_those_that_are_told() -> anyhow::Result<()> {
    let crates = root().join("crates");
    let mut told = BTreeSet::new();
    for file in sources(&crates.join("store/src/act"))? {
        told.extend(dotted(without_tests(&std::fs::read_to_string(&file)?)).map(str::to_owned));
    }
    let missing: Vec<_> = told.iter().filter(|act| !KINDS.contains(&act.as_str())).collect();
    ensure!(missing.is_empty(), "dnsbroker_api::event::KINDS lacks {missing:?}");
    let mut broker = String::new();
    for file in sources(&crates.join("broker/src"))? {
        broker += without_tests(&std::fs::read_to_string(&file)?);
    }
    for place in ["act: \"", ".notice(\"", "_in(&mut last, \"", "=> (\"", " (\""] {
        for kind in broker.split(place).skip(1).filter_map(|rest| rest.split('"').next()) {
            let first = kind.split('.').next().unwrap_or_default();
            let ours = kind.contains('.') && KINDS.iter().any(|known| known.split('.').next() == Some(first));
            ensure!(!ours || KINDS.contains(&kind), "dnsbroker_api::event::KINDS lacks {kind:?}");
        }
    }
    let unknown = KINDS.iter().find(|kind| !told.contains(**kind) && !broker.contains(&format!("\"{kind}\"")));
    ensure!(unknown.is_none(), "nothing tells of {unknown:?}");
    Ok(())
}
