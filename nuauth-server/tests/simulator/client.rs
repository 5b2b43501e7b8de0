//! A model of a user's client: it owns sockets, and answers late, twice, falsely or never.

use nuauth_server::engine::Identity;
use nufw_proto::client::{Announce, Claim, ClaimRequest, Finding, Mine, ToServer, Withdraw};
use nufw_proto::{Addr, Batch, Mark, SessionId, Tuple};
use nulog::User;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::sync::Arc;

/// What somebody is connecting, or is connected to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Socket {
    pub(crate) user: usize,
    pub(crate) gateway: usize,
    /// As the socket sees it.
    pub(crate) tuple: Tuple,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) user: usize,
    pub(crate) host: usize,
    pub(crate) session: Option<SessionId>,
    /// Says of everything that it is its own, and more.
    pub(crate) liar: bool,
    pub(crate) inbox: VecDeque<ClaimRequest>,
    pub(crate) outbox: VecDeque<ToServer>,
}

pub(crate) fn identity(user: usize) -> Arc<Identity> {
    Arc::new(Identity {
        user: User {
            id: user as u64,
            name: Arc::from(format!("user{user}")),
        },
        mark: Mark(u32::try_from(user).unwrap_or(0) + 1),
        groups: Arc::from([]),
    })
}

/// The addresses of a host: the one that clients log in from, and another.
pub(crate) fn address(host: usize, second: bool) -> Addr {
    let last = u8::try_from(host).unwrap_or(0) + 1;
    std::net::Ipv4Addr::new(10, 0, u8::from(second), last).into()
}

impl Client {
    pub(crate) fn new(user: usize, host: usize, liar: bool) -> Self {
        Self {
            user,
            host,
            session: None,
            liar,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.session = None;
        self.inbox.clear();
        self.outbox.clear();
    }

    fn owns<'a>(&self, tuple: &Tuple, sockets: &'a [Socket]) -> Option<&'a Socket> {
        let port = |tuple: &Tuple| tuple.transport().ports().map(|ports| ports.src);
        sockets.iter().find(|socket| {
            socket.user == self.user
                && socket.tuple.src() == tuple.src()
                && socket.tuple.protocol() == tuple.protocol()
                && port(&socket.tuple) == port(tuple)
        })
    }

    /// Looks at the next question.
    pub(crate) fn work(&mut self, sockets: &[Socket], faulty: bool, rng: &mut StdRng) {
        let Some(request) = self.inbox.pop_front() else {
            return;
        };
        let id = request.id;
        let own = self.owns(&request.tuple, sockets);
        let finding = match own {
            _ if faulty && rng.random_ratio(1, 15) => return,
            Some(socket) => mine(socket.tuple),
            None if self.liar && rng.random_ratio(1, 3) => mine(request.tuple),
            None if self.liar && rng.random_ratio(1, 3) => {
                // Somebody else's address, or another socket than was asked for.
                let other = address(self.host + 1, false);
                let seen = Tuple::new(other, request.tuple.dst(), request.tuple.transport());
                mine(seen.unwrap_or(request.tuple))
            }
            None => Finding::NotMine,
        };
        let twice = faulty && rng.random_ratio(1, 15);
        let claim = Claim { id, finding };
        let mut claims = vec![claim.clone()];
        if twice {
            claims.push(claim);
        }
        self.outbox
            .push_back(ToServer::Claims(Batch::try_from(claims).unwrap_or_default()));
    }

    /// Claims a socket that nobody has asked for.
    pub(crate) fn announce(&mut self, sockets: &[Socket], rng: &mut StdRng) {
        let own: Vec<&Socket> = sockets.iter().filter(|socket| socket.user == self.user).collect();
        if own.is_empty() {
            return;
        }
        let seen = own[rng.random_range(0..own.len())].tuple;
        let mine = Mine { seen, program: None };
        let announced = Batch::try_from(vec![Announce { mine }]).unwrap_or_default();
        self.outbox.push_back(ToServer::Announce(announced));
    }

    pub(crate) fn withdraw(&mut self) {
        let address = address(self.host, true);
        self.outbox.push_back(ToServer::Withdraw(Withdraw { address }));
    }
}

fn mine(seen: Tuple) -> Finding {
    Finding::Mine(Mine { seen, program: None })
}
