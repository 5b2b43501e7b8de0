//! Where sockets were seen: socket inode → process and descriptor.
//!
//! A memory and no truth: what it says is looked at again before it is believed, for numbers of processes, descriptors and
//! inodes are all given anew.

use std::collections::HashMap;

/// Sockets remembered, some 24 bytes each; when one more is seen all are forgotten, and those in use are soon seen again.
const MAX_KNOWN: usize = 1 << 16;

/// A descriptor of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) pid: u32,
    pub(super) fd: u32,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<u32, Spot>);

impl Known {
    pub(super) fn get(&self, inode: u32) -> Option<Spot> {
        self.0.get(&inode).copied()
    }

    pub(super) fn saw(&mut self, inode: u32, spot: Spot) {
        if self.0.len() >= MAX_KNOWN && !self.0.contains_key(&inode) {
            self.0.clear();
        }
        self.0.insert(inode, spot);
    }

    pub(super) fn forget(&mut self, inode: u32) {
        self.0.remove(&inode);
    }
}

/// The lowest unused descriptor numbers of a process, as they were when it was read: the kernel gives the lowest to the next
/// socket.
#[derive(Debug, Default)]
pub(super) struct Unused {
    numbers: Vec<u32>,
    next: u32,
}

/// Unused numbers remembered of a process.
const MAX_UNUSED: usize = 16;

impl Unused {
    /// The next used number, in ascending order.
    pub(super) fn used(&mut self, fd: u32) {
        let room = MAX_UNUSED.saturating_sub(self.numbers.len());
        self.numbers.extend((self.next..fd).take(room));
        self.next = self.next.max(fd.saturating_add(1));
    }

    /// One of them is used by now.
    pub(super) fn taken(&mut self, fd: u32) {
        self.numbers.retain(|&number| number != fd);
    }

    pub(super) fn lowest(&self, count: usize) -> &[u32] {
        &self.numbers[..count.min(self.numbers.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_remembers_more_than_it_may() {
        let mut known = Known::default();
        let max = u32::try_from(MAX_KNOWN).unwrap();
        for inode in 0..max {
            known.saw(inode, Spot { pid: 1, fd: inode });
        }
        known.saw(5, Spot { pid: 2, fd: 5 });
        assert_eq!(
            (known.0.len(), known.get(5)),
            (MAX_KNOWN, Some(Spot { pid: 2, fd: 5 }))
        );
        known.saw(max, Spot { pid: 3, fd: 0 });
        assert_eq!((known.0.len(), known.get(5)), (1, None));
        known.forget(max);
        assert_eq!(known.get(max), None);
    }

    #[test]
    fn gaps_are_the_lowest_numbers_that_are_not_used() {
        let mut unused = Unused::default();
        for fd in [0, 1, 2, 5, 6, 9, 1000] {
            unused.used(fd);
        }
        assert_eq!(unused.lowest(4), [3, 4, 7, 8]);
        assert_eq!(unused.lowest(100).len(), MAX_UNUSED);
        unused.taken(4);
        assert_eq!(unused.lowest(3), [3, 7, 8]);
    }
}
