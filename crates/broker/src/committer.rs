//! The one writer: acts queue here, are made durable in groups, become visible, and only then are acknowledged.
//!
//! It is a thread of its own because a commit waits for the disk. Acts that arrive meanwhile form the next group, so
//! the more there are, the fewer syncs each costs.

use std::fs::File;
use std::io::BufWriter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dnsbroker_api::problem::chain;
use dnsbroker_store::act::Promote;
use dnsbroker_store::audit::Row;
use dnsbroker_store::backup::{self, BackupError};
use dnsbroker_store::record::Primary;
use dnsbroker_store::{Act, Actor, Refusal, ReplayError, Settings, Shipment, Store, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::shared::Shared;
use crate::standby::Elsewhere;

/// Acts that may wait; more are kept back by the channel.
const QUEUE: usize = 4_096;
/// Acts of one group at most, so that the first is not kept waiting for ever.
const GROUP: usize = 1_024;

/// A group waits so long, from its first act on, for those that were answered with the last one.
const GATHER: Duration = Duration::from_micros(300);

/// What is said then, to everybody.
const WRITER_FAILED: &str = "the writer has failed: no change is taken until the broker is restarted";

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A rule forbids it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed. Whether the change is there is known once the store can be read again.
    #[error("the store failed: {reason}")]
    Store {
        /// What it said.
        reason: String,
        /// Whether the disk is full.
        full: bool,
    },
    /// This broker is not the one that takes changes.
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
    /// The writer has failed in a way that nobody foresaw. It never goes otherwise while there is somebody to ask it.
    #[error("{WRITER_FAILED}")]
    Failed,
}

/// A store failure, told to every act of the group.
#[derive(Debug, Clone)]
struct Failure {
    reason: String,
    full: bool,
}

type Acknowledge = Box<dyn FnOnce(Result<(), Failure>) + Send>;
type Job = Box<dyn FnOnce(&mut Transaction<'_>) -> Acknowledge + Send>;
/// Tells one act that the store failed before it was its turn.
type Fail = Box<dyn FnOnce(Failure) + Send>;

enum Message {
    Act(Job, Fail),
    Other(Between),
}

/// What is done between two commits.
enum Between {
    Configure(Box<Settings>, oneshot::Sender<Result<(), String>>),
    Dump(Box<Dump>),
    Ping(oneshot::Sender<()>),
    Replay(Shipment, oneshot::Sender<Result<Vec<Row>, ReplayError>>),
    Adopt(Box<Store>, oneshot::Sender<()>),
}

/// A copy of the store, and where what comes after it begins.
pub struct Dumped {
    /// The copy, in the form of a backup.
    pub file: File,
    /// The place in the outbox of the commit after it.
    pub place: u64,
    /// Its last act.
    pub act: u64,
}

/// A backup that is asked for.
struct Dump {
    file: File,
    files: Vec<(String, Vec<u8>)>,
    reply: oneshot::Sender<Result<Dumped, BackupError>>,
}

/// Takes acts. Cheap to clone; the writer ends when the last is dropped.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Committer {
    /// Starts the writer on a store. Join the thread to have everything written and folded.
    pub fn start(store: Store, shared: Arc<Shared>) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let writer = Writer { store, shared: Arc::clone(&shared) };
        let failed = Arc::clone(&shared);
        let run = move || {
            // The queue goes with the writer, so that nobody waits for it; what was half done in memory goes too.
            if catch_unwind(AssertUnwindSafe(|| writer.run(messages))).is_err() {
                failed.writer_failed(WRITER_FAILED);
            }
        };
        let thread = std::thread::Builder::new().name("commit".to_owned()).spawn(run)?;
        Ok((Self { queue, shared }, thread))
    }

    /// Waits until the writer has come to what was queued before.
    pub async fn ping(&self) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Other(Between::Ping(reply))).await.map_err(|_| CommitError::Failed)?;
        answer.await.map_err(|_| CommitError::Failed)
    }

    /// Does an act: `Ok` when it is durable and visible.
    pub async fn commit<A: Act>(&self, actor: Actor, act: A) -> Result<A::Done, CommitError> {
        self.submit(actor, act).await?.done().await
    }

    /// Puts an act into the queue. Acts are done in the order in which this returns.
    pub async fn submit<A: Act>(&self, actor: Actor, act: A) -> Result<Pending<A::Done>, CommitError> {
        match self.shared.standing.elsewhere() {
            Some(elsewhere) => Err(elsewhere.into()),
            None => self.enqueue(actor, act).await,
        }
    }

    /// The act by which a standby becomes the primary: the one that it takes.
    pub async fn promote(&self, actor: Actor, act: Promote) -> Result<Arc<Primary>, CommitError> {
        self.enqueue(actor, act).await?.done().await
    }

    async fn enqueue<A: Act>(&self, actor: Actor, act: A) -> Result<Pending<A::Done>, CommitError> {
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Mutex::new(Some(reply)));
        let failed = Arc::clone(&reply);
        let send = |slot: &Mutex<Option<oneshot::Sender<_>>>, result| {
            if let Some(reply) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // The one who asked may have gone; the act happened all the same.
                let _ = reply.send(result);
            }
        };
        let job: Job = Box::new(move |transaction| {
            let done = transaction.run(&actor, act);
            Box::new(move |durable| {
                let result = match (done, durable) {
                    (Err(refusal), _) => Err(CommitError::Refused(refusal)),
                    (Ok(_), Err(failure)) => Err(failure.into()),
                    (Ok(done), Ok(())) => Ok(done),
                };
                send(&reply, result);
            })
        });
        let fail = Box::new(move |failure: Failure| send(&failed, Err(failure.into())));
        self.queue.send(Message::Act(job, fail)).await.map_err(|_| CommitError::Failed)?;
        Ok(Pending(answer))
    }

    /// Takes other settings for the zones.
    pub async fn configure(&self, settings: Settings) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let failed = || CommitError::Failed.to_string();
        self.queue.send(Message::Other(Between::Configure(Box::new(settings), reply))).await.map_err(|_| failed())?;
        answer.await.map_err(|_| failed())?
    }
}

impl Committer {
    /// Writes a backup of the store and of these files into `file`, of one state, and gives it back.
    pub async fn dump(
        &self,
        file: File,
        files: Vec<(String, Vec<u8>)>,
    ) -> Result<Result<Dumped, BackupError>, CommitError> {
        let (reply, answer) = oneshot::channel();
        let dump = Box::new(Dump { file, files, reply });
        self.queue.send(Message::Other(Between::Dump(dump))).await.map_err(|_| CommitError::Failed)?;
        answer.await.map_err(|_| CommitError::Failed)
    }

    /// Takes what the primary has committed; gives the audit rows in it.
    pub async fn replay(&self, shipment: Shipment) -> Result<Result<Vec<Row>, ReplayError>, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Other(Between::Replay(shipment, reply))).await.map_err(|_| CommitError::Failed)?;
        answer.await.map_err(|_| CommitError::Failed)
    }

    /// Goes on with another store: a copy of the primary's.
    pub async fn adopt(&self, store: Store) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Message::Other(Between::Adopt(Box::new(store), reply)))
            .await
            .map_err(|_| CommitError::Failed)?;
        answer.await.map_err(|_| CommitError::Failed)
    }
}

/// An act that waits for its commit.
pub struct Pending<T>(oneshot::Receiver<Result<T, CommitError>>);

impl<T> Pending<T> {
    /// What became of it: `Ok` when it is durable and visible.
    pub async fn done(self) -> Result<T, CommitError> {
        self.0.await.map_err(|_| CommitError::Failed)?
    }
}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        Self::Store { reason: failure.reason, full: failure.full }
    }
}

struct Writer {
    store: Store,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let (mut last, mut held) = (0, None);
        loop {
            // What came during the last commit, and from whom that one has answered: they are about to ask again, and a
            // sync that all share beats two in turn.
            let expected = (messages.len() + last).min(GROUP);
            match held.take().or_else(|| messages.blocking_recv()) {
                Some(Message::Act(job, fail)) => (last, held) = self.group((job, fail), expected, &mut messages),
                Some(Message::Other(other)) => self.between(other),
                None => break,
            }
        }
        if let Err(error) = self.store.checkpoint(now()) {
            tracing::error!(error = chain(&error), "the last checkpoint failed; the next start replays the journal");
        }
    }

    /// One group commit. Acts run as they come, while those behind them are still being read and verified elsewhere. Gives
    /// how many there were, and what came that is no act and so ended the group.
    fn group(
        &mut self,
        (first, fail): (Job, Fail),
        expected: usize,
        messages: &mut mpsc::Receiver<Message>,
    ) -> (usize, Option<Message>) {
        let started = Instant::now();
        let standbys = self.store.view().replicas.values().any(|replica| replica.standby.is_some());
        self.store.ship(standbys);
        let mut transaction = match self.store.begin(now()) {
            Ok(transaction) => transaction,
            Err(error) => {
                let reason = chain(&error);
                let full = matches!(&error, dnsbroker_store::OpenError::Engine(error) if error.is_full());
                self.shared.store_failed(&reason);
                fail(Failure { reason, full });
                return (0, None);
            }
        };
        let mut acknowledge = vec![first(&mut transaction)];
        let mut held = None;
        while acknowledge.len() < GROUP {
            match messages.try_recv() {
                Ok(Message::Act(job, _)) => acknowledge.push(job(&mut transaction)),
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) if acknowledge.len() < expected && started.elapsed() < GATHER => std::thread::yield_now(),
                Err(_) => break,
            }
        }
        let mut finished = transaction.finish();
        let rows = finished.take_rows();
        let acts = acknowledge.len();
        let result = match self.store.commit(finished) {
            Ok(view) => {
                self.shared.outbox.committed(self.store.take_shipment(), &view.audit);
                let serial = view.zones.serial();
                self.shared.publish(view);
                self.shared.events.acts(rows, serial);
                self.shared.store_committed(acts, started.elapsed());
                Ok(())
            }
            Err(error) => {
                let (full, reason) = (error.is_full(), chain(&error));
                self.shared.store_failed(&reason);
                Err(Failure { reason, full })
            }
        };
        acknowledge.into_iter().for_each(|acknowledge| acknowledge(result.clone()));
        (acts, held)
    }

    /// What happens between two commits.
    fn between(&mut self, message: Between) {
        match message {
            Between::Configure(settings, reply) => drop(reply.send(self.configure(*settings))),
            // Who asks may have gone.
            Between::Ping(reply) => drop(reply.send(())),
            Between::Dump(dump) => {
                let Dump { file, files, reply } = *dump;
                let mut out = BufWriter::new(file);
                let written = backup::write(&*self.store.engine(), &files, &mut out);
                let file = written.and_then(|()| Ok(out.into_inner().map_err(std::io::IntoInnerError::into_error)?));
                // What comes next is what is not in it.
                let (place, act) = (self.shared.outbox.end(), self.store.view().audit.number);
                let _ = reply.send(file.map(|file| Dumped { file, place, act }));
            }
            Between::Replay(shipment, reply) => drop(reply.send(self.replay(&shipment))),
            Between::Adopt(store, reply) => {
                let last = self.store.view();
                self.store = *store;
                self.store.succeed(&last);
                let view = self.store.view();
                self.shared.events.jump(view.audit.number, view.zones.serial());
                self.shared.publish(view);
                let _ = reply.send(());
            }
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.store.configure(settings).map_err(|error| chain(&error))?;
        self.shared.publish(self.store.view());
        Ok(())
    }

    fn replay(&mut self, shipment: &Shipment) -> Result<Vec<Row>, ReplayError> {
        let started = Instant::now();
        match self.store.replay(shipment) {
            Ok((view, rows)) => {
                let serial = view.zones.serial();
                self.shared.publish(view);
                self.shared.events.acts(rows.clone(), serial);
                self.shared.store_committed(rows.len(), started.elapsed());
                Ok(rows)
            }
            Err(error) => {
                if let ReplayError::Engine(_) | ReplayError::Open(_) = &error {
                    self.shared.store_failed(&chain(&error));
                }
                Err(error)
            }
        }
    }
}

/// Seconds since 1970-01-01 UTC.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dnsbroker_federation::ZoneLabels;
    use dnsbroker_store::Identity;
    use dnsbroker_store::Note;
    use dnsbroker_store::act::Witness;
    use dnsbroker_store::engine::EngineKind;
    use dnsbroker_zone::zones::{PublicZone, Timing};

    use super::*;
    use crate::ops::{health_of, readiness};

    struct Fault;

    impl Act for Fault {
        type Done = ();

        fn apply(self, _: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
            panic!("a fault that nobody foresaw")
        }
    }

    fn witness() -> Witness {
        Witness { act: "test", object: "nothing".to_owned(), detail: serde_json::Value::Null }
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_told_by_health_and_readiness_and_every_change_fails_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = EngineKind::Redb.open(dir.path()).expect("an engine");
        let name = |text: &str| text.parse().expect("a name");
        let identity = Identity { federation: name("fed.example"), labels: ZoneLabels::default() };
        let settings =
            Settings { broker: name("broker.fed.example"), timing: Timing::default(), public: PublicZone::default() };
        let store = Store::create(engine, identity, settings).expect("a store");
        let shared = Shared::new(store.view(), crate::standby::Role::Primary);
        let (committer, thread) = Committer::start(store, Arc::clone(&shared)).expect("a writer");
        committer.commit(Actor::Broker, witness()).await.expect("taken");
        assert!(readiness(&shared).0.is_success() && health_of(&shared).0.is_success());
        let soon = Duration::from_secs(10);
        let fault = tokio::time::timeout(soon, committer.commit(Actor::Broker, Fault)).await.expect("at once");
        assert!(matches!(fault, Err(CommitError::Failed)));
        for _ in 0..2 * QUEUE {
            let later = tokio::time::timeout(soon, committer.commit(Actor::Broker, witness())).await.expect("at once");
            assert!(matches!(later, Err(CommitError::Failed)));
        }
        assert!(committer.ping().await.is_err(), "the watchdog is told no more");
        thread.join().expect("the thread itself ends in good order");
        for (status, words) in [readiness(&shared), health_of(&shared)] {
            assert!(status.is_server_error() && words.contains(WRITER_FAILED), "{status} {words}");
        }
    }
}
