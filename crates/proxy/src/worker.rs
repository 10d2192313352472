//! A worker: one thread, one current-thread runtime, everything in it its own but the snapshot and the figures.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use lateen_route::Entropy;
use lateen_route::FastMap;
use lateen_route::cluster::Policy;
use lateen_runtime::DrainGuard;
use lateen_telemetry::log_file::{Batch, FLUSH_INTERVAL, LogFile};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::listener::Bound;
use crate::log::DateCache;
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::upstream::cluster::Cluster;
use crate::upstream::pool::Pool;
use crate::upstream::pools::{PoolKey, Pools};

/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Counters.
    pub stats: Stats,
    /// The cluster that the node says it is of.
    pub node_cluster: Arc<str>,
    /// Told when a cluster that warms has found its endpoints.
    pub found: Arc<tokio::sync::Notify>,
    /// Clusters that requests ask for.
    pub on_demand: crate::on_demand::Asked,
    /// Asked to finish: the process drains.
    pub draining: CancellationToken,
    /// How long a connection without requests stays after its drain began.
    pub drain_grace: Duration,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept on this socket.
    Listen(Arc<Bound>, std::net::TcpListener),
    /// Close the connections of pools that are of no use any more.
    Prune(Keep),
    /// Answer, which proves the worker alive.
    Ping(tokio::sync::oneshot::Sender<()>),
}

/// Says which pools stay.
#[derive(Clone)]
pub(crate) struct Keep(pub Arc<dyn Fn(&PoolKey) -> bool + Send + Sync>);

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keep")
    }
}

/// The control thread's end of a worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl WorkerHandle {
    /// Starts a worker's thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(index: usize, shared: Arc<Shared>, guard: DrainGuard) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        thread::Builder::new().name(format!("wrk:{index}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .event_interval(31)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(Worker::new(index, shared).run(inbox, guard)),
                Err(error) => tracing::error!(%error, "worker {index} has no runtime"),
            }
        })?;
        Ok(Self { commands })
    }

    /// Tells the worker something; a worker that has ended does not hear it.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// One worker's own state.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its number.
    pub index: usize,
    /// What all share.
    pub shared: Arc<Shared>,
    /// Connections to upstream hosts.
    pub pools: Pools,
    /// Connections of clients that are open, for a drain to wait for.
    pub open: Cell<usize>,
    logs: RefCell<FastMap<usize, Batch>>,
    turns: RefCell<FastMap<usize, u64>>,
    flush_armed: Cell<bool>,
    random: Cell<u64>,
    dates: RefCell<DateCache>,
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            index,
            shared,
            pools: Pools::default(),
            open: Cell::new(0),
            logs: RefCell::default(),
            turns: RefCell::default(),
            flush_armed: Cell::new(false),
            random: Cell::new(rand::random()),
            dates: RefCell::default(),
        })
    }

    async fn run(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<Command>, guard: DrainGuard) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                _ = sweep.tick() => self.pools.sweep(),
                () = guard.started() => break,
            }
        }
        // Draining: accept loops stop by themselves; connections finish what they do.
        while self.open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.flush_logs();
        drop(guard);
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Listen(bound, socket) => {
                tokio::task::spawn_local(accept::run(self.clone(), bound, socket));
            }
            Command::Prune(keep) => self.pools.prune(&*keep.0),
            // Whoever asked may have gone.
            Command::Ping(answer) => drop(answer.send(())),
        }
    }

    /// The next random number (xorshift64*; nothing secret hangs on it).
    #[inline]
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get() | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Entropy for one request or connection.
    pub(crate) fn entropy(&self) -> Entropy {
        Entropy(self.random())
    }

    /// This worker's next turn among a cluster's hosts; only round robin looks at it.
    pub(crate) fn turn(&self, cluster: &Arc<Cluster>) -> u64 {
        if cluster.compiled.balancing.policy != Policy::RoundRobin {
            return 0;
        }
        let mut turns = self.turns.borrow_mut();
        let start = self.index as u64;
        let turn = turns.entry(Arc::as_ptr(cluster) as usize).or_insert(start);
        *turn = turn.wrapping_add(1);
        *turn
    }

    /// Appends to a log; the batch is handed over when full, or soon.
    pub(crate) fn log(self: &Rc<Self>, file: &LogFile, write: impl FnOnce(&mut Vec<u8>)) {
        self.logs.borrow_mut().entry(file.id()).or_insert_with(|| file.batch()).append(write);
        if !self.flush_armed.replace(true) {
            let worker = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(FLUSH_INTERVAL).await;
                worker.flush_armed.set(false);
                worker.flush_logs();
            });
        }
    }

    fn flush_logs(&self) {
        self.logs.borrow_mut().values_mut().for_each(Batch::flush);
    }

    /// Writes a time as `2026-11-21T13:30:00.123Z`.
    pub(crate) fn write_date(&self, at: SystemTime, out: &mut Vec<u8>) {
        self.dates.borrow_mut().write_iso(at, out);
    }

    /// The `date` header for now.
    pub(crate) fn http_date(&self) -> http::HeaderValue {
        self.dates.borrow_mut().http()
    }

    /// The pool for a key.
    pub(crate) fn pool(&self, key: PoolKey, make: impl FnOnce() -> Rc<Pool>) -> Rc<Pool> {
        self.pools.of(key, make)
    }
}

/// The time that token buckets go by.
pub(crate) fn uptime() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// Milliseconds since `start`.
pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
