//! Whose connection is it? Finds the socket of a tuple on this host, its owner and its program.
//!
//! Claims only sockets of one user and disclaims wherever two users could have sent the packet. Blocks for
//! microseconds (`sock_diag` answers within the call; /proc is bounded by a budget), never on anything remote.

mod diag;
mod hash;
mod known;
mod matching;
mod proc_net;
mod process;
mod program;

use diag::{CLOSE, Diag, Filter, SYN_SENT, SocketRow};
use hash::Hashes;
use matching::{Fit, Owner};
use netlink_packet_sock_diag::inet::StateFlags;
use nufw_proto::client::{Claim, ClaimRequest, Finding, Mine, ProgramHash};
use nufw_proto::{MAX_BATCH, Ports, Transport, Tuple};
use proc_net::Table;
use program::Programs;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

/// The kernel cannot be asked about sockets.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The netlink socket could not be opened or used.
    #[error("the kernel cannot be asked who owns a socket (netlink sock_diag): {0}")]
    Netlink(io::Error),
    /// The kernel was built without the part that answers for a protocol.
    #[error(
        "the kernel does not say who owns {protocol} sockets: load the module {module} (as root: modprobe {module})"
    )]
    NoModule {
        /// Protocol.
        protocol: &'static str,
        /// Kernel module.
        module: &'static str,
    },
}

/// Answers for the sockets of one user.
pub struct SocketOwner {
    uid: u32,
    diag: Diag,
    programs: Programs,
    hashes: Hashes,
}

/// What is known of one question.
#[derive(Clone, Copy)]
enum Progress {
    /// The socket was found.
    Found(Owner),
    /// An unconnected socket that may share its port with another user's.
    Shared(SocketRow),
    /// Nothing fits exactly.
    Missing,
}

impl SocketOwner {
    /// Answers for the sockets of `uid`.
    pub fn open(uid: u32) -> Result<Self, OwnerError> {
        let mut diag = Diag::open().map_err(OwnerError::Netlink)?;
        for (number, protocol, module) in [(6, "TCP", "tcp_diag"), (17, "UDP", "udp_diag")] {
            if !diag.answers_for(number).map_err(OwnerError::Netlink)? {
                return Err(OwnerError::NoModule { protocol, module });
            }
        }
        Ok(Self {
            uid,
            diag,
            programs: Programs::new(uid),
            hashes: Hashes::default(),
        })
    }

    /// The hashes of the programs of these claims, as far as they can be read.
    pub fn hashes(&mut self, claims: &[Claim]) -> Vec<ProgramHash> {
        claims
            .iter()
            .filter_map(|claim| match &claim.finding {
                Finding::Mine(Mine {
                    program: Some(program),
                    ..
                }) => Some(ProgramHash {
                    id: claim.id,
                    sha256: self.hashes.of(Path::new(program.as_str()))?,
                }),
                Finding::Mine(_) | Finding::NotMine => None,
            })
            .collect()
    }

    /// Answers the questions, in their order. Questions that come together share one look through /proc.
    pub fn claims(&mut self, questions: &[ClaimRequest]) -> Vec<Claim> {
        let tuples: Vec<Tuple> = questions.iter().map(|question| question.tuple).collect();
        questions
            .iter()
            .zip(self.findings(&tuples))
            .map(|(question, finding)| Claim {
                id: question.id,
                finding,
            })
            .collect()
    }

    /// Finds the socket of each tuple, in their order.
    pub fn findings(&mut self, tuples: &[Tuple]) -> Vec<Finding> {
        let owners = self
            .retried(|this| this.owners(tuples))
            .unwrap_or_else(|| vec![None; tuples.len()]);
        let mine: Vec<Option<Owner>> = owners
            .into_iter()
            .map(|owner| owner.filter(|owner| owner.uid == self.uid))
            .collect();
        let wanted: HashSet<u32> = mine
            .iter()
            .flatten()
            .map(|owner| owner.inode)
            .filter(|&i| i != 0)
            .collect();
        let programs = self.programs.look(&wanted);
        mine.into_iter()
            .map(|owner| match owner {
                Some(Owner { inode, seen, .. }) => Finding::Mine(Mine {
                    seen,
                    program: programs.get(&inode).cloned().flatten(),
                }),
                None => Finding::NotMine,
            })
            .collect()
    }

    /// The user's TCP connections that are being opened, save those within the host.
    pub fn opening(&mut self) -> Vec<Mine> {
        let rows = self.retried(|this| {
            let mut rows = Vec::new();
            let filter = Filter {
                protocol: 6,
                ipv4: true,
                states: StateFlags::SYN_SENT,
                local_port: None,
            };
            let uid = this.uid;
            this.diag.dump(&filter, |row| {
                let is_mine = row.uid == uid && row.state == SYN_SENT && !row.remote.addr.ip().is_loopback();
                if is_mine && rows.len() < MAX_BATCH {
                    rows.push(row);
                }
            })?;
            Ok(rows)
        });
        let rows = rows.unwrap_or_default();
        let wanted: HashSet<u32> = rows.iter().map(|row: &SocketRow| row.inode).collect();
        let programs = self.programs.look(&wanted);
        rows.iter()
            .filter_map(|row| {
                let ports = Ports {
                    src: row.local.port,
                    dst: row.remote.port,
                };
                Some(Mine {
                    seen: Tuple::new(row.local.addr, row.remote.addr, Transport::Tcp(ports)).ok()?,
                    program: programs.get(&row.inode).cloned().flatten(),
                })
            })
            .collect()
    }

    /// Asks again over a new socket when netlink fails: an answer that was lost says nothing about the socket. What
    /// cannot be found out is not claimed.
    fn retried<T>(&mut self, mut ask: impl FnMut(&mut Self) -> io::Result<T>) -> Option<T> {
        let again = match ask(self) {
            Ok(answer) => return Some(answer),
            Err(error) => {
                tracing::debug!(%error, "asking the kernel about sockets failed; asking again");
                Diag::open().map(|diag| self.diag = diag)
            }
        };
        again
            .and_then(|()| ask(self))
            .inspect_err(|error| tracing::warn!(%error, "the kernel does not answer about sockets: nothing is claimed"))
            .ok()
    }

    fn owners(&mut self, tuples: &[Tuple]) -> io::Result<Vec<Option<Owner>>> {
        let rows = self.diag.exact(tuples)?;
        let mut progress: Vec<Progress> = tuples
            .iter()
            .zip(rows)
            .map(
                |(tuple, row)| match row.map(|row| (fit_owner(tuple, &row), row)) {
                    Some(((Fit::Exact, owner), _)) => Progress::Found(owner),
                    Some(((Fit::Bound, _), row)) => Progress::Shared(row),
                    _ => Progress::Missing,
                },
            )
            .collect();
        for protocol in [6, 17, 136] {
            for ipv4 in [true, false] {
                self.by_port(tuples, &mut progress, protocol, ipv4)?;
            }
        }
        icmp_owners(tuples, &mut progress)?;
        Ok(progress
            .into_iter()
            .map(|state| match state {
                Progress::Found(owner) => Some(owner),
                Progress::Shared(_) | Progress::Missing => None,
            })
            .collect())
    }

    /// Looks by local address and port for the sockets that were not found by their exact tuple, all of one protocol
    /// and family in one dump: under DNAT the packet shows another destination than the socket has, and a socket
    /// bound to a device is not found by its tuple.
    fn by_port(
        &mut self,
        tuples: &[Tuple],
        progress: &mut [Progress],
        protocol: u8,
        ipv4: bool,
    ) -> io::Result<()> {
        // A SYN waits more often than anything else, and few sockets are in that state.
        let passes: &[StateFlags] = if protocol == 6 {
            let rest = StateFlags::all() - StateFlags::SYN_SENT - StateFlags::LISTEN - StateFlags::TIME_WAIT;
            &[StateFlags::SYN_SENT, rest]
        } else {
            &[StateFlags::all()]
        };
        for states in passes {
            let open: Vec<(usize, u16)> = (0..tuples.len())
                .filter(|&i| tuples[i].protocol() == protocol && tuples[i].src().is_ipv4() == ipv4)
                .filter(|&i| match progress[i] {
                    Progress::Found(_) => false,
                    // Another user's is not claimed whatever shares its port.
                    Progress::Shared(row) => row.uid == self.uid,
                    Progress::Missing => true,
                })
                .filter_map(|i| Some((i, tuples[i].transport().ports()?.src)))
                .collect();
            let Some(&(_, first)) = open.first() else {
                return Ok(());
            };
            let ports: HashSet<u16> = open.iter().map(|&(_, port)| port).collect();
            let filter = Filter {
                protocol,
                ipv4,
                states: states.clone(),
                local_port: (ports.len() == 1).then_some(first),
            };
            let mut rows: HashMap<u16, Vec<SocketRow>> = HashMap::new();
            self.diag.dump(&filter, |row| {
                if ports.contains(&row.local.port) {
                    rows.entry(row.local.port).or_default().push(row);
                }
            })?;
            for (i, port) in open {
                let is_shared = matches!(progress[i], Progress::Shared(_));
                // The kernel named an unconnected socket: only others like it are its rivals.
                let rivals = rows.get(&port).into_iter().flatten();
                let rivals = rivals.filter(|row| !is_shared || row.state == CLOSE);
                if let Some(owner) = matching::choose(&tuples[i], rivals) {
                    progress[i] = Progress::Found(owner);
                }
            }
        }
        Ok(())
    }
}

fn fit_owner(tuple: &Tuple, row: &SocketRow) -> (Fit, Owner) {
    let owner = Owner {
        uid: row.uid,
        inode: row.inode,
        seen: *tuple,
    };
    (matching::fit(tuple, row), owner)
}

fn icmp_owners(tuples: &[Tuple], progress: &mut [Progress]) -> io::Result<()> {
    let mut tables: HashMap<Table, Vec<SocketRow>> = HashMap::new();
    for (tuple, state) in tuples.iter().zip(progress) {
        let (echo, raw) = match tuple.transport() {
            Transport::Icmp(_) => (Table::Icmp, Table::Raw),
            Transport::Icmpv6(_) => (Table::Icmp6, Table::Raw6),
            _ => continue,
        };
        for table in [echo, raw] {
            if let std::collections::hash_map::Entry::Vacant(place) = tables.entry(table) {
                place.insert(table.read()?);
            }
        }
        let empty = Vec::new();
        let rows = |table| tables.get(&table).unwrap_or(&empty);
        if let Some(owner) = matching::choose_icmp(tuple, rows(echo), rows(raw)) {
            *state = Progress::Found(owner);
        }
    }
    Ok(())
}
