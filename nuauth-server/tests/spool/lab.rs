//! A journal with a spool, on a database of its own.

use crate::support::{Durability, Kind, Server, skip};
use nuauth_server::journal::{Entry, Journal, Known, Limits, Opened, Report, SpoolSettings, SpoolStatus};
use nufw_proto::{Addr, BootId, ConnId, EventSeq, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{
    Binding, Change, Close, CloseReason, Established, IdBlock, Location, OpenRow, Reader, RowFilter,
    StoreError, User,
};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
pub(crate) const STALL: Duration = Duration::from_millis(300);

/// A database, and a directory for the spool.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) server: Option<Server>,
    directory: TempDir,
    pub(crate) limit: u64,
}

impl Place {
    /// On a server of its own, which only this test kills.
    pub(crate) async fn server(kind: Kind, test: &str) -> Option<Self> {
        let server = match Server::start(kind, Durability::Process) {
            Ok(server) => server,
            Err(reason) => {
                skip(test, kind, &reason);
                return None;
            }
        };
        let place = Self {
            url: server.url(&server.database().await),
            server: Some(server),
            directory: tempfile::tempdir().unwrap(),
            limit: 1 << 30,
        };
        nulog::migrate(&place.location()).await.unwrap();
        Some(place)
    }

    /// In a file.
    pub(crate) fn file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("log")).unwrap();
        Self {
            url: format!("sqlite:{}/log/nulog.db", directory.path().display()),
            server: None,
            directory,
            limit: 1 << 30,
        }
    }

    pub(crate) fn location(&self) -> Location {
        let patience = Duration::from_secs(1);
        Location::parse(&self.url)
            .unwrap()
            .with_timeouts(patience, 2 * patience)
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.directory.path().join("spool.db")
    }

    pub(crate) fn database(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) async fn try_open(&self, limits: Limits) -> Result<Run, StoreError> {
        let settings = SpoolSettings {
            path: self.spool(),
            limit: self.limit,
            stall_after: STALL,
        };
        let (sender, reports) = mpsc::unbounded_channel();
        let Opened { journal, known } =
            Journal::open(&self.location(), 1, Some(&settings), limits, sender).await?;
        let mut run = Run {
            journal,
            known,
            loaded: None,
            reports,
            ids: None,
        };
        match run.reports.try_recv() {
            Ok(Report::Ids(ids)) => run.ids = Some(ids),
            other => panic!("ids come before anything else: {other:?}"),
        }
        Ok(run)
    }

    pub(crate) async fn open(&self) -> Run {
        self.try_open(Limits::default()).await.unwrap()
    }

    /// Every row, live and archived, in the order of the ids.
    pub(crate) async fn rows(&self) -> Vec<Map<String, Value>> {
        let mut reader = Reader::open(&self.location()).await.unwrap();
        let rows = reader.rows_json(&RowFilter::default()).await.unwrap();
        reader.close().await.unwrap();
        rows
    }

    /// Ids with their states.
    pub(crate) async fn states(&self) -> Vec<(ConnId, i64)> {
        let rows = self.rows().await;
        rows.iter()
            .map(|row| (id_of(row), row["state"].as_i64().unwrap()))
            .collect()
    }

    pub(crate) async fn gaps(&self, cause: &str) -> Vec<Map<String, Value>> {
        let mut reader = Reader::open(&self.location()).await.unwrap();
        let mut gaps = reader.gaps_json().await.unwrap();
        gaps.retain(|gap| gap["cause"] == cause);
        gaps
    }
}

pub(crate) fn id_of(row: &Map<String, Value>) -> ConnId {
    let raw: u64 = row["id"].as_str().unwrap().parse().unwrap();
    ConnId::try_from(raw).unwrap()
}

/// A journal at work.
pub(crate) struct Run {
    pub(crate) journal: Journal,
    pub(crate) known: Option<Known>,
    pub(crate) loaded: Option<Known>,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    pub(crate) ids: Option<IdBlock>,
}

impl Run {
    pub(crate) fn id(&mut self) -> ConnId {
        self.ids.as_mut().unwrap().next().unwrap()
    }

    pub(crate) async fn report(&mut self) -> Report {
        tokio::time::timeout(PATIENCE, self.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// The next commit; what else is told is kept.
    pub(crate) async fn committed(&mut self) -> (Vec<ConnId>, Vec<(Arc<str>, BootId, EventSeq)>) {
        loop {
            match self.report().await {
                Report::Committed { opened, acknowledged } => return (opened, acknowledged),
                Report::Loaded { rows, acknowledged } => self.loaded = Some(Known { rows, acknowledged }),
                Report::Ids(ids) => self.ids = Some(ids),
                Report::Recovered => {}
                failed @ Report::Failed { .. } => panic!("{failed:?}"),
            }
        }
    }

    /// What became of rows: they are durable, or failed.
    pub(crate) async fn answer(&mut self) -> Result<Vec<ConnId>, (Vec<ConnId>, String)> {
        loop {
            match self.report().await {
                Report::Committed { opened, .. } if !opened.is_empty() => return Ok(opened),
                Report::Failed { opened, error } => return Err((opened, error)),
                Report::Ids(ids) => self.ids = Some(ids),
                Report::Committed { .. } | Report::Recovered | Report::Loaded { .. } => {}
            }
        }
    }

    /// A new row whose packet waits, and that it does not wait in vain.
    pub(crate) async fn grant(&mut self) -> ConnId {
        let id = self.id();
        self.journal.submit(vec![urgent(id)]);
        assert_eq!(self.committed().await.0, [id]);
        id
    }

    pub(crate) async fn until(&mut self, wanted: impl Fn(SpoolStatus) -> bool) -> SpoolStatus {
        for _ in 0..4000 {
            let status = self.journal.spool_status();
            if wanted(status) {
                return status;
            }
            tokio::time::sleep(PATIENCE / 4000).await;
        }
        panic!("the spool does not come to it: {:?}", self.journal.spool_status());
    }

    /// Waits until rows go to the database again.
    pub(crate) async fn home(&mut self) {
        let status = self.until(|status| !status.active).await;
        assert_eq!((status.rows, status.oldest), (0, None));
    }

    /// Waits for what the log knew at the start.
    pub(crate) async fn loaded(&mut self) -> Known {
        loop {
            if let Some(loaded) = self.loaded.take() {
                return loaded;
            }
            if let Report::Loaded { rows, acknowledged } = self.report().await {
                self.loaded = Some(Known { rows, acknowledged });
            }
        }
    }

    pub(crate) async fn end(self) {
        self.journal.drain(PATIENCE).await.unwrap();
    }
}

pub(crate) fn tuple(id: ConnId) -> Tuple {
    let addr = |text: &str| text.parse::<Addr>().unwrap();
    let src = u16::try_from(u64::from(id) % 60_000).unwrap() + 1000;
    Tuple::new(
        addr("10.0.0.1"),
        addr("10.0.0.2"),
        Transport::Tcp(Ports { src, dst: 80 }),
    )
    .unwrap()
}

pub(crate) fn row(id: ConnId) -> Box<OpenRow> {
    let text = |text: &str| Arc::from(text);
    Box::new(OpenRow {
        id,
        gateway: text("gw1"),
        received: Timestamp::from_micros(1_800_000_000_000_000 + id.get() % 1_000_000),
        prefix: text(""),
        mark: Mark(1),
        in_dev: text("lan"),
        out_dev: text("wan"),
        phys_in: text(""),
        phys_out: text(""),
        zone: 0,
        original: tuple(id),
        shown: tuple(id),
        user: Some(User {
            id: 1001,
            name: text("alice"),
        }),
        client_os: None,
        client_app: None,
        acl: text("test"),
        parent: None,
        policy: Arc::from(""),
        auth: None,
    })
}

pub(crate) fn later(change: Change) -> Entry {
    Entry {
        change,
        urgent: false,
    }
}

pub(crate) fn urgent(id: ConnId) -> Entry {
    Entry {
        change: Change::Open(row(id)),
        urgent: true,
    }
}

pub(crate) fn dropped(id: ConnId) -> Entry {
    later(Change::Drop(row(id)))
}

fn binding(id: ConnId) -> Binding {
    Binding {
        ct_id: 7,
        ct_mark: Mark(1),
        original: tuple(id),
        reply: tuple(id),
    }
}

pub(crate) fn established(id: ConnId) -> Entry {
    later(Change::Established(Box::new(Established {
        id,
        at: Some(Timestamp::from_micros(1_800_000_001_000_000)),
        binding: Some(binding(id)),
    })))
}

pub(crate) fn close(id: ConnId) -> Entry {
    later(Change::Close(Box::new(Close {
        id,
        at: Some(Timestamp::from_micros(1_800_000_002_000_000)),
        reason: CloseReason::Finished,
        counters: None,
        binding: Some(binding(id)),
    })))
}

pub(crate) fn acknowledge(boot: u64, through: u64) -> Entry {
    later(Change::Acknowledge {
        gateway: Arc::from("gw1"),
        boot: BootId(boot),
        through: EventSeq(through),
    })
}
