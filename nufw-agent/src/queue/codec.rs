//! The messages of `linux/netfilter/nfnetlink_queue.h`: packets read, configuration and verdicts written.
//!
//! Bytes only: the socket is [`super::Queue`]'s. A message that cannot be understood is a value, never a panic, and
//! still tells its packet's id when that much can be read, so that the packet need not hang in the kernel.

use crate::nfnl::{Malformed, Message, NLM_F_ACK, NLM_F_REQUEST, Writer};
use nufw_proto::Timestamp;
use nufw_proto::gateway::Hook;

/// `NFNL_SUBSYS_QUEUE` in the upper byte of the message type.
const SUBSYSTEM: u16 = 3 << 8;
/// Message type of a packet.
pub(super) const PACKET: u16 = SUBSYSTEM;
/// Message type of a verdict.
pub(super) const VERDICT: u16 = SUBSYSTEM | 1;
/// Message type of a verdict on every packet up to an id.
pub(super) const VERDICT_BATCH: u16 = SUBSYSTEM | 3;
/// Message type of a configuration request.
pub(super) const CONFIG: u16 = SUBSYSTEM | 2;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_TIMESTAMP: u16 = 4;
const NFQA_IFINDEX_INDEV: u16 = 5;
const NFQA_IFINDEX_OUTDEV: u16 = 6;
const NFQA_IFINDEX_PHYSINDEV: u16 = 7;
const NFQA_IFINDEX_PHYSOUTDEV: u16 = 8;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CAP_LEN: u16 = 13;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;

const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;
const NFQA_CFG_F_FAIL_OPEN: u32 = 1;
const NFQA_CFG_F_GSO: u32 = 4;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_REPEAT: u32 = 4;

/// A packet that waits in the kernel for its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedPacket {
    /// The queue that it waits in.
    pub queue: u16,
    /// The kernel's name for it; consecutive within a queue.
    pub packet_id: u32,
    /// Where it waits.
    pub hook: Hook,
    /// `EtherType` of the packet, 0 when unknown.
    pub hw_protocol: u16,
    /// Mark of the packet.
    pub mark: u32,
    /// Index of the interface it came in by, 0 when none.
    pub in_dev: u32,
    /// Index of the interface it would leave by, 0 when none.
    pub out_dev: u32,
    /// Index of the bridge port it came in by, 0 when none.
    pub phys_in_dev: u32,
    /// Index of the bridge port it would leave by, 0 when none.
    pub phys_out_dev: u32,
    /// When the network card or driver saw it, if the kernel took that time.
    pub timestamp: Option<Timestamp>,
    /// The first bytes of the packet, from its IP header on.
    pub payload: Vec<u8>,
    /// How long the packet is.
    pub length: u32,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Disposition {
    /// It goes on at the next hook.
    Accept {
        /// The packet's mark from now on; `None` leaves it.
        mark: Option<u32>,
    },
    /// It vanishes.
    Drop,
    /// It passes the chain once more from its top.
    Repeat {
        /// The packet's mark from now on; `None` leaves it.
        mark: Option<u32>,
    },
}

/// A packet message that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The packet, if that much could be read.
    pub(super) packet_id: Option<u32>,
}

/// Reads a message of type [`PACKET`].
pub(super) fn read_packet(message: &Message<'_>) -> Result<QueuedPacket, Unreadable> {
    let mut packet = QueuedPacket {
        queue: 0,
        packet_id: 0,
        hook: Hook::Forward,
        hw_protocol: 0,
        mark: 0,
        in_dev: 0,
        out_dev: 0,
        phys_in_dev: 0,
        phys_out_dev: 0,
        timestamp: None,
        payload: Vec::new(),
        length: 0,
    };
    let mut packet_id = None;
    let mut hook = None;
    let mut whole = true;
    let mut length = None;
    let attributes = match message.nfgen() {
        Ok((_, queue, attributes)) => {
            packet.queue = queue;
            attributes
        }
        Err(Malformed::Header { .. } | Malformed::Length { .. }) => return Err(Unreadable { packet_id }),
    };
    for attribute in attributes {
        let Ok(attribute) = attribute else {
            whole = false;
            break;
        };
        let number = attribute.be32();
        match (attribute.kind, number) {
            (NFQA_PACKET_HDR, _) => {
                if let [a, b, c, d, e, f, number, ..] = *attribute.value {
                    packet_id = Some(u32::from_be_bytes([a, b, c, d]));
                    packet.hw_protocol = u16::from_be_bytes([e, f]);
                    hook = hook_from(number);
                }
            }
            (NFQA_MARK, Some(value)) => packet.mark = value,
            (NFQA_IFINDEX_INDEV, Some(value)) => packet.in_dev = value,
            (NFQA_IFINDEX_OUTDEV, Some(value)) => packet.out_dev = value,
            (NFQA_IFINDEX_PHYSINDEV, Some(value)) => packet.phys_in_dev = value,
            (NFQA_IFINDEX_PHYSOUTDEV, Some(value)) => packet.phys_out_dev = value,
            (NFQA_CAP_LEN, Some(value)) => length = Some(value),
            (NFQA_TIMESTAMP, _) => packet.timestamp = timestamp(attribute.value),
            (NFQA_PAYLOAD, _) => packet.payload = attribute.value.to_vec(),
            _ => {}
        }
    }
    match (packet_id, hook, whole) {
        (Some(id), Some(hook), true) => {
            packet.packet_id = id;
            packet.hook = hook;
            // The kernel tells the length only when it cut the packet.
            packet.length = length.unwrap_or_else(|| u32::try_from(packet.payload.len()).unwrap_or(u32::MAX));
            Ok(packet)
        }
        _ => Err(Unreadable { packet_id }),
    }
}

/// The id of a packet, if the message has one.
pub(super) fn packet_id(message: &Message<'_>) -> Option<u32> {
    match read_packet(message) {
        Ok(packet) => Some(packet.packet_id),
        Err(unreadable) => unreadable.packet_id,
    }
}

fn hook_from(number: u8) -> Option<Hook> {
    Some(match number {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    })
}

fn timestamp(value: &[u8]) -> Option<Timestamp> {
    let (seconds, micros) = value.split_at_checked(8)?;
    let seconds = i64::from_be_bytes(seconds.try_into().ok()?);
    let micros = i64::from_be_bytes(micros.try_into().ok()?);
    Some(Timestamp::from_micros(
        seconds.checked_mul(1_000_000)?.checked_add(micros)?,
    ))
}

/// How a queue behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Bytes of each packet that are copied.
    pub(super) copy_range: u16,
    /// Most packets that wait.
    pub(super) length: u32,
    /// Whether packets pass when that many wait.
    pub(super) fail_open: bool,
}

/// Writes the request that binds `queue` to the socket: binding and settings in one message, because a packet that
/// came between the two would be dropped.
pub(super) fn open(writer: &mut Writer, queue: u16, settings: Settings) {
    writer.begin(CONFIG, NLM_F_REQUEST | NLM_F_ACK, 0, 0, queue);
    writer.attribute(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    settle(writer, settings);
}

/// Writes the request that gives a bound queue other settings.
pub(super) fn adjust(writer: &mut Writer, queue: u16, settings: Settings) {
    writer.begin(CONFIG, NLM_F_REQUEST | NLM_F_ACK, 0, 0, queue);
    settle(writer, settings);
}

fn settle(writer: &mut Writer, settings: Settings) {
    let mut params = [0; 5];
    params[..4].copy_from_slice(&u32::from(settings.copy_range).to_be_bytes());
    params[4] = NFQNL_COPY_PACKET;
    writer.attribute(NFQA_CFG_PARAMS, &params);
    writer.attribute_be32(NFQA_CFG_QUEUE_MAXLEN, settings.length);
    // GSO: a segmented super-packet is one packet with one verdict, and no checksum is computed for us.
    let fail_open = if settings.fail_open {
        NFQA_CFG_F_FAIL_OPEN
    } else {
        0
    };
    writer.attribute_be32(NFQA_CFG_FLAGS, NFQA_CFG_F_GSO | fail_open);
    writer.attribute_be32(NFQA_CFG_MASK, NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN);
}

/// Writes the request that changes how many packets may wait.
pub(super) fn length(writer: &mut Writer, queue: u16, length: u32) {
    writer.begin(CONFIG, NLM_F_REQUEST | NLM_F_ACK, 0, 0, queue);
    writer.attribute_be32(NFQA_CFG_QUEUE_MAXLEN, length);
}

/// Writes a verdict. Its sequence number is the packet's id, so that a refusal tells which packet it is about.
pub(super) fn verdict(writer: &mut Writer, queue: u16, packet_id: u32, disposition: Disposition) {
    writer.begin(VERDICT, NLM_F_REQUEST, packet_id, 0, queue);
    verdict_header(writer, packet_id, disposition);
}

fn verdict_header(writer: &mut Writer, packet_id: u32, disposition: Disposition) {
    let (code, mark) = match disposition {
        Disposition::Accept { mark } => (NF_ACCEPT, mark),
        Disposition::Drop => (NF_DROP, None),
        Disposition::Repeat { mark } => (NF_REPEAT, mark),
    };
    let mut header = [0; 8];
    header[..4].copy_from_slice(&code.to_be_bytes());
    header[4..].copy_from_slice(&packet_id.to_be_bytes());
    writer.attribute(NFQA_VERDICT_HDR, &header);
    if let Some(mark) = mark {
        writer.attribute_be32(NFQA_MARK, mark);
    }
}

/// Writes one verdict on every packet up to `last`, by the kernel's order of ids (`nfq_id_after`), which wraps around.
pub(super) fn verdict_up_to(writer: &mut Writer, queue: u16, last: u32, disposition: Disposition) {
    writer.begin(VERDICT_BATCH, NLM_F_REQUEST, 0, 0, queue);
    verdict_header(writer, last, disposition);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfnl::Messages;
    use proptest::prelude::*;

    fn packet_message() -> Writer {
        let mut writer = Writer::default();
        writer.begin(PACKET, 0, 0, 2, 5);
        writer.attribute(NFQA_PACKET_HDR, &[0, 0, 1, 2, 0x08, 0x00, 2]);
        writer.attribute_be32(NFQA_MARK, 0x55);
        writer.attribute_be32(NFQA_IFINDEX_INDEV, 3);
        writer.attribute_be32(NFQA_IFINDEX_OUTDEV, 4);
        let mut time = 1_700_000_000u64.to_be_bytes().to_vec();
        time.extend_from_slice(&123_456u64.to_be_bytes());
        writer.attribute(NFQA_TIMESTAMP, &time);
        writer.attribute_be32(NFQA_CAP_LEN, 1500);
        writer.attribute(NFQA_PAYLOAD, &[0x45, 0, 1]);
        writer
    }

    fn only(writer: &Writer) -> Message<'_> {
        Messages::new(writer.bytes()).next().unwrap().unwrap()
    }

    #[test]
    fn a_packet_is_read() {
        let writer = packet_message();
        let packet = read_packet(&only(&writer)).unwrap();
        assert_eq!(
            packet,
            QueuedPacket {
                queue: 5,
                packet_id: 258,
                hook: Hook::Forward,
                hw_protocol: 0x0800,
                mark: 0x55,
                in_dev: 3,
                out_dev: 4,
                phys_in_dev: 0,
                phys_out_dev: 0,
                timestamp: Some(Timestamp::from_micros(1_700_000_000_123_456)),
                payload: vec![0x45, 0, 1],
                length: 1500,
            }
        );
    }

    #[test]
    fn an_unreadable_packet_still_tells_its_id() {
        let mut writer = Writer::default();
        writer.begin(PACKET, 0, 0, 2, 5);
        writer.attribute(NFQA_PACKET_HDR, &[0, 0, 0, 9, 0x08, 0x00, 77]);
        assert_eq!(
            read_packet(&only(&writer)),
            Err(Unreadable { packet_id: Some(9) })
        );
        let mut writer = Writer::default();
        writer.begin(PACKET, 0, 0, 2, 5);
        writer.attribute_be32(NFQA_MARK, 1);
        assert_eq!(read_packet(&only(&writer)), Err(Unreadable { packet_id: None }));
    }

    #[test]
    fn a_verdict_is_what_the_header_file_says() {
        let mut writer = Writer::default();
        verdict(
            &mut writer,
            5,
            0x0102_0304,
            Disposition::Accept { mark: Some(1001) },
        );
        let message = only(&writer);
        assert_eq!(
            (message.kind, message.flags, message.sequence),
            (0x0301, 1, 0x0102_0304)
        );
        let mut body = vec![0, 0, 0, 5];
        body.extend_from_slice(&12u16.to_ne_bytes());
        body.extend_from_slice(&2u16.to_ne_bytes());
        body.extend_from_slice(&[0, 0, 0, 1, 1, 2, 3, 4]);
        body.extend_from_slice(&8u16.to_ne_bytes());
        body.extend_from_slice(&3u16.to_ne_bytes());
        body.extend_from_slice(&[0, 0, 3, 233]);
        assert_eq!(message.body, body);
    }

    #[test]
    fn a_drop_carries_no_mark() {
        let mut writer = Writer::default();
        verdict(&mut writer, 0, 1, Disposition::Drop);
        assert_eq!(only(&writer).body.len(), 16);
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_packet(&Message { kind: PACKET, flags: 0, sequence: 0, body: &bytes });
        }

        #[test]
        fn a_damaged_packet_is_read_or_refused(at in 16usize..100, value: u8) {
            let writer = packet_message();
            let mut bytes = writer.bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            for message in Messages::new(&bytes).flatten() {
                if let Ok(packet) = read_packet(&message) {
                    prop_assert!(packet.payload.len() <= bytes.len());
                }
            }
        }
    }
}
