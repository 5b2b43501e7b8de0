//! Who is at the other end of a Unix socket, beyond its user and first group; and groups by name.
//!
//! What a group may do is its caller's business.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Groups that are read at once; a process with more of them costs one more call.
const USUAL: usize = 64;

/// The number of a group of this system, by name or as a number.
pub fn group_number(name: &str) -> Option<u32> {
    name.parse()
        .ok()
        .or_else(|| uzers::get_group_by_name(name).map(|group| group.gid()))
}

/// The supplementary groups that the peer of a Unix socket had when it connected (`SO_PEERGROUPS`, unix(7)).
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; USUAL];
    loop {
        let (result, count) = ask(&socket, &mut groups);
        match result {
            Ok(()) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Fills the list, and tells how many there are.
#[expect(unsafe_code, reason = "no dependency wraps SO_PEERGROUPS")]
fn ask(socket: &impl AsFd, groups: &mut [libc::gid_t]) -> (io::Result<()>, usize) {
    let mut length = libc::socklen_t::try_from(size_of_val(groups)).unwrap_or(0);
    // SAFETY: the pointer is to `length` bytes that this function may write, and `length` to a length of its own; the
    // descriptor is open as long as it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let error = if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    };
    let count = usize::try_from(length).unwrap_or(0) / size_of::<libc::gid_t>();
    (error, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_groups_of_a_peer_are_those_of_its_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut told = peer_groups(&one).unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        told.sort_unstable();
        own.sort_unstable();
        assert_eq!(told, own);
    }

    #[test]
    fn a_group_has_a_number() {
        assert_eq!(group_number("root"), Some(0));
        assert_eq!(group_number("4711"), Some(4711));
        assert_eq!(group_number("no such group, surely"), None);
    }
}
