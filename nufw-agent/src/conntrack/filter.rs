//! The in-kernel filter: only events of connections that are of interest reach the socket (`-M`, `conntrack.accept-*`).
//!
//! Classic BPF, run by the kernel before a message is charged to the receive buffer, so that a gateway with much
//! unrelated traffic neither wakes the agent nor fills its buffer. It lets pass what [`Interest::includes`] does.

use super::interest::{Chosen, Interest};
use ipnet::IpNet;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD,
    BPF_LDX, BPF_MEM, BPF_MISC, BPF_RET, BPF_ST, BPF_TAX, BPF_W, SKF_AD_NLATTR, SKF_AD_NLATTR_NEST,
    SKF_AD_OFF,
};
use nufw_proto::Mark;
use socket2::SockFilter;
use std::io;

const CTA_TUPLE_ORIG: u32 = 1;
const CTA_TUPLE_REPLY: u32 = 2;
const CTA_MARK: u32 = 8;
const CTA_TUPLE_IP: u32 = 1;
const CTA_TUPLE_PROTO: u32 = 2;
const CTA_IP_V4_SRC: u32 = 1;
const CTA_IP_V6_SRC: u32 = 3;
const CTA_PROTO_NUM: u32 = 1;
/// Netlink header (16) and nfgenmsg (4): where the attributes begin.
const ATTRIBUTES: u32 = 20;
/// Where the value of an attribute begins, from its header.
const VALUE: u32 = 4;
const ACCEPT: u32 = u32::MAX;
const REFUSE: u32 = 0;

/// Lets only messages about connections of interest through.
pub(super) fn attach(socket: &netlink_sys::Socket, interest: &Interest) -> io::Result<()> {
    let program = match interest {
        Interest::All => return Ok(()),
        Interest::Marked(bits) => program(&Chosen {
            marks: Some(*bits),
            ..Chosen::default()
        }),
        Interest::Chosen(chosen) => program(chosen),
    };
    socket2::SockRef::from(socket).attach_filter(&program)
}

/// The program: each part refuses, or falls through to the next.
fn program(chosen: &Chosen) -> Vec<SockFilter> {
    let mut program = Program::default();
    if let Some(bits) = chosen.marks {
        program.marked(bits);
    }
    if !chosen.protocols.is_empty() {
        program.protocol(&chosen.protocols);
    }
    for (tuple, nets) in [
        (CTA_TUPLE_ORIG, &chosen.sources),
        // The reply comes from where the connection goes.
        (CTA_TUPLE_REPLY, &chosen.destinations),
    ] {
        if !nets.is_empty() {
            program.source(tuple, nets);
        }
    }
    program.ret(ACCEPT);
    program.0
}

#[derive(Default)]
struct Program(Vec<SockFilter>);

impl Program {
    fn step(&mut self, code: u32, if_true: u8, if_false: u8, k: u32) {
        let code = u16::try_from(code).unwrap_or_default();
        self.0.push(SockFilter::new(code, if_true, if_false, k));
    }

    fn ret(&mut self, what: u32) {
        self.step(BPF_RET | BPF_K, 0, 0, what);
    }

    /// Puts off a jump; [`Self::land`] says where to.
    fn jump(&mut self) -> usize {
        self.step(BPF_JMP | BPF_JA, 0, 0, 0);
        self.0.len()
    }

    fn land(&mut self, jumps: &[usize]) {
        let here = self.0.len();
        for &after in jumps {
            let distance = u32::try_from(here.saturating_sub(after)).unwrap_or_default();
            if let Some(jump) = self.0.get_mut(after.wrapping_sub(1)) {
                *jump = SockFilter::new(
                    u16::try_from(BPF_JMP | BPF_JA).unwrap_or_default(),
                    0,
                    0,
                    distance,
                );
            }
        }
    }

    /// A = offset of the attribute, among those of the message or within the one at offset A; 0 without one.
    fn look(&mut self, attribute: u32, extension: i32) {
        // The offset is negative by definition; the kernel reads `k` as a signed number there.
        let load = SKF_AD_OFF.wrapping_add(extension).cast_unsigned();
        self.step(BPF_LDX | BPF_IMM, 0, 0, attribute);
        self.step(BPF_LD | BPF_W | BPF_ABS, 0, 0, load);
    }

    /// The same, and refuses without one.
    fn find(&mut self, attribute: u32) {
        self.step(BPF_LD | BPF_IMM, 0, 0, ATTRIBUTES);
        self.look(attribute, SKF_AD_NLATTR);
        self.refuse_zero();
    }

    fn find_within(&mut self, attribute: u32) {
        self.look(attribute, SKF_AD_NLATTR_NEST);
        self.refuse_zero();
    }

    fn refuse_zero(&mut self) {
        self.step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
        self.ret(REFUSE);
    }

    fn marked(&mut self, bits: Mark) {
        self.find(CTA_MARK);
        self.step(BPF_MISC | BPF_TAX, 0, 0, 0);
        // Network byte order is what BPF loads.
        self.step(BPF_LD | BPF_W | BPF_IND, 0, 0, VALUE);
        self.step(BPF_JMP | BPF_JSET | BPF_K, 1, 0, bits.0);
        self.ret(REFUSE);
    }

    fn protocol(&mut self, numbers: &[u8]) {
        self.find(CTA_TUPLE_ORIG);
        self.find_within(CTA_TUPLE_PROTO);
        self.find_within(CTA_PROTO_NUM);
        self.step(BPF_MISC | BPF_TAX, 0, 0, 0);
        self.step(BPF_LD | BPF_B | BPF_IND, 0, 0, VALUE);
        let mut found = Vec::new();
        for &number in numbers {
            self.step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number.into());
            found.push(self.jump());
        }
        self.ret(REFUSE);
        self.land(&found);
    }

    /// The source address of a tuple is within one of the networks.
    fn source(&mut self, tuple: u32, nets: &[IpNet]) {
        self.find(tuple);
        self.find_within(CTA_TUPLE_IP);
        self.step(BPF_ST, 0, 0, 0);
        let mut found = Vec::new();
        for (attribute, is_v4) in [(CTA_IP_V4_SRC, true), (CTA_IP_V6_SRC, false)] {
            self.step(BPF_LD | BPF_MEM, 0, 0, 0);
            self.look(attribute, SKF_AD_NLATTR_NEST);
            self.step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
            let other_family = self.jump();
            self.step(BPF_MISC | BPF_TAX, 0, 0, 0);
            for net in nets.iter().filter(|net| net.addr().is_ipv4() == is_v4) {
                self.within(net);
                found.push(self.jump());
            }
            self.ret(REFUSE);
            self.land(&[other_family]);
        }
        // An address of neither family.
        self.ret(REFUSE);
        self.land(&found);
    }

    /// Falls through, if the address at X is within the network; else goes over the one instruction that follows.
    fn within(&mut self, net: &IpNet) {
        let words: Vec<(u32, u32)> = match net.trunc() {
            IpNet::V4(net) => vec![(net.network().to_bits(), net.netmask().to_bits())],
            IpNet::V6(net) => {
                let (network, mask) = (net.network().to_bits(), net.netmask().to_bits());
                let word = |bits: u128, index: u32| {
                    u32::try_from(bits >> (96 - 32 * index) & u128::from(u32::MAX)).unwrap_or_default()
                };
                (0..4)
                    .map(|index| (word(network, index), word(mask, index)))
                    .collect()
            }
        };
        let masked = || (0u32..).zip(&words).filter(|(_, (_, mask))| *mask != 0);
        let mut left = masked().count();
        for (index, (network, mask)) in masked() {
            self.step(BPF_LD | BPF_W | BPF_IND, 0, 0, VALUE + 4 * index);
            self.step(BPF_ALU | BPF_AND | BPF_K, 0, 0, *mask);
            left -= 1;
            // Three instructions a word, and the jump behind them.
            let over = u8::try_from(3 * left + 1).unwrap_or_default();
            self.step(BPF_JMP | BPF_JEQ | BPF_K, 0, over, *network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::MOST_CHOSEN;

    /// `BPF_MAXINSNS`.
    const MOST_STEPS: usize = 4096;

    #[test]
    fn the_longest_lists_fit_into_a_program() {
        let longest: IpNet = "2001:db8::1/128".parse().unwrap();
        let chosen = Chosen {
            marks: Some(Mark(1)),
            sources: vec![longest; MOST_CHOSEN],
            destinations: vec![longest; MOST_CHOSEN],
            protocols: vec![6; MOST_CHOSEN],
        };
        assert!(program(&chosen).len() <= MOST_STEPS);
    }
}
