//! What the server answers, request by request.
//!
//! Every answer is a question to the hub or the journal; nothing is kept here but locks.

use super::socket::Level;
use super::{ControlPort, MAX_LOCKS};
use crate::engine::{LiveConn, Stats};
use crate::hub::Event;
use crate::journal::SpooledRow;
use nufw_common::control::{Done, Endpoints, Found, Reply, Request, Side, Status, Verified};
use nufw_proto::{Addr, Ports, Transport, Tuple};
use nulog::Upkeep;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the hub tells of the moment.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) stats: Stats,
    /// Gateways that are connected, and whether they relay events.
    pub(crate) gateways: Vec<(Arc<str>, bool)>,
}

/// The server is on its way out.
pub(super) struct Ending;

impl ControlPort {
    pub(super) async fn answer(&self, request: Request, connection: u64, level: Level) -> Reply {
        let needed = needed(&request);
        if level < needed {
            return Reply::Denied(format!(
                "this needs {}, and the asker {}",
                needed.name(),
                level.shown()
            ));
        }
        let answered = match request {
            Request::Status => self.status().await.map(ok),
            Request::Lock { name } => Ok(self.lock(name, connection)),
            Request::Maintain { step } => Ok(self.maintain(step).await),
            Request::Verify { gateways } => self.verify(gateways).await.map(ok),
            Request::Lookup(ends) => self.lookup(ends).await,
            Request::Sessions { after } => self.sessions(after).await,
            Request::Gateways => self.gateways().await,
            Request::Pending { after } => self.pending(after).await,
            Request::Connections { wanted, from } => self.connections(wanted, from).await,
            Request::Disconnect { target, reason } => self.disconnect(target, reason).await,
            Request::RevokeTickets { user } => Ok(self.revoke_tickets(user.as_deref())),
            Request::Reload => self.reload().await,
            Request::Policy => Ok(self.policy()),
            Request::RefreshCache => self.refresh_cache().await,
            Request::LogLevel { filter } => Ok(Self::log_level(filter.as_deref())),
            Request::Drain { within } => self.drain(within).await,
        };
        answered.unwrap_or_else(|Ending| Reply::Error("the server is being stopped".to_owned()))
    }

    pub(super) async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, Ending> {
        let (answer, answered) = oneshot::channel();
        self.hub.send(event(answer)).await.map_err(|_| Ending)?;
        answered.await.map_err(|_| Ending)
    }

    async fn status(&self) -> Result<Status, Ending> {
        let Moment { stats, gateways } = self.ask(|answer| Event::Moment { answer }).await?;
        let mut journal = serde_json::to_value(self.journal.stats()).unwrap_or_default();
        let spool = self.journal.spool_status();
        journal["spool"] = serde_json::json!({
            "active": spool.active,
            "rows": spool.rows,
            "bytes": spool.bytes,
        });
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server_number: self.server_number,
            uptime: self.uptime(),
            database: self.database.clone(),
            gateways: gateways.iter().map(|(name, _)| name.to_string()).collect(),
            sessions: stats.sessions,
            live_connections: stats.live_connections,
            pending_asks: stats.pending_asks,
            journal,
            counters: counters(&stats),
        })
    }

    fn lock(&self, name: String, connection: u64) -> Reply {
        let mut locks = self.locks();
        match locks.get(&name) {
            Some(holder) if *holder != connection => {
                Reply::Busy(format!("another program holds the lock {name:?} of the server"))
            }
            None if locks.len() >= MAX_LOCKS => {
                Reply::Error(format!("{MAX_LOCKS} locks are held, which is the most"))
            }
            _ => {
                locks.insert(name, connection);
                ok(Done {})
            }
        }
    }

    async fn maintain(&self, step: serde_json::Value) -> Reply {
        let step: Upkeep = match serde_json::from_value(step) {
            Ok(step) => step,
            Err(error) => return Reply::Error(format!("this is no step of upkeep: {error}")),
        };
        match self.journal.upkeep(step).await {
            Ok(done) => ok(done),
            Err(error) => Reply::Error(error.to_string()),
        }
    }

    async fn verify(&self, gateways: Vec<String>) -> Result<Verified, Ending> {
        let doubted = gateways.clone();
        let moment = self
            .ask(|answer| Event::Verify {
                gateways: doubted,
                answer,
            })
            .await?;
        let mut verified = Verified::default();
        for name in gateways {
            let link = moment.gateways.iter().find(|(linked, _)| **linked == *name);
            match link {
                Some((_, true)) => verified.asked.push(name),
                Some((_, false)) => verified.mute.push(name),
                None => verified.absent.push(name),
            }
        }
        Ok(verified)
    }

    async fn lookup(&self, ends: Endpoints) -> Result<Reply, Ending> {
        let Some(tuple) = tuple(ends) else {
            return Ok(Reply::Error(
                "only a protocol with ports between two addresses of one family can be looked up".to_owned(),
            ));
        };
        let found = self.ask(|answer| Event::Find { ends: tuple, answer }).await?;
        // Rows of the run before are the engine's only when they are in the database.
        let spooled = || self.journal.spooled_row(&tuple).map(tell_spooled);
        Ok(ok(found.map(|conn| self.tell(conn)).or_else(spooled)))
    }

    fn tell(&self, conn: LiveConn) -> Found {
        let LiveConn {
            id,
            user,
            gateway,
            original,
        } = conn;
        Found {
            id: id.get().to_string(),
            user_id: user.map(|user| user.to_string()),
            username: user
                .and_then(|user| self.names.get(user))
                .map(|name| name.to_string()),
            gateway: gateway.to_string(),
            side: if original { Side::Original } else { Side::Reply },
        }
    }
}

fn tell_spooled(row: SpooledRow) -> Found {
    let (user_id, username) = row.user.map_or((None, None), |user| {
        (Some(user.id.to_string()), Some(user.name.to_string()))
    });
    Found {
        id: row.id.get().to_string(),
        user_id,
        username,
        gateway: row.gateway.to_string(),
        side: if row.original { Side::Original } else { Side::Reply },
    }
}

/// Who may ask this.
fn needed(request: &Request) -> Level {
    match request {
        Request::Status
        | Request::Lookup(_)
        | Request::Sessions { .. }
        | Request::Gateways
        | Request::Pending { .. }
        | Request::Connections { .. }
        | Request::Policy
        | Request::LogLevel { filter: None } => Level::Reader,
        Request::Lock { .. } | Request::Maintain { .. } | Request::Verify { .. } => Level::Upkeep,
        Request::Disconnect { .. }
        | Request::RevokeTickets { .. }
        | Request::Reload
        | Request::RefreshCache
        | Request::LogLevel { filter: Some(_) }
        | Request::Drain { .. } => Level::Admin,
    }
}

pub(super) fn ok(value: impl Serialize) -> Reply {
    match serde_json::to_value(value) {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(format!("the answer cannot be told: {error}")),
    }
}

/// The tuple with these ends; none for a protocol without ports.
fn tuple(ends: Endpoints) -> Option<Tuple> {
    let ports = Ports {
        src: ends.sport,
        dst: ends.dport,
    };
    let transport = Transport::from_parts(ends.protocol, Some(ports), None)?;
    transport.ports()?;
    Tuple::new(Addr::from(ends.src), Addr::from(ends.dst), transport).ok()
}

fn counters(stats: &Stats) -> BTreeMap<String, u64> {
    let counted = [
        ("asks", stats.asks),
        ("repeated", stats.repeated),
        ("granted", stats.granted),
        ("granted_unlogged", stats.granted_unlogged),
        ("refused_by_rule", stats.refused_by_rule),
        ("refused_nobody", stats.refused_nobody),
        ("refused_disclaimed", stats.refused_disclaimed),
        ("refused_timeout", stats.refused_timeout),
        ("refused_unlogged", stats.refused_unlogged),
        ("late_commits", stats.late_commits),
        ("drops_unlogged", stats.drops_unlogged),
        ("drops_aggregated", stats.drops_aggregated),
        ("refused_full", stats.refused_full),
        ("foreign_claims", stats.foreign_claims),
        ("double_claims", stats.double_claims),
        ("kills_ordered", stats.kills_ordered),
        ("kills_failed", stats.kills_failed),
        ("foreign_kills", stats.foreign_kills),
        ("waiting_kills", stats.waiting_kills),
        ("late_claims", stats.late_claims),
        ("unrelated_events", stats.unrelated_events),
        ("repeated_events", stats.repeated_events),
        ("stale_messages", stats.stale_messages),
        ("unused_verdicts", stats.unused_verdicts),
        ("waiting_commits", stats.waiting_commits),
        ("waiting_async", stats.waiting_async),
        ("ids_left", stats.ids_left),
        ("logins", stats.logins),
        ("logins_full", stats.logins_full),
        ("logins_address_full", stats.logins_address_full),
        ("logins_user_full", stats.logins_user_full),
        ("logins_hours", stats.logins_hours),
        ("logins_other", stats.logins_other),
        ("renewals", stats.renewals),
        ("ended_ordered", stats.ended_ordered),
        ("ended_removed", stats.ended_removed),
        ("ended_replaced", stats.ended_replaced),
        ("ended_idle", stats.ended_idle),
        ("ended_expired", stats.ended_expired),
        ("ended_hours", stats.ended_hours),
        ("ended_misbehaved", stats.ended_misbehaved),
        ("unknown_identities", stats.unknown_identities),
    ];
    counted
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
