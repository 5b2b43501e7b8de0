//! What the hosts do: sockets are opened, answered, refused, used again.

use crate::client::{Socket, address};
use crate::kernel::{Packet, reversed};
use crate::sim::{CLIENTS, GATEWAYS, Sim};
use nufw_proto::{Addr, Ports, TcpState, Transport, Tuple};
use rand::RngExt;

impl Sim {
    pub(crate) fn any(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }

    pub(crate) fn open_socket(&mut self) {
        let (user, host) = CLIENTS[self.any(CLIENTS.len())];
        let gateway = self.any(GATEWAYS);
        let second = self.rng.random_ratio(1, 8);
        let src = address(host, second);
        let server: Addr = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
        let ports = Ports {
            src: 4000 + u16::try_from(self.any(3)).unwrap_or(0),
            dst: [443, 443, 443, 8080, 8080, 8080, 23, 25][self.any(8)],
        };
        let transport = if self.rng.random_bool(0.5) {
            Transport::Tcp(ports)
        } else {
            Transport::Udp(ports)
        };
        let tuple = Tuple::new(src, server, transport).expect("one family");
        let taken = self.sockets.iter().any(|socket| {
            socket.tuple.src() == src
                && socket.tuple.protocol() == tuple.protocol()
                && socket.tuple.transport().ports().map(|p| p.src) == Some(ports.src)
        });
        if taken {
            return;
        }
        self.note(|| format!("user {user} opens {tuple} through gateway {gateway}"));
        // A tuple that is used again ends what is left of its former connection.
        self.kernels[gateway].destroy(
            &(0, tuple),
            TcpState::TIME_WAIT,
            self.now,
            &mut self.reference.records,
        );
        self.sockets.push(Socket { user, gateway, tuple });
        self.send_packet(self.sockets.len() - 1);
    }

    pub(crate) fn send_packet(&mut self, index: usize) {
        let Some(socket) = self.sockets.get(index).copied() else {
            return;
        };
        self.kernels[socket.gateway].arrive(packet_of(&socket));
    }

    /// Something happens to a connection.
    pub(crate) fn traffic(&mut self) {
        if self.sockets.is_empty() {
            return;
        }
        let index = self.any(self.sockets.len());
        let socket = self.sockets[index];
        let key = (0, socket.tuple);
        let kernel = &mut self.kernels[socket.gateway];
        let answered = kernel.table.get(&key).map(|entry| entry.ct.status.seen_reply());
        let close = self.rng.random_ratio(1, 4);
        match answered {
            // It was refused, and is opened again at once.
            Some(false) if close => {
                self.note(|| format!("{} is refused", socket.tuple));
                let kernel = &mut self.kernels[socket.gateway];
                kernel.destroy(&key, TcpState::CLOSE, self.now, &mut self.reference.records);
                if self.rng.random_bool(0.5) {
                    self.send_packet(index);
                } else {
                    self.sockets.swap_remove(index);
                }
            }
            Some(true) if close => {
                self.note(|| format!("{} ends", socket.tuple));
                let state = [TcpState::TIME_WAIT, TcpState::CLOSE, TcpState::ESTABLISHED][self.any(3)];
                let kernel = &mut self.kernels[socket.gateway];
                kernel.destroy(&key, state, self.now, &mut self.reference.records);
                self.sockets.swap_remove(index);
            }
            Some(_) if self.rng.random_bool(0.5) => self.kernels[socket.gateway].reply(&key, self.now),
            None if self.rng.random_ratio(1, 10) => {
                self.note(|| format!("{} is given up", socket.tuple));
                self.sockets.swap_remove(index);
            }
            _ => self.send_packet(index),
        }
    }

    /// Entries whose socket is gone come to their end.
    pub(crate) fn time_out_entry(&mut self) {
        let gateway = self.any(GATEWAYS);
        let keys: Vec<_> = self.kernels[gateway].table.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.any(keys.len())];
        if self
            .sockets
            .iter()
            .all(|socket| socket.tuple != key.1 || socket.gateway != gateway)
        {
            self.note(|| format!("the entry of {} times out", key.1));
            let kernel = &mut self.kernels[gateway];
            kernel.destroy(&key, TcpState::SYN_SENT, self.now, &mut self.reference.records);
        }
    }
}

/// The packet of a socket: one server is behind a translated port, and one gateway hides its clients.
fn packet_of(socket: &Socket) -> Packet {
    let shown = match socket.tuple.transport().ports().map(|ports| ports.dst) {
        Some(8080) => {
            let behind: Addr = std::net::Ipv4Addr::new(10, 9, 9, 9).into();
            socket
                .tuple
                .with_destination(behind, Some(80))
                .expect("one family")
        }
        _ => socket.tuple,
    };
    let mut reply = reversed(&shown);
    if socket.gateway == 1 {
        let hidden: Addr = std::net::Ipv4Addr::new(203, 0, 113, 1).into();
        reply = reply.with_destination(hidden, None).expect("one family");
    }
    Packet {
        key: (0, socket.tuple),
        shown,
        reply,
    }
}
