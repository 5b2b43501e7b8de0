//! A network namespace without a name: held by a descriptor, gone with the last descriptor and process.
//!
//! Threads and processes enter it; it configures nothing by itself, save that the loopback device is up.

use crate::command::checked;
use anyhow::{Context, Result, anyhow};
use rustix::mount::MountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A network namespace.
#[derive(Debug, Clone)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
}

/// What a process of the lab gets beside its namespace.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Runs as this user and group.
    pub uid: Option<u32>,
    /// Has a disk of its own on this directory, with these options of tmpfs.
    pub disk: Option<(PathBuf, String)>,
}

impl NetNs {
    /// Makes a namespace.
    pub fn new() -> Result<Self> {
        let made = std::thread::spawn(|| -> Result<File> {
            unshare_net()
                .context("cannot make a network namespace (run as root or under `unshare -Urnm`)")?;
            File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")
        });
        let fd = made
            .join()
            .map_err(|_| anyhow!("the thread that makes namespaces panicked"))??;
        let ns = Self {
            fd: Arc::new(fd.into()),
        };
        checked(ns.command("ip").args(["link", "set", "lo", "up"]))?;
        Ok(ns)
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.enter_as(None, work)
    }

    /// Like [`NetNs::enter`], as another user: sockets made there are that user's.
    pub fn enter_as<T: Send>(&self, uid: Option<u32>, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    self.join()?;
                    if let Some(uid) = uid {
                        become_user(uid).context("cannot become another user")?;
                    }
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("a thread in a network namespace panicked"))?
        })
    }

    fn join(&self) -> Result<()> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a network namespace")
    }

    /// A command that will run inside the namespace and die with the thread that starts it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_as(program, &Identity::default())
    }

    /// Like [`NetNs::command`], as somebody.
    #[expect(
        unsafe_code,
        reason = "entering a namespace between fork and exec has no safe form"
    )]
    pub fn command_as(&self, program: impl AsRef<OsStr>, identity: &Identity) -> Command {
        let fd = Arc::clone(&self.fd);
        let uid = identity.uid;
        let disk = identity
            .disk
            .as_ref()
            .and_then(|(path, options)| Disk::new(path, options));
        let mut command = Command::new(program);
        // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
                if let Some(disk) = &disk {
                    own_mounts()?;
                    disk.mount()?;
                }
                if let Some(uid) = uid {
                    become_user(uid)?;
                }
                // After the change of user, which would clear it.
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                Ok(())
            });
        }
        command
    }

    /// A path that names the namespace for as long as this process lives and holds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Sets a sysctl of the namespace, e.g. `net.ipv4.ip_forward`.
    pub fn sysctl(&self, name: &str, value: u32) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = value.to_string();
        self.enter(|| std::fs::write(&path, &value))?
            .with_context(|| format!("cannot set {name} = {value}"))
    }
}

#[expect(unsafe_code, reason = "unshare is unsafe in general")]
fn unshare_net() -> rustix::io::Result<()> {
    // SAFETY: a network namespace of its own takes nothing away that another thread relies on; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Changes the calling thread only.
fn become_user(uid: u32) -> rustix::io::Result<()> {
    let (user, group) = (
        rustix::process::Uid::from_raw(uid),
        rustix::process::Gid::from_raw(uid),
    );
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)
}

/// Gives the calling (single-threaded) process mounts of its own.
#[expect(unsafe_code, reason = "unshare is unsafe in general")]
fn own_mounts() -> rustix::io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    // SAFETY: called between fork and exec, where there is one thread; only the view of file systems becomes its own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// A tmpfs, ready to be mounted without allocating.
struct Disk {
    path: CString,
    options: CString,
    flags: MountFlags,
}

impl Disk {
    fn new(path: &Path, options: &str) -> Option<Self> {
        let read_only = options.split(',').any(|option| option == "ro");
        let kept: Vec<_> = options.split(',').filter(|option| *option != "ro").collect();
        Some(Self {
            path: c_path(path)?,
            options: CString::new(kept.join(",")).ok()?,
            flags: if read_only {
                MountFlags::RDONLY
            } else {
                MountFlags::empty()
            },
        })
    }

    fn mount(&self) -> rustix::io::Result<()> {
        rustix::mount::mount(
            c"tmpfs",
            self.path.as_c_str(),
            c"tmpfs",
            self.flags,
            self.options.as_c_str(),
        )
    }
}

fn c_path(path: &Path) -> Option<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).ok()
}
