//! Which connections the agent tells the server of: all, the marked ones, or some by addresses and protocol.
//!
//! Decides about entries and about packets alike, so that the server knows at once of which rows it will hear. What is not of
//! interest is not counted: the kernel keeps it to itself.

use ipnet::IpNet;
use nufw_proto::{CtEntry, Mark, Tuple};
use std::net::IpAddr;
use std::sync::Arc;

/// Most networks or protocols in one list: the kernel's filter is a program that it runs for every event.
pub const MOST_CHOSEN: usize = 64;

/// Which connections are of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// All.
    All,
    /// Those whose mark has one of these bits (`-M`).
    Marked(Mark),
    /// Those that pass every list.
    Chosen(Arc<Chosen>),
}

/// Lists of which an empty one lets everything pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chosen {
    /// Where the mark must have one of these bits.
    pub marks: Option<Mark>,
    /// Where the connection comes from: its original source.
    pub sources: Vec<IpNet>,
    /// Where it goes: the destination behind any translation, which is also what its packet shows in the queue.
    pub destinations: Vec<IpNet>,
    /// IANA numbers of its protocol.
    pub protocols: Vec<u8>,
}

impl Interest {
    /// Tells whether a connection is of interest.
    pub fn includes(&self, entry: &CtEntry) -> bool {
        match self {
            Self::All => true,
            Self::Marked(bits) => entry.mark.0 & bits.0 != 0,
            Self::Chosen(chosen) => {
                chosen.marks.is_none_or(|bits| entry.mark.0 & bits.0 != 0)
                    && chosen.fits(
                        entry.original.src().ip(),
                        entry.reply.src().ip(),
                        entry.original.protocol(),
                    )
            }
        }
    }

    /// Tells whether the connection that a queued packet begins will be of interest, once it has its mark.
    pub fn will_include(&self, shown: &Tuple) -> bool {
        match self {
            Self::All | Self::Marked(_) => true,
            Self::Chosen(chosen) => chosen.fits(shown.src().ip(), shown.dst().ip(), shown.protocol()),
        }
    }
}

impl Chosen {
    fn fits(&self, source: IpAddr, destination: IpAddr, protocol: u8) -> bool {
        let within = |nets: &[IpNet], ip| nets.is_empty() || nets.iter().any(|net| net.contains(&ip));
        within(&self.sources, source)
            && within(&self.destinations, destination)
            && (self.protocols.is_empty() || self.protocols.contains(&protocol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::{Addr, Ports, Transport};

    fn udp(src: &str, dst: &str) -> Tuple {
        let addr = |text: &str| text.parse::<Addr>().unwrap();
        Tuple::new(addr(src), addr(dst), Transport::Udp(Ports { src: 1, dst: 2 })).unwrap()
    }

    #[test]
    fn every_list_must_let_it_pass_and_an_empty_one_does() {
        let nets = |list: &[&str]| {
            list.iter()
                .map(|net| net.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        let chosen = |change: &dyn Fn(&mut Chosen)| {
            let mut chosen = Chosen::default();
            change(&mut chosen);
            Interest::Chosen(Arc::new(chosen))
        };
        let packet = udp("10.0.0.7", "192.0.2.1");
        assert!(chosen(&|_| {}).will_include(&packet));
        assert!(chosen(&|c| c.sources = nets(&["172.16.0.0/12", "10.0.0.0/8"])).will_include(&packet));
        assert!(!chosen(&|c| c.sources = nets(&["10.0.1.0/24"])).will_include(&packet));
        assert!(!chosen(&|c| c.destinations = nets(&["10.0.0.0/8"])).will_include(&packet));
        assert!(!chosen(&|c| c.protocols = vec![6]).will_include(&packet));
        assert!(!chosen(&|c| c.sources = nets(&["::/0"])).will_include(&packet));
        // Its mark comes with the verdict.
        assert!(chosen(&|c| c.marks = Some(Mark(1))).will_include(&packet));
    }
}
