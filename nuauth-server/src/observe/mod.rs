//! How the server is watched: metrics, life and readiness over HTTP.
//!
//! What is asked here is answered from the counters of hub, journal and ports; an engine that does not answer in time is what
//! is told, and nobody who asks holds it up.

mod reloads;
mod table;
mod view;

pub use reloads::ReloadState;
pub(crate) use reloads::Reloads;
pub use table::TABLE;
pub use view::View;

use crate::clients::ClientPort;
use crate::control::Moment;
use crate::gateways::GatewayPort;
use crate::hooks::HookCounts;
use crate::hub::Event;
use crate::journal::Journal;
use crate::port::Complaints;
use nufw_common::lifecycle::Shutdown;
use nufw_common::listen::{Bound, ListenError, Place};
use nufw_common::observe::{self as common, Observed, Report, SOCKET_MODE, process::Process};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How long the engine may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens the place for askers, if there is to be one.
pub(crate) fn open(place: Option<&Place>) -> Result<Option<Bound>, ListenError> {
    place.map(|place| Bound::open(place, SOCKET_MODE)).transpose()
}

/// What the answers are made of.
pub(crate) struct Watched {
    pub(crate) hub: mpsc::Sender<Event>,
    pub(crate) journal: Journal,
    pub(crate) spool_limit: Option<u64>,
    pub(crate) backpressure: watch::Receiver<bool>,
    pub(crate) gateways: Arc<GatewayPort>,
    pub(crate) clients: Arc<ClientPort>,
    pub(crate) accounting: Arc<Complaints>,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) hooks: HookCounts,
    pub(crate) listening: Vec<SocketAddr>,
    /// When the server began, seconds since 1970.
    pub(crate) started: u64,
}

/// Answers until the shutdown.
pub(crate) fn run(watched: Watched, bound: Bound, shutdown: &Shutdown) {
    tracing::info!(listen = bound.place(), "metrics can be read");
    tokio::spawn(common::serve(bound, Arc::new(watched), shutdown.clone()));
}

impl Watched {
    /// How the engine is, if it says so in time.
    async fn moment(&self) -> Result<Moment, String> {
        let (answer, answered) = oneshot::channel();
        let asked = tokio::time::timeout(PATIENCE, async {
            let event = Event::Moment { answer };
            self.hub.send(event).await.ok()?;
            answered.await.ok()
        });
        match asked.await {
            Ok(Some(moment)) => Ok(moment),
            Ok(None) => Err("the server is being stopped".to_owned()),
            Err(_) => Err(format!("the engine did not answer within {PATIENCE:?}")),
        }
    }

    async fn view(&self) -> Result<View, String> {
        let Moment { stats, gateways } = self.moment().await?;
        Ok(View {
            stats,
            configured: self.gateways.known.load().names.clone(),
            linked: gateways.into_iter().map(|(name, _)| name).collect(),
            log: self.journal.stats(),
            spool: self.journal.spool_status(),
            spool_limit: self.spool_limit,
            backpressure: *self.backpressure.borrow(),
            gateway_port: self.gateways.complaints.state(),
            client_port: self.clients.complaints.state(),
            accounting: self.accounting.state(),
            listening: self.listening.clone(),
            reloads: self.reloads.state(),
            hooks: self.hooks.state(),
            process: Process::look(self.started),
        })
    }
}

impl Observed for Watched {
    async fn metrics(&self) -> Result<String, String> {
        common::render(TABLE, self.view().await?).map_err(|error| error.to_string())
    }

    async fn health(&self) -> Report {
        match self.moment().await {
            Ok(_) => Report::new().with("engine", true, "the engine answers"),
            Err(why) => Report::new().with("engine", false, why),
        }
    }

    async fn ready(&self) -> Report {
        match self.view().await {
            Ok(view) => view.ready(Report::new().with("engine", true, "the engine answers")),
            Err(why) => Report::new().with("engine", false, why),
        }
    }
}
