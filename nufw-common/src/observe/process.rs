//! What every process can tell of itself, under the names that Prometheus gives it everywhere.
//!
//! Reads `/proc/self` (proc(5)); what cannot be read is absent.

use serde::{Deserialize, Serialize};

/// This process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it began, seconds since 1970.
    pub started: u64,
    /// Resident memory, bytes.
    pub resident: Option<u64>,
    /// Descriptors that it has open.
    pub descriptors: Option<u64>,
}

impl Process {
    /// Looks at this process, which began at `started`, seconds since 1970.
    pub fn look(started: u64) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            pid: std::process::id(),
            started,
            resident: resident(&status),
            // The look itself holds one.
            descriptors: std::fs::read_dir("/proc/self/fd")
                .ok()
                .and_then(|entries| u64::try_from(entries.count()).ok())
                .map(|count| count.saturating_sub(1)),
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory_and_descriptors() {
        let process = Process::look(7);
        assert_eq!((process.pid, process.started), (std::process::id(), 7));
        assert!(process.resident.unwrap() > 100_000, "{process:?}");
        let held = std::fs::File::open("/proc/self/status").unwrap();
        assert!(process.descriptors.unwrap() >= 3, "{process:?}");
        drop(held);
        assert_eq!(resident("VmRSS:\t 12 kB\n"), Some(12_288));
        assert_eq!(resident("VmRSS: much\n"), None);
    }
}
