//! All measurements in one run: start and memory, then look-ups and handshakes beside the floor.
//!
//! Broker and floor take turns within each round, so that whatever else the machine does meets both; ratios are taken
//! within a round, and medians over the rounds.

mod figures;
mod table;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

use crate::client::{Connector, Method};
use crate::devices::{devices, strangers};
use crate::federation::Federation;
use crate::load::Shape;
use crate::output;
use crate::process::{Server, resident};
use crate::questions::Questions;
use crate::{handshakes, load};
use figures::{HandshakeFigures, LoadFigures, StartFigures, SuiteFigures};

/// Connections and streams of each.
const SHAPES: [Shape; 4] = [
    Shape { connections: 10, streams: 10 },
    Shape { connections: 100, streams: 10 },
    Shape { connections: 100, streams: 1 },
    Shape { connections: 1, streams: 100 },
];
/// Names that are not registered.
const STRANGERS: usize = 1_000_000;

/// The command `suite`.
#[derive(Args)]
pub struct Suite {
    /// Devices registered
    #[arg(long, default_value_t = 100_000)]
    devices: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each measurement is made; medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print JSON with the figures of every round
    #[arg(long)]
    json: bool,
}

/// A server that is measured.
struct Measured {
    connector: Connector,
    pid: u32,
}

/// What is asked in the suite.
struct Asked {
    registered: Arc<Questions>,
    strangers: Arc<Questions>,
}

impl Suite {
    /// Runs everything and prints it.
    pub async fn run(self) -> anyhow::Result<()> {
        ensure!(self.devices > 0 && self.rounds > 0, "there is at least 1 device and 1 round");
        let time = Duration::try_from_secs_f64(self.seconds)?;
        output::progress(&format!("making a federation with {} devices", self.devices));
        let mut federation = Federation::make()?;
        let (start, asked) = self.start(&mut federation).await?;
        let (floor, address) = federation.floor()?;
        let floor = Served {
            measured: Measured { connector: federation.connector(address)?, pid: floor.pid() },
            _server: floor,
        };
        let broker = Measured { connector: federation.doh()?, pid: federation.pid()? };
        let mut figures = SuiteFigures {
            version: federation.version().to_owned(),
            store: federation.engine().to_owned(),
            processors: std::thread::available_parallelism().map_or(1, |count| count.get()),
            devices: self.devices,
            rounds: self.rounds,
            seconds: self.seconds,
            start,
            loads: LoadFigures::of_shapes(&SHAPES),
            handshakes: [HandshakeFigures::new("full"), HandshakeFigures::new("resumed")],
        };
        for round in 1..=self.rounds {
            output::progress(&format!("round {round} of {}", self.rounds));
            for load in &mut figures.loads {
                look_up(load, &broker, &floor.measured, &asked, time).await?;
            }
            for handshake in &mut figures.handshakes {
                shake(handshake, &broker, &floor.measured, &asked, time).await?;
            }
        }
        figures.start.rss_after_load = resident(broker.pid)?;
        federation.stop()?;
        if self.json { output::report(&figures, true) } else { Ok(output::line(&table::markdown(&figures))?) }
    }

    /// Imports the devices, and starts the daemon again with them.
    async fn start(&self, federation: &mut Federation) -> anyhow::Result<(StartFigures, Asked)> {
        let devices = devices(self.devices);
        let apex = federation.apex()?;
        let asked = Asked {
            strangers: Arc::new(Questions::of_devices(apex.clone(), strangers(&devices, STRANGERS))),
            registered: Arc::new(Questions::of_devices(apex, devices.clone())),
        };
        federation.serve().await?;
        federation.furnish()?;
        // The daemon has answered nothing yet but the commands that made the member.
        let rss_empty = resident(federation.pid()?)?;
        let import = federation.import(&devices)?;
        drop(devices);
        federation.stop()?;
        let store = federation.store_octets()?;
        let started = federation.serve_until_answer(&asked.registered).await?;
        let rss = resident(federation.pid()?)?;
        let each = |octets: u64| octets as f64 / self.devices as f64;
        let start = StartFigures {
            rss_empty,
            import_seconds: import.as_secs_f64(),
            start_seconds: started.as_secs_f64(),
            rss,
            rss_octets_per_device: each(rss.saturating_sub(rss_empty)),
            store_octets: store,
            store_octets_per_device: each(store),
            rss_after_load: rss,
        };
        Ok((start, asked))
    }
}

/// A server of ours and how to reach it.
struct Served {
    measured: Measured,
    /// Ends with it.
    _server: Server,
}

/// One measurement of each kind of look-up, floor and broker in turn.
async fn look_up(
    figures: &mut LoadFigures,
    broker: &Measured,
    floor: &Measured,
    asked: &Asked,
    time: Duration,
) -> anyhow::Result<()> {
    let (questions, rcode) = if figures.registered { (&asked.registered, 0) } else { (&asked.strangers, 3) };
    let task = |server: &Measured, rcode| load::Task {
        connector: server.connector.clone(),
        shape: figures.shape,
        time,
        method: if figures.post { Method::Post } else { Method::Get },
        questions: Arc::clone(questions),
        rcode,
        server_pid: Some(server.pid),
    };
    // The floor finds every name.
    let (floor, broker) = (task(floor, 0), task(broker, rcode));
    let floor = load::run(&floor).await.context("load on the floor")?;
    let broker = load::run(&broker).await.context("load on the broker")?;
    figures.floor.push(floor);
    figures.broker.push(broker);
    Ok(())
}

/// One measurement of handshakes, floor and broker in turn.
async fn shake(
    figures: &mut HandshakeFigures,
    broker: &Measured,
    floor: &Measured,
    asked: &Asked,
    time: Duration,
) -> anyhow::Result<()> {
    let task = |server: &Measured| handshakes::Task {
        connector: server.connector.clone(),
        resumed: figures.kind == "resumed",
        time,
        questions: Arc::clone(&asked.registered),
        rcode: 0,
        server_pid: Some(server.pid),
    };
    let (floor, broker) = (task(floor), task(broker));
    figures.floor.push(handshakes::run(&floor).await.context("handshakes with the floor")?);
    figures.broker.push(handshakes::run(&broker).await.context("handshakes with the broker")?);
    Ok(())
}
