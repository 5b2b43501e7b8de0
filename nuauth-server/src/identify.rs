//! Who is where without a client: what a portal's file and RADIUS accounting say becomes words for the engine.
//!
//! Decides nothing: a session with a client goes before all of this, and the access lists see how little it proves.

mod leases;
mod radius;

use crate::config::Identify;
use crate::engine::Input;
use crate::hub::Event;
use crate::port::{Cause, Complaints};
use anyhow::Context as _;
use ipnet::IpNet;
use leases::Leases;
use nufw_common::clock;
use nufw_common::lifecycle::Shutdown;
use nufw_proto::Addr;
use radius::{Accounting, Heard};
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

/// How often the file is looked at, and what has grown old.
const LOOK: Duration = Duration::from_secs(1);
/// Longest accounting message (RFC 2866 §3).
const MAX_MESSAGE: usize = 4096;
/// Messages that may wait between socket and bookkeeping; the kernel keeps further ones, then drops them, and they come again.
const WAITING: usize = 256;

/// What has changed of who is where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    /// Addresses with the user there, or nobody.
    addresses: Vec<(Addr, Option<Arc<str>>)>,
    /// Whether the networks are others.
    networks: bool,
}

/// Sockets for accounting messages, opened before the sandbox closes.
pub(crate) fn open(identify: &Identify) -> anyhow::Result<Vec<StdSocket>> {
    let listen = identify.radius.iter().flat_map(|radius| &radius.listen);
    listen
        .map(|&address| {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into()).with_context(|| {
                format!("cannot listen for accounting messages on {address} (identify.radius.listen)")
            })?;
            Ok(socket.into())
        })
        .collect()
}

/// Networks with the names of their users.
pub(crate) type Networks = Vec<(IpNet, Arc<str>)>;

/// Tells the hub of everything until the shutdown; `reloaded` has the networks of the configuration, and changes when the files
/// were read again.
pub(crate) fn run(
    identify: Identify,
    sockets: Vec<StdSocket>,
    hub: mpsc::Sender<Event>,
    reloaded: watch::Receiver<Networks>,
    complaints: Arc<Complaints>,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    if identify.leases.is_none() && identify.radius.is_none() {
        return Ok(());
    }
    let (incoming, messages) = mpsc::channel(WAITING);
    let sockets = sockets
        .into_iter()
        .map(|socket| UdpSocket::from_std(socket).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    for socket in sockets {
        tokio::spawn(receive(socket, incoming.clone(), shutdown.clone()));
    }
    let keeper = Keeper {
        leases: identify
            .leases
            .map(|file| (file, Stamp::default(), Leases::default())),
        accounting: identify.radius.map(Accounting::new),
        fixed: identify.networks,
        hub,
        complaints,
        held: HashMap::new(),
    };
    tokio::spawn(keeper.run(messages, reloaded, shutdown.clone()));
    Ok(())
}

struct Message {
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    bytes: Vec<u8>,
}

async fn receive(socket: Arc<UdpSocket>, incoming: mpsc::Sender<Message>, mut shutdown: Shutdown) {
    let mut buffer = vec![0; MAX_MESSAGE + 1];
    loop {
        let received = tokio::select! {
            () = shutdown.wait() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((length, from)) => {
                let message = Message {
                    socket: Arc::clone(&socket),
                    from,
                    bytes: buffer[..length].to_vec(),
                };
                if incoming.send(message).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // What came of an earlier answer, such as a port that nobody listens on.
                tracing::debug!(%error, "an accounting message could not be received");
            }
        }
    }
}

/// What a file is known by.
type Stamp = Option<(SystemTime, u64, u64)>;

struct Keeper {
    leases: Option<(PathBuf, Stamp, Leases)>,
    accounting: Option<Accounting>,
    /// Networks of the configuration.
    fixed: Networks,
    hub: mpsc::Sender<Event>,
    /// Messages that are not taken are counted there.
    complaints: Arc<Complaints>,
    /// Who was told to be where.
    held: HashMap<Addr, Arc<str>>,
}

impl Keeper {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut reloaded: watch::Receiver<Networks>,
        mut shutdown: Shutdown,
    ) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                Some(message) = messages.recv() => self.message(message).await,
                _ = ticks.tick() => self.look().await,
                Ok(()) = reloaded.changed() => {
                    self.fixed.clone_from(&reloaded.borrow_and_update());
                    self.tell_again().await;
                }
            }
        }
    }

    async fn message(&mut self, message: Message) {
        let Some(accounting) = &mut self.accounting else {
            return;
        };
        let Message { socket, from, bytes } = message;
        let (answer, changes) = match accounting.hear(from.ip(), &bytes, clock::mono()) {
            Ok(Heard { answer, changes }) => (answer, changes),
            Err(error) => {
                // Anybody can send a datagram in anybody's name: not even one line in the log for each sender.
                let what = format!(
                    "accounting messages are not taken, as that of {}: {error}",
                    from.ip()
                );
                self.complaints.tell_of_all("radius", Cause::Protocol, &what);
                return;
            }
        };
        self.tell(changes).await;
        // Only what is noted is answered: else it comes again.
        if let Err(error) = socket.send_to(&answer, from).await {
            tracing::debug!(peer = %from, %error, "an accounting message could not be answered");
        }
    }

    async fn look(&mut self) {
        let mut changes = Changes::default();
        if let Some((file, stamp, leases)) = &mut self.leases {
            let found = stamp_of(file);
            let text = (found != *stamp).then(|| read(file));
            if let Some(read) = text {
                *stamp = found;
                match read {
                    Ok(text) => {
                        for sentence in leases.read(&text) {
                            tracing::warn!(file = %file.display(), "{sentence}");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(file = %file.display(), %error, "the leases cannot be read: nobody is known by them");
                        leases.read("");
                    }
                }
            }
            changes.addresses.extend(leases.changes(clock::wall()));
        }
        if let Some(accounting) = &mut self.accounting {
            let old = accounting.expire(clock::mono());
            changes.addresses.extend(old.addresses);
            changes.networks |= old.networks;
        }
        self.tell(changes).await;
    }

    async fn tell(&mut self, changes: Changes) {
        for (address, user) in changes.addresses {
            let input = if let Some(user) = user {
                self.held.insert(address, Arc::clone(&user));
                Input::Identified { address, user }
            } else {
                self.held.remove(&address);
                Input::Unidentified { address }
            };
            let _ = self.hub.send(Event::Tell(Box::new(input))).await;
        }
        if changes.networks {
            let dynamic = self.accounting.iter().flat_map(Accounting::networks);
            let networks = self.fixed.iter().cloned().chain(dynamic).collect();
            let input = Input::Networks(networks);
            let _ = self.hub.send(Event::Tell(Box::new(input))).await;
        }
    }

    /// Users that came back have their addresses again.
    async fn tell_again(&mut self) {
        let addresses = self
            .held
            .iter()
            .map(|(&address, user)| (address, Some(Arc::clone(user))))
            .collect();
        let networks = self.accounting.is_some();
        self.tell(Changes { addresses, networks }).await;
    }
}

fn stamp_of(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let meta = file.metadata().ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn read(file: &Path) -> std::io::Result<String> {
    let length = file.metadata()?.len();
    if length > leases::MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "{length} bytes, {} may be",
            leases::MAX_BYTES
        )));
    }
    std::fs::read_to_string(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Radius;
    use nufw_common::lifecycle;
    use radius::tests::{SECRET, start, stop};

    struct Lab {
        heard: mpsc::Receiver<Event>,
        reloaded: watch::Sender<Networks>,
        port: SocketAddr,
        complaints: Arc<Complaints>,
        dir: tempfile::TempDir,
        _trigger: lifecycle::Trigger,
    }

    fn lab() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let identify = Identify {
            networks: Vec::new(),
            leases: Some(dir.path().join("leases")),
            radius: Some(Radius {
                listen: vec!["127.0.0.1:0".parse().unwrap()],
                clients: vec!["127.0.0.1/32".parse().unwrap()],
                secret: String::from_utf8(SECRET.to_vec()).unwrap().into(),
                secret_file: "secret".into(),
                timeout: Duration::from_mins(10),
            }),
        };
        let sockets = open(&identify).unwrap();
        let port = sockets[0].local_addr().unwrap();
        let (hub, heard) = mpsc::channel(16);
        let (reloaded, reloads) = watch::channel(Vec::new());
        let (trigger, shutdown) = lifecycle::shutdown();
        let complaints = Arc::<Complaints>::default();
        run(
            identify,
            sockets,
            hub,
            reloads,
            Arc::clone(&complaints),
            &shutdown,
        )
        .unwrap();
        Lab {
            heard,
            reloaded,
            port,
            complaints,
            dir,
            _trigger: trigger,
        }
    }

    impl Lab {
        /// The next word about an address; those about networks are left out.
        async fn word(&mut self) -> (String, Option<String>) {
            loop {
                let event = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
                let Some(Event::Tell(input)) = event.unwrap() else {
                    panic!("another event")
                };
                match *input {
                    Input::Identified { address, user } => {
                        return (address.to_string(), Some(user.to_string()));
                    }
                    Input::Unidentified { address } => return (address.to_string(), None),
                    Input::Networks(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn is(address: &str, user: Option<&str>) -> (String, Option<String>) {
        (address.to_owned(), user.map(str::to_owned))
    }

    #[tokio::test]
    async fn a_signed_message_is_noted_told_and_answered_and_another_is_not() {
        let mut lab = lab();
        let access_point = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut forged = start("mallory", "10.0.0.9");
        forged[HEADER_END] ^= 1;
        for message in [forged, start("alice", "10.0.0.7")] {
            access_point.send_to(&message, lab.port).await.unwrap();
        }
        assert_eq!(lab.word().await, is("10.0.0.7", Some("alice")));
        let mut answer = [0; 64];
        let received = tokio::time::timeout(Duration::from_secs(20), access_point.recv(&mut answer)).await;
        assert_eq!(
            received.unwrap().unwrap(),
            20,
            "one answer, to the one that was signed"
        );
        assert_eq!(lab.complaints.state().protocol, 1, "the other is counted");
        // Whoever reads the users again hears of it again.
        lab.reloaded.send_replace(Vec::new());
        assert_eq!(lab.word().await, is("10.0.0.7", Some("alice")));
        access_point
            .send_to(&stop("alice", "10.0.0.7"), lab.port)
            .await
            .unwrap();
        assert_eq!(lab.word().await, is("10.0.0.7", None));
    }

    #[tokio::test]
    async fn the_file_of_leases_is_followed_through_its_replacement_and_removal() {
        let mut lab = lab();
        let file = lab.dir.path().join("leases");
        std::fs::write(&file, "10.0.0.7 alice -\n").unwrap();
        assert_eq!(lab.word().await, is("10.0.0.7", Some("alice")));
        let next = lab.dir.path().join("next");
        std::fs::write(&next, "10.0.0.7 bobby -\n").unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert_eq!(lab.word().await, is("10.0.0.7", Some("bobby")));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(lab.word().await, is("10.0.0.7", None));
    }

    /// The first octet of the attributes.
    const HEADER_END: usize = 20;
}
