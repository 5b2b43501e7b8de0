//! Asks the running server for connections whose rows are not in the log: those that wait in its spool.
//!
//! One connection, kept; a question at a time. Whether the server is to be believed is decided by where its socket is.

use crate::finder::Answer;
use nufw_common::control::{Client, ControlError, Endpoints, Found, Side};
use nufw_proto::{ConnId, Tuple};
use nulog::LiveRow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// The server, asked over its socket.
#[derive(Debug)]
pub(crate) struct Server {
    socket: PathBuf,
    client: Mutex<Option<Client>>,
    /// Whether it was said that it does not answer.
    told: AtomicBool,
}

impl Server {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            client: Mutex::new(None),
            told: AtomicBool::new(false),
        }
    }

    /// The user of the live connection with this tuple, as the server knows it; nobody, if it cannot be asked.
    pub(crate) async fn find(&self, tuple: &Tuple) -> Option<Answer> {
        let ports = tuple.transport().ports()?;
        let ends = Endpoints {
            protocol: tuple.protocol(),
            src: tuple.src().ip(),
            sport: ports.src,
            dst: tuple.dst().ip(),
            dport: ports.dst,
        };
        match self.ask(ends).await {
            Ok(found) => {
                if self.told.swap(false, Ordering::Relaxed) {
                    tracing::info!("the server answers again");
                }
                found.and_then(answer)
            }
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the server cannot be asked for connections that are not in the log yet");
                }
                None
            }
        }
    }

    async fn ask(&self, ends: Endpoints) -> Result<Option<Found>, ControlError> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_mut()
            && let Ok(found) = client.lookup(ends).await
        {
            return Ok(found);
        }
        // It was restarted, or there was none yet.
        *kept = None;
        let client = kept.insert(Client::connect(&self.socket).await?);
        client.lookup(ends).await
    }
}

fn answer(found: Found) -> Option<Answer> {
    let user: Arc<str> = Arc::from(found.username.filter(|name| !name.is_empty())?);
    let id = found.id.parse::<u64>().ok()?;
    Some(Answer {
        user: Arc::clone(&user),
        row: LiveRow {
            id: ConnId::try_from(id).ok()?,
            user_id: found.user_id.and_then(|id| id.parse().ok()),
            username: Some(user),
            gateway: Arc::from(found.gateway),
            side: match found.side {
                Side::Original => nulog::Side::Original,
                Side::Reply => nulog::Side::Reply,
            },
        },
    })
}
