//! What an administrator sees and orders: lists a page at a time, sessions thrown out, reload, drain.
//!
//! Who may is decided before. Lists and ends are the engine's, reload and drain those of the server's main task.

use super::ControlPort;
use super::answers::{Ending, ok};
use crate::directory::AskedAgain;
use crate::engine::{ConnView, Effect, Engine, Now, PendingView, SessionView};
use crate::hub::Event;
use crate::observe::Reloads;
use crate::tickets::Tickets;
use arc_swap::ArcSwap;
use nufw_common::control::Reply;
use nufw_common::control::admin::{
    ADDRESSES, ConnectionInfo, Disconnected, GatewayInfo, PAGE, Page, PendingInfo, PolicyInfo, Said,
    SessionInfo, Target, Wanted,
};
use nufw_common::{clock, logging};
use nufw_proto::{Addr, Timestamp, Tuple};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The longest time that a drain may take.
const MAX_DRAIN: Duration = Duration::from_hours(24);

/// Sessions that are named in one answer.
const MAX_TOLD: usize = 2000;

/// What only the server's main task can do.
pub(crate) enum Order {
    /// Read the files again; what was wrong comes back.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Forget what back-ends said of users, and ask them about everybody who has logged in.
    RefreshCache(oneshot::Sender<Refreshed>),
    /// End when nothing waits, at the latest after this time.
    Drain(Duration),
}

/// What came of asking again, in numbers of users.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refreshed {
    /// Something was remembered of them for logins.
    pub(crate) forgotten: usize,
    pub(crate) again: AskedAgain,
}

/// The lists in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct PolicyInForce {
    pub(crate) file: String,
    pub(crate) version: String,
    pub(crate) read: i64,
}

/// What orders are carried out by.
pub(crate) struct Administration {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) tickets: Option<Arc<Tickets>>,
    pub(crate) policy: ArcSwap<PolicyInForce>,
    pub(crate) reloads: Arc<Reloads>,
    /// Whether there are users whom the users file does not name.
    pub(crate) asks_directories: bool,
    /// Gateways that may connect.
    pub(crate) gateways: ArcSwap<Vec<Arc<str>>>,
}

fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map_or_else(|_| String::new(), |at| at.to_string())
}

fn protocol(tuple: &Tuple) -> String {
    match tuple.protocol() {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// Source and destination, with ports where there are any.
fn ends(tuple: &Tuple) -> [String; 2] {
    match tuple.transport().ports() {
        Some(ports) => [(tuple.src(), ports.src), (tuple.dst(), ports.dst)]
            .map(|(address, port)| SocketAddr::new(address.ip(), port).to_string()),
        None => [tuple.src(), tuple.dst()].map(|address| address.to_string()),
    }
}

fn session(view: SessionView) -> SessionInfo {
    SessionInfo {
        session: view.id.0.to_string(),
        username: view.user.name.to_string(),
        user_id: view.user.id.to_string(),
        quality: view.quality.word().to_owned(),
        addresses: view.addresses.into_iter().take(ADDRESSES).map(Addr::ip).collect(),
        since: time(view.since),
        idle: view.idle.as_secs(),
        os: view.os.to_string(),
    }
}

fn pending(view: &PendingView) -> PendingInfo {
    let [source, destination] = ends(&view.tuple);
    PendingInfo {
        question: view.id.0.to_string(),
        gateway: view.gateway.to_string(),
        protocol: protocol(&view.tuple),
        source,
        destination,
        packets: u64::try_from(view.packets).unwrap_or(u64::MAX),
        unanswered: u64::try_from(view.unanswered).unwrap_or(u64::MAX),
        state: if view.writing { "writing" } else { "asking" }.to_owned(),
        left_ms: u64::try_from(view.left.as_millis()).unwrap_or(u64::MAX),
    }
}

fn connection(view: ConnView) -> ConnectionInfo {
    let [source, destination] = ends(&view.original);
    ConnectionInfo {
        id: view.id.get().to_string(),
        gateway: view.gateway.to_string(),
        user_id: view.user.map(|user| user.to_string()),
        username: view.username.map(|name| name.to_string()),
        protocol: protocol(&view.original),
        source,
        destination,
        state: if view.established { "established" } else { "open" }.to_owned(),
        since: time(view.received),
        program: view.program.map(|program| program.to_string()),
    }
}

fn is_wanted(wanted: &Wanted, view: &ConnView) -> bool {
    let tuple = &view.original;
    let address = wanted.address.map(|address| address.to_canonical());
    let at = |address: IpAddr| tuple.src().ip() == address || tuple.dst().ip() == address;
    let ports = tuple.transport().ports();
    wanted
        .user
        .as_ref()
        .is_none_or(|user| view.username.as_deref() == Some(user))
        && address.is_none_or(at)
        && wanted
            .port
            .is_none_or(|port| ports.is_some_and(|ports| ports.src == port || ports.dst == port))
}

/// A full page has a next one, after its last item.
fn page<T>(items: Vec<T>, last: Option<u64>) -> Page<T> {
    let next = last.filter(|_| items.len() == PAGE);
    Page { items, next }
}

impl ControlPort {
    async fn engine<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Engine, Now, &mut Vec<Effect>) -> T + Send + 'static,
    ) -> Result<T, Ending> {
        self.ask(|answer| {
            Event::Ask(Box::new(
                move |engine: &mut Engine, now: Now, out: &mut Vec<Effect>| {
                    // Whoever asked may have gone.
                    let _ = answer.send(look(engine, now, out));
                },
            ))
        })
        .await
    }

    pub(super) async fn sessions(&self, after: u64) -> Result<Reply, Ending> {
        let views = self
            .engine(move |engine, now, _| engine.sessions_after(after, PAGE, now))
            .await?;
        let last = views.last().map(|view| view.id.0);
        Ok(ok(page(views.into_iter().map(session).collect(), last)))
    }

    pub(super) async fn pending(&self, after: u64) -> Result<Reply, Ending> {
        let views = self
            .engine(move |engine, now, _| engine.pending_after(after, PAGE, now))
            .await?;
        let last = views.last().map(|view| view.id.0);
        Ok(ok(page(views.iter().map(pending).collect(), last)))
    }

    pub(super) async fn connections(&self, wanted: Wanted, from: u64) -> Result<Reply, Ending> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let (views, next) = self
            .engine(move |engine, _, _| engine.connections_from(from, PAGE, |view| is_wanted(&wanted, view)))
            .await?;
        Ok(ok(Page {
            items: views.into_iter().map(connection).collect(),
            next: next.and_then(|next| u64::try_from(next).ok()),
        }))
    }

    pub(super) async fn gateways(&self) -> Result<Reply, Ending> {
        let linked = self.ask(|answer| Event::Moment { answer }).await?.gateways;
        let configured = self.administration.gateways.load();
        let mut names: Vec<&Arc<str>> = configured
            .iter()
            .chain(linked.iter().map(|(name, _)| name))
            .collect();
        names.sort();
        names.dedup();
        let infos: Vec<GatewayInfo> = names
            .into_iter()
            .map(|name| {
                let link = linked.iter().find(|(other, _)| other == name);
                GatewayInfo {
                    gateway: name.to_string(),
                    connected: link.is_some(),
                    relays_events: link.is_some_and(|(_, relays)| *relays),
                }
            })
            .collect();
        Ok(ok(infos))
    }

    /// Throws sessions out, and where a user is meant also takes away what the user could come back with.
    pub(super) async fn disconnect(&self, target: Target, reason: String) -> Result<Reply, Ending> {
        if reason.len() > 255 || reason.chars().any(char::is_control) {
            return Ok(Reply::Error(
                "a reason has at most 255 bytes and no control character".to_owned(),
            ));
        }
        if let (Target::User(name), Some(tickets)) = (&target, &self.administration.tickets) {
            match self.names.id(name) {
                Some(id) => tickets.revoke_user(id, clock::wall()),
                None if self.administration.asks_directories => tickets.revoke_name(name, clock::wall()),
                None => {}
            }
        }
        let sessions = self
            .engine(move |engine, now, out| {
                engine.disconnect(
                    |session, identity, addresses| {
                        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.ip()).collect();
                        target.means(session.0, &identity.user.name, &addresses)
                    },
                    &reason,
                    now,
                    out,
                )
            })
            .await?;
        tracing::info!(sessions = sessions.len(), "disconnected by order");
        Ok(ok(Disconnected {
            count: sessions.len(),
            sessions: sessions
                .into_iter()
                .take(MAX_TOLD)
                .map(|session| session.0.to_string())
                .collect(),
        }))
    }

    pub(super) fn revoke_tickets(&self, user: Option<&str>) -> Reply {
        let Some(tickets) = &self.administration.tickets else {
            return Reply::Error("there are no tickets: sessions.ticket-lifetime is \"0s\"".to_owned());
        };
        match user {
            None => {
                tickets.revoke_all(clock::wall());
                said("no ticket counts any more")
            }
            Some(name) => match self.names.id(name) {
                Some(id) => {
                    tickets.revoke_user(id, clock::wall());
                    said("no ticket of this user counts any more")
                }
                // Somebody of a directory who has not been here since the start.
                None if self.administration.asks_directories => {
                    tickets.revoke_name(name, clock::wall());
                    said(format!(
                        "nobody has logged in as \"{name}\" since the start; no ticket of such a user counts any more"
                    ))
                }
                None => Reply::Error(format!("there is no user \"{name}\"")),
            },
        }
    }

    pub(super) async fn reload(&self) -> Result<Reply, Ending> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Reload(answer);
        self.administration.orders.send(order).await.map_err(|_| Ending)?;
        Ok(match answered.await.map_err(|_| Ending)? {
            Ok(()) => said("reloaded"),
            Err(why) => Reply::Error(format!("not reloaded, everything stays as it was: {why}")),
        })
    }

    pub(super) async fn refresh_cache(&self) -> Result<Reply, Ending> {
        let (answer, answered) = oneshot::channel();
        let order = Order::RefreshCache(answer);
        self.administration.orders.send(order).await.map_err(|_| Ending)?;
        let Refreshed { forgotten, again } = answered.await.map_err(|_| Ending)?;
        let AskedAgain { asked, gone, unsaid } = again;
        Ok(said(format!(
            "what was remembered of {forgotten} users for logins is forgotten; of {asked} users who have logged in back-ends \
             were asked again: {gone} are gone, of {unsaid} they cannot say and nothing changes"
        )))
    }

    pub(super) fn policy(&self) -> Reply {
        let policy = self.administration.policy.load();
        let reloads = self.administration.reloads.state();
        ok(PolicyInfo {
            file: policy.file.clone(),
            version: policy.version.clone(),
            read: time(Timestamp::from_micros(policy.read)),
            reloads: reloads.good,
            last_failed: reloads.last_failed,
        })
    }

    pub(super) fn log_level(filter: Option<&str>) -> Reply {
        if let Some(filter) = filter
            && let Err(why) = logging::set_filter(filter)
        {
            return Reply::Error(why);
        }
        said(logging::filter().unwrap_or_default())
    }

    pub(super) async fn drain(&self, within: u64) -> Result<Reply, Ending> {
        let within = Duration::from_secs(within);
        if within > MAX_DRAIN {
            return Ok(Reply::Error("a drain takes a day at most".to_owned()));
        }
        let order = Order::Drain(within);
        self.administration.orders.send(order).await.map_err(|_| Ending)?;
        Ok(said(format!(
            "no logins and no packets are taken any more; the server ends when nothing waits, in {} s at the latest",
            within.as_secs()
        )))
    }
}

pub(super) fn said(text: impl Into<String>) -> Reply {
    ok(Said { text: text.into() })
}
