//! `events` and `statistics`: what happens, as it happens, and what the broker does and has.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use dnsbroker_api::client::{Client, ClientError};
use dnsbroker_api::endpoint::query_of;
use dnsbroker_api::event::{Event, ListenEvents};
use dnsbroker_api::statistics::{Pulse, Statistics};

use super::Context;
use super::output::{Output, table};

/// Between two attempts to listen again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Events {
    /// Begin behind this event; 0 is the beginning of the audit. Without it: what happens from now on
    #[arg(long)]
    after: Option<String>,
    /// Only kinds that begin with one of these, with commas between them: claim.,source.failed. `statistics` shows each second
    #[arg(long)]
    kinds: Option<String>,
    /// End after so many events
    #[arg(long)]
    limit: Option<u64>,
    /// Come back when the daemon restarts or the connection breaks, and go on where it was
    #[arg(long)]
    follow: bool,
}

impl Events {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        let Self { after, kinds, limit, follow } = self;
        let mut reader = Reader { after, left: limit.unwrap_or(u64::MAX), output: *output, rest: Vec::new() };
        loop {
            let ended = reader.listen(client, kinds.clone()).await;
            if reader.left == 0 || !follow {
                return Ok(ended?);
            }
            if let Err(error @ ClientError::Problem(_)) = ended {
                return Err(error.into());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Reads a stream of events (HTML, section 9.2.6), as far as the daemon makes use of it.
struct Reader {
    after: Option<String>,
    left: u64,
    output: Output,
    rest: Vec<u8>,
}

impl Reader {
    async fn listen(&mut self, client: &Client, kinds: Option<String>) -> Result<(), ClientError> {
        self.rest.clear();
        let query = query_of(&ListenEvents { after: self.after.clone(), kinds });
        client.follow(&format!("/api/v1/events{query}"), |octets| self.take(octets)).await
    }

    fn take(&mut self, octets: &[u8]) -> ControlFlow<()> {
        self.rest.extend_from_slice(octets);
        while let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
            let piece: Vec<u8> = self.rest.drain(..end + 2).collect();
            self.show(&String::from_utf8_lossy(&piece));
            if self.left == 0 {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn show(&mut self, piece: &str) {
        let field = |name: &str| piece.lines().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else { return };
        if let Some(id) = field("id: ") {
            self.after = Some(id.to_owned());
        }
        if field("event: ") == Some("cut") {
            self.output.note(&format!("the daemon has cut the stream: {data}"));
            return;
        }
        self.left = self.left.saturating_sub(1);
        if self.output.is_json() {
            return self.output.line(data);
        }
        match serde_json::from_str::<Event>(data) {
            Ok(event) => self.output.line(line(&event).trim_end()),
            Err(_) => match serde_json::from_str::<Pulse>(data) {
                Ok(pulse) => self.output.line(&second(&pulse)),
                Err(_) => self.output.line(data),
            },
        }
    }
}

fn line(event: &Event) -> String {
    let Event { id, kind, at, actor, object, detail, .. } = event;
    let detail = if detail.is_null() { String::new() } else { detail.to_string() };
    format!("{id:>6}  {at}  {kind}  {object}  {}  {detail}", actor.as_deref().unwrap_or("-"))
}

fn second(pulse: &Pulse) -> String {
    let Pulse { at, answers, latency, connections, commits, acts, devices, serial } = pulse;
    let latency = latency.map_or_else(|| "-".to_owned(), |took| format!("{} / {} µs", took.p50, took.p99));
    format!(
        "{at}  found {} nodata {} nxdomain {} refused {}  p50/p99 {latency}  connections {connections}  commits {commits} \
         acts {acts}  devices {devices}  serial {serial}",
        answers.found, answers.nodata, answers.nxdomain, answers.refused
    )
}

pub(super) async fn statistics(Context { client, output }: &Context) -> anyhow::Result<()> {
    let statistics = client.statistics().await?;
    output.print(&statistics, text);
    Ok(())
}

fn text(statistics: &Statistics) -> String {
    let mut text = String::new();
    if let Some(last) = statistics.seconds.last() {
        text.push_str(&format!("{}\n", second(last)));
    }
    let answers = &statistics.answers;
    text.push_str(&format!(
        "answers since the start: found {} nodata {} nxdomain {} refused {} rejected {}\n",
        answers.found, answers.nodata, answers.nxdomain, answers.refused, answers.rejected
    ));
    if let Some(took) = &statistics.latency {
        text.push_str(&format!(
            "an answer takes {} µs (half of them), {} µs (99 of 100), {} µs (999 of 1000)\n",
            took.p50, took.p99, took.p999
        ));
    }
    text.push_str(&format!("connections {}, claims waiting {}\n\n", statistics.connections, statistics.claims.waiting));
    let members = statistics.members.iter().map(|share| {
        vec![
            share.member.to_string(),
            share.devices.to_string(),
            share.queries.to_string(),
            share.connections.to_string(),
        ]
    });
    text.push_str(&table(&["MEMBER", "DEVICES", "QUERIES", "CONNECTIONS"], &members.collect::<Vec<_>>()));
    if !statistics.ouis.is_empty() {
        let ouis = statistics.ouis.iter().map(|share| vec![share.oui.clone(), share.devices.to_string()]);
        text.push_str(&format!("\n{}", table(&["OUI", "DEVICES"], &ouis.collect::<Vec<_>>())));
    }
    for ending in &statistics.certificates {
        text.push_str(&format!("certificate of {} ends {}\n", ending.name, ending.not_after));
    }
    for source in &statistics.sources {
        text.push_str(&format!("source {} is {}: {}\n", source.netid, source.state, source.reason));
    }
    text
}
