//! What a worker must leave to its successor: the events that the server has not acknowledged, in memory that outlives it.
//!
//! A memfd that the supervisor keeps and never reads as memory. One worker at a time maps it. Whatever is found in it is
//! checked like a message: at worst the events in it are forgotten, and the agent begins a new boot.

use nufw_proto::gateway::{Gap, GapCause};
use nufw_proto::{BootId, CtEvent, EventSeq, Timestamp};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names the layout, and with it the encoding of [`CtEvent`]; another number for each change of either.
const LAYOUT: u64 = u64::from_be_bytes(*b"nufwEv02");
/// Bytes of the header.
const HEADER: usize = 4096;
/// Datagrams that may be in hand: read from the event socket, and not yet among the events.
pub(crate) const IN_HAND: usize = 64;
/// Bytes of a datagram in hand; an event has about 300.
const DATAGRAM: usize = 4096;
/// Bytes before it: the number of the first event that it can be.
const DATAGRAM_HEADER: usize = 8;
/// Bytes of a slot for an event: its number, the length of its encoding, its encoding.
const SLOT: usize = 256;
/// Where the slots begin.
const SLOTS: usize = HEADER + IN_HAND * DATAGRAM;
/// Pages are given back in pieces of so many slots: a megabyte.
const PIECE: u64 = 4096;
/// Slots beyond the events that may be unacknowledged: those that are written before the oldest are forgotten, and a piece,
/// so that none is given back that is in use again.
const SPARE: usize = 1024 + 4096;

/// No event has a number beyond this; there is room for more than will ever be added.
const LAST: u64 = 1 << 62;

/// Numbers in the header, by their position.
#[derive(Clone, Copy)]
enum Field {
    Layout,
    Boot,
    Slots,
    /// The oldest event that is kept.
    First,
    /// The event after the last that is kept.
    Next,
    /// Workers that had this memory.
    Workers,
    /// Since when events are missing, in microseconds, and the event that followed; 0 when none are.
    GapFrom,
    GapBefore,
}

/// Where the ids of the last packets that were read begin in the header, one for each queue.
const PACKETS: usize = 512;
/// Most queues for which there is one.
const MAX_PACKETS: usize = (HEADER - PACKETS) / 8;

/// The number of slots for so many unacknowledged events.
fn slots_for(max_unacknowledged: usize) -> usize {
    max_unacknowledged + SPARE
}

fn size_of(slots: usize) -> usize {
    SLOTS + slots * SLOT
}

/// Makes an empty memory for a boot. Its size cannot be changed afterwards, so that no mapping of it can fault.
pub(super) fn make(boot: BootId, max_unacknowledged: usize) -> io::Result<OwnedFd> {
    let memory = memfd_create(
        "nufw-agent-events",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let slots = slots_for(max_unacknowledged);
    ftruncate(&memory, size_of(slots) as u64)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    for (field, value) in [
        (Field::Layout, LAYOUT),
        (Field::Boot, boot.0),
        (Field::Slots, slots as u64),
        (Field::First, 1),
        (Field::Next, 1),
    ] {
        rustix::io::pwrite(&memory, &value.to_ne_bytes(), 8 * field as u64)?;
    }
    Ok(memory)
}

fn peek(memory: BorrowedFd<'_>, field: Field) -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::io::pread(memory, &mut bytes, 8 * field as u64)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Whether a memory that was kept is one that a worker of this program can go on with.
pub(super) fn fits(memory: BorrowedFd<'_>, max_unacknowledged: usize) -> bool {
    let slots = slots_for(max_unacknowledged);
    rustix::fs::fstat(memory).is_ok_and(|stat| usize::try_from(stat.st_size) == Ok(size_of(slots)))
        && peek(memory, Field::Layout).is_ok_and(|layout| layout == LAYOUT)
        && peek(memory, Field::Slots).is_ok_and(|found| found == slots as u64)
}

/// The id of the last packet that a worker has noted of a queue, by its place among the queues.
pub(super) fn last_packet(memory: BorrowedFd<'_>, place: usize) -> u32 {
    let mut bytes = [0; 4];
    let at = PACKETS + 8 * place.min(MAX_PACKETS - 1);
    match rustix::io::pread(memory, &mut bytes, at as u64) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => 0,
    }
}

/// Shared memory, mapped by this process alone.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

#[expect(unsafe_code, reason = "memory that was mapped is a pointer")]
// SAFETY: the mapping belongs to the process, not to a thread, and whoever has it has it alone.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes from `offset`, which must lie within the file.
    fn new(memory: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "no crate in use maps memory")]
        // SAFETY: the kernel chooses a free place, so that no other memory is replaced.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                offset as u64,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    fn bytes(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "memory that was mapped is a pointer")]
        // SAFETY: the mapping is this long, lives as long as self, and cannot fault because its file is sealed. The
        // supervisor lets one worker live at a time, and the parts that one worker maps do not overlap.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length)
        }
    }

    /// Sets a number after everything that was written before: whoever finds the one finds the other.
    fn publish(&mut self, field: Field, value: u64) {
        let at = 8 * field as usize;
        debug_assert!(at + 8 <= self.length);
        #[expect(unsafe_code, reason = "memory that was mapped is a pointer")]
        // SAFETY: within the mapping, whose beginning is aligned to a page; nothing else refers to it at this time.
        let number = unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) };
        number.store(value, Ordering::Release);
    }

    fn number(&mut self, field: Field) -> u64 {
        number_at(self.bytes(), 8 * field as usize)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "no crate in use maps memory")]
        // SAFETY: it is this process's own mapping, and nothing that borrowed from it is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_ne_bytes).unwrap_or_default()
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}

/// Where the datagrams that are in hand lie. The kernel writes each straight into it.
#[derive(Debug)]
pub struct Hand {
    memory: Mapping,
    next: u64,
}

impl Hand {
    /// What follows are datagrams of which the first event would have this number.
    pub(crate) fn hold(&mut self, next: EventSeq) {
        self.next = next.0;
    }

    /// A place for a datagram. Until one is in it, it counts as empty.
    pub(crate) fn place(&mut self, index: usize) -> &mut [u8] {
        let next = self.next;
        let at = (index % IN_HAND) * DATAGRAM;
        let place = self.memory.bytes().get_mut(at..at + DATAGRAM).unwrap_or_default();
        // The length of a netlink message is its beginning, and never 0.
        put(place, DATAGRAM_HEADER, &[0; 4]);
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        put(place, 0, &next.to_ne_bytes());
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        place.get_mut(DATAGRAM_HEADER..).unwrap_or_default()
    }

    /// Datagrams that were read when `next` was the next event, and did not become one before their reader died.
    fn left(&mut self, next: u64) -> Vec<Vec<u8>> {
        let bytes: &[u8] = self.memory.bytes();
        let (places, _) = bytes.as_chunks::<DATAGRAM>();
        places
            .iter()
            .filter(|place| number_at(*place, 0) == next)
            .filter_map(|place| {
                let datagram = place.get(DATAGRAM_HEADER..)?;
                let length = u32::from_ne_bytes(*datagram.first_chunk()?);
                let length = usize::try_from(length).ok()?.min(datagram.len());
                (length > 0).then(|| datagram.get(..length).unwrap_or_default().to_vec())
            })
            .collect()
    }
}

/// The events, and what else is noted.
#[derive(Debug)]
pub struct Memory {
    descriptor: OwnedFd,
    header: Mapping,
    slots: Mapping,
    count: u64,
    first: u64,
    next: u64,
}

/// What a predecessor left.
#[derive(Debug, Default)]
pub struct Left {
    /// The oldest event's number, or that of the next.
    pub first: u64,
    /// Unacknowledged events in their order.
    pub events: Vec<CtEvent>,
    /// Datagrams from the event socket that follow them.
    pub datagrams: Vec<Vec<u8>>,
    /// Events were missing, and the server may not know.
    pub gap: Option<Gap>,
    /// How many workers had this memory before.
    pub predecessors: u32,
}

impl Memory {
    /// Maps a memory that [`fits`], and reads what is in it. `boot` is the number of the boot that begins when that makes
    /// no sense.
    pub fn open(descriptor: OwnedFd, boot: BootId, now: Timestamp) -> io::Result<(Self, Hand, Left)> {
        let mut header = Mapping::new(descriptor.as_fd(), 0, HEADER)?;
        let count = header.number(Field::Slots);
        let size = usize::try_from(rustix::fs::fstat(&descriptor)?.st_size).unwrap_or_default();
        // The size is sealed; what the header says of it is whatever a predecessor wrote there.
        let slots = size.saturating_sub(SLOTS) / SLOT;
        if header.number(Field::Layout) != LAYOUT
            || slots == 0
            || count != slots as u64
            || size != size_of(slots)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is of another version",
            ));
        }
        let mut memory = Self {
            slots: Mapping::new(descriptor.as_fd(), SLOTS, slots * SLOT)?,
            first: header.number(Field::First),
            next: header.number(Field::Next),
            header,
            count,
            descriptor,
        };
        let mut hand = Hand {
            memory: Mapping::new(memory.descriptor.as_fd(), HEADER, IN_HAND * DATAGRAM)?,
            next: memory.next,
        };
        let mut left = if let Some(events) = memory.read() {
            Left {
                first: memory.first,
                events,
                datagrams: hand.left(memory.next),
                gap: memory.gap(now),
                predecessors: 0,
            }
        } else {
            tracing::warn!(
                "what former workers left makes no sense; their events are made good by a comparison"
            );
            memory.begin_anew(boot);
            Left {
                first: 1,
                ..Left::default()
            }
        };
        let workers = memory.header.number(Field::Workers);
        left.predecessors = u32::try_from(workers).unwrap_or(u32::MAX);
        memory.header.publish(Field::Workers, workers.wrapping_add(1));
        Ok((memory, hand, left))
    }

    /// The boot whose events these are.
    pub fn boot(&mut self) -> BootId {
        BootId(self.header.number(Field::Boot))
    }

    fn begin_anew(&mut self, boot: BootId) {
        (self.first, self.next) = (1, 1);
        self.header.publish(Field::GapFrom, 0);
        self.header.publish(Field::Boot, boot.0);
        self.header.publish(Field::First, 1);
        self.header.publish(Field::Next, 1);
    }

    fn read(&mut self) -> Option<Vec<CtEvent>> {
        let kept = self.next.checked_sub(self.first)?;
        if self.first == 0 || kept > self.count || self.next > LAST {
            return None;
        }
        (self.first..self.next)
            .map(|sequence| self.event(sequence))
            .collect()
    }

    fn place(&mut self, sequence: u64) -> &mut [u8] {
        let at = usize::try_from(sequence % self.count).unwrap_or_default() * SLOT;
        self.slots.bytes().get_mut(at..at + SLOT).unwrap_or_default()
    }

    fn event(&mut self, sequence: u64) -> Option<CtEvent> {
        let slot = self.place(sequence);
        if number_at(slot, 0) != sequence {
            return None;
        }
        let length = u16::from_ne_bytes(slot.get(8..10)?.try_into().ok()?);
        let encoded = slot.get(10..10 + usize::from(length))?;
        postcard::from_bytes(encoded).ok()
    }

    fn gap(&mut self, now: Timestamp) -> Option<Gap> {
        let from = self.header.number(Field::GapFrom).cast_signed();
        (from != 0).then_some(Gap {
            from: Timestamp::from_micros(from),
            to: now,
            cause: GapCause::NetlinkOverrun,
        })
    }

    /// The number of the event that is added next.
    pub fn next(&self) -> EventSeq {
        EventSeq(self.next)
    }

    /// Adds an event; [`Self::commit`] makes it count.
    pub fn add(&mut self, event: &CtEvent) {
        let sequence = self.next;
        let slot = self.place(sequence);
        put(slot, 0, &sequence.to_ne_bytes());
        let length = match slot.get_mut(10..).map(|place| postcard::to_slice(event, place)) {
            Some(Ok(encoded)) => u16::try_from(encoded.len()).unwrap_or(u16::MAX),
            // A test holds the largest event against the slot.
            _ => u16::MAX,
        };
        put(self.place(sequence), 8, &length.to_ne_bytes());
        self.next += 1;
    }

    /// What was added is there for a successor, and what is before `first` need not be.
    pub fn commit(&mut self, first: EventSeq) {
        self.keep_from(first);
        self.header.publish(Field::Next, self.next);
    }

    /// Forgets what the server has.
    pub fn keep_from(&mut self, first: EventSeq) {
        let (former, first) = (self.first, first.0.min(self.next));
        if first <= former {
            return;
        }
        self.first = first;
        self.header.publish(Field::First, first);
        if self.header.number(Field::GapBefore) < first {
            self.header.publish(Field::GapFrom, 0);
        }
        for piece in former / PIECE..first / PIECE {
            self.give_back(piece);
        }
    }

    /// Events are missing before the next one.
    pub fn note_gap(&mut self, from: Timestamp) {
        if self.header.number(Field::GapFrom) == 0 {
            self.header.publish(Field::GapFrom, from.micros().cast_unsigned());
        }
        self.header.publish(Field::GapBefore, self.next);
    }

    /// Notes the id of a packet that was read from a queue, by its place among the queues.
    pub fn note_packet(&mut self, place: usize, packet_id: u32) {
        let at = PACKETS + 8 * place.min(MAX_PACKETS - 1);
        put(self.header.bytes(), at, &packet_id.to_ne_bytes());
    }

    /// Gives back the pages of a piece of the sequence that is wholly forgotten, where its slots lie in one run.
    fn give_back(&mut self, piece: u64) {
        let begin = piece * PIECE % self.count;
        if begin + PIECE > self.count {
            return;
        }
        let offset = SLOTS as u64 + begin * SLOT as u64;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&self.descriptor, punch, offset, PIECE * SLOT as u64) {
            tracing::debug!(%error, "memory of forgotten events is not given back");
        }
    }
}

#[cfg(test)]
mod tests;
