//! The in-kernel filter of `-M`: only events of connections whose mark has one of the mask's bits reach the socket.
//!
//! Classic BPF, run by the kernel before a message is charged to the receive buffer, so that a gateway with much
//! unrelated traffic neither wakes the agent nor fills its buffer.

use libc::{
    BPF_ABS, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MISC, BPF_RET,
    BPF_TAX, BPF_W, SKF_AD_NLATTR, SKF_AD_OFF,
};
use nufw_proto::Mark;
use socket2::SockFilter;
use std::io;

const CTA_MARK: u32 = 8;
/// Netlink header (16) and nfgenmsg (4): where the attributes begin.
const ATTRIBUTES: u32 = 20;
/// Where the value of an attribute begins, from its header.
const VALUE: u32 = 4;
const ACCEPT: u32 = u32::MAX;
const REFUSE: u32 = 0;

/// Lets only messages with `CTA_MARK & mask != 0` through.
pub(super) fn attach(socket: &netlink_sys::Socket, mask: Mark) -> io::Result<()> {
    socket2::SockRef::from(socket).attach_filter(&program(mask))
}

fn program(mask: Mark) -> [SockFilter; 9] {
    // The offset is negative by definition; the kernel reads `k` as a signed number there.
    let find_attribute = SKF_AD_OFF.wrapping_add(SKF_AD_NLATTR).cast_unsigned();
    [
        step(BPF_LD | BPF_IMM, 0, 0, ATTRIBUTES),
        step(BPF_LDX | BPF_IMM, 0, 0, CTA_MARK),
        // A = offset of the first attribute of type X at or after offset A, or 0.
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, find_attribute),
        step(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 0),
        step(BPF_MISC | BPF_TAX, 0, 0, 0),
        // A = its value, network byte order being what BPF loads.
        step(BPF_LD | BPF_W | BPF_IND, 0, 0, VALUE),
        step(BPF_JMP | BPF_JSET | BPF_K, 1, 0, mask.0),
        step(BPF_RET | BPF_K, 0, 0, REFUSE),
        step(BPF_RET | BPF_K, 0, 0, ACCEPT),
    ]
}

fn step(code: u32, if_true: u8, if_false: u8, k: u32) -> SockFilter {
    SockFilter::new(u16::try_from(code).unwrap_or_default(), if_true, if_false, k)
}
