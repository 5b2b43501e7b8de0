//! The part of a profile that seccomp enforces: which system calls exist for the daemon at all.
//!
//! A list of what is allowed, not of what is forbidden: a call that a later kernel brings is refused. A refused call fails
//! with EPERM and is told to the kernel's audit log; the daemon is not killed for it, since while it is away nothing passes.

use super::{Family, Profile, SandboxError};
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// Memory, threads, time, signals, reading and writing what is open, looking at files.
const ALWAYS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    // Of what is open for writing, memory that is shared or handed on included.
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setpriority,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
    // Answered with ENOSYS by the second filter, so that the C library uses clone.
    libc::SYS_clone3,
];

/// Older names of the same, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALWAYS_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getpgrp,
    libc::SYS_lstat,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OLD: &[c_long] = &[];

/// Sockets, besides making them.
const SOCKETS: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Changing files.
const WRITING: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sync_file_range,
    libc::SYS_unlinkat,
];
#[cfg(target_arch = "x86_64")]
const WRITING_OLD: &[c_long] = &[libc::SYS_chmod, libc::SYS_rename, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const WRITING_OLD: &[c_long] = &[];

/// Starting programs, waiting for them, ending them.
const STARTING: &[c_long] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_tgkill,
    libc::SYS_wait4,
    libc::SYS_waitid,
];
#[cfg(target_arch = "x86_64")]
const STARTING_OLD: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const STARTING_OLD: &[c_long] = &[];

/// Giving up more. Who a child is, is its parent's user: nothing changes that.
const CONFINING: &[c_long] = &[
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_memfd_create,
    libc::SYS_seccomp,
];

/// What a process may do to itself by `prctl(2)`: names of threads and memory, and looking.
const PRCTL: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_CAPBSET_READ,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_GET_DUMPABLE,
];
/// And where it starts programs: what becomes of them, and which capabilities they get.
const PRCTL_STARTING: &[i32] = &[libc::PR_SET_PDEATHSIG, libc::PR_CAP_AMBIENT];
/// And where its children confine themselves.
const PRCTL_CONFINING: &[i32] = &[libc::PR_SET_NO_NEW_PRIVS];

/// Levels of `setsockopt(2)` that are about connections of one's own, where sockets are shared.
const OWN_LEVELS: &[i32] = &[libc::IPPROTO_IP, libc::IPPROTO_TCP, libc::IPPROTO_IPV6];
/// And options of every socket that change nothing for the others: no filter, no size of a buffer.
const OWN_OPTIONS: &[i32] = &[libc::SO_KEEPALIVE, libc::SO_LINGER, libc::SO_REUSEADDR];

/// Requests of `ioctl(2)`: blocking or not, how much can be read, closing at exec, is it a terminal, names of interfaces.
const IOCTL: &[u64] = &[
    libc::FIONBIO,
    libc::FIONREAD,
    libc::FIOCLEX,
    libc::TCGETS,
    libc::TIOCGWINSZ,
    libc::SIOCGIFNAME,
    libc::SIOCGIFINDEX,
    libc::SIOCGIFFLAGS,
];

/// Every flag of `clone(2)` that makes a namespace.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
/// `__O_TMPFILE` of asm-generic/fcntl.h: the bit of `O_TMPFILE` that makes a file.
const TMPFILE: i32 = 0o20_000_000;
/// Flags of `open(2)` that let a file be changed or made.
const OPEN_TO_CHANGE: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | TMPFILE) as u64;
/// The bits of a socket's type that are no flags (`socket(2)`).
const SOCKET_TYPE: u64 = 0xf;

/// Installs the filter and says how many system calls it knows.
pub(super) fn restrict(profile: &Profile) -> Result<usize, SandboxError> {
    let failed = |error: seccompiler::BackendError| SandboxError::Calls(error.to_string());
    let allowed = rules(profile).map_err(failed)?;
    let count = allowed.len();
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let list = compile(allowed, errno(libc::EPERM), SeccompAction::Allow).map_err(failed)?;
    // Flags of clone3 are in memory, where a filter cannot look: a C library that is told that there is none uses clone.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = compile(no_clone3, SeccompAction::Allow, errno(libc::ENOSYS)).map_err(failed)?;
    for program in [no_clone3, list] {
        install(&program).map_err(|error| SandboxError::Calls(error.to_string()))?;
    }
    Ok(count)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn rules(profile: &Profile) -> Result<Rules, seccompiler::BackendError> {
    let starts = !profile.execute.is_empty() || profile.confines_children;
    let writes = !profile.write.is_empty() || !profile.sockets.is_empty();
    let mut rules = Rules::new();
    let mut allow = |calls: &[c_long]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    allow(ALWAYS);
    allow(ALWAYS_OLD);
    if !profile.families.is_empty() {
        allow(SOCKETS);
    }
    if writes {
        allow(WRITING);
        allow(WRITING_OLD);
    }
    if starts {
        allow(STARTING);
        allow(STARTING_OLD);
    }
    if profile.confines_children {
        allow(CONFINING);
    }
    if writes || starts {
        // Which files is Landlock's part.
        allow(&[libc::SYS_openat]);
        #[cfg(target_arch = "x86_64")]
        allow(&[libc::SYS_open]);
    } else {
        rules.insert(libc::SYS_openat, vec![all(&[masked(2, OPEN_TO_CHANGE, 0)?])?]);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, vec![all(&[masked(1, OPEN_TO_CHANGE, 0)?])?]);
    }
    // Threads and processes, but in no namespace of their own.
    rules.insert(libc::SYS_clone, vec![all(&[masked(0, NAMESPACES, 0)?])?]);
    // No memory that can be written becomes code.
    let (write, execute) = (libc::PROT_WRITE.unsigned_abs(), libc::PROT_EXEC.unsigned_abs());
    rules.insert(
        libc::SYS_mmap,
        vec![
            all(&[masked(2, execute.into(), 0)?])?,
            all(&[masked(2, write.into(), 0)?])?,
        ],
    );
    rules.insert(libc::SYS_mprotect, vec![all(&[masked(2, execute.into(), 0)?])?]);
    // Signals to the process itself: abort. To others, only where it starts them, and then within its sandbox.
    let own = u64::from(std::process::id());
    if !starts {
        rules.insert(libc::SYS_tgkill, vec![all(&[equal(0, own)?])?]);
    }
    // Its own limits: looking and lowering.
    rules.insert(
        libc::SYS_prlimit64,
        vec![all(&[equal(0, 0)?])?, all(&[equal(0, own)?])?],
    );
    let mut options = PRCTL.to_vec();
    if starts {
        options.extend(PRCTL_STARTING);
    }
    if profile.confines_children {
        options.extend(PRCTL_CONFINING);
    }
    let options = options
        .iter()
        .map(|option| all(&[equal(0, u64::from(option.unsigned_abs()))?]));
    rules.insert(libc::SYS_prctl, options.collect::<Result<_, _>>()?);
    let requests = IOCTL.iter().map(|request| all(&[equal(1, *request)?]));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    let mut sockets = Vec::new();
    for family in &profile.families {
        sockets.extend(socket_rules(*family)?);
    }
    if !sockets.is_empty() {
        rules.insert(libc::SYS_socket, sockets);
    }
    // Pairs, by which the runtime wakes itself.
    let unix = u64::from(libc::AF_UNIX.unsigned_abs());
    rules.insert(libc::SYS_socketpair, vec![all(&[equal(0, unix)?])?]);
    if profile.shares_sockets {
        rules.remove(&libc::SYS_bind);
        rules.remove(&libc::SYS_listen);
        let socket = u64::from(libc::SOL_SOCKET.unsigned_abs());
        let levels = OWN_LEVELS
            .iter()
            .map(|level| all(&[equal(1, u64::from(level.unsigned_abs()))?]));
        let options = OWN_OPTIONS
            .iter()
            .map(|option| all(&[equal(1, socket)?, equal(2, u64::from(option.unsigned_abs()))?]));
        rules.insert(
            libc::SYS_setsockopt,
            levels.chain(options).collect::<Result<_, _>>()?,
        );
    }
    // A pair is read and written as any descriptor, by std with these.
    for call in [
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
    ] {
        rules.entry(call).or_default();
    }
    Ok(rules)
}

fn socket_rules(family: Family) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let number = |value: i32| u64::from(value.unsigned_abs());
    let mut rules = Vec::new();
    match family {
        Family::Unix => rules.push(all(&[equal(0, number(libc::AF_UNIX))?])?),
        Family::Internet => {
            for domain in [libc::AF_INET, libc::AF_INET6] {
                for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
                    rules.push(all(&[
                        equal(0, number(domain))?,
                        masked(1, SOCKET_TYPE, number(kind))?,
                    ])?);
                }
            }
        }
        Family::Netlink => {
            for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_NETFILTER] {
                rules.push(all(&[
                    equal(0, number(libc::AF_NETLINK))?,
                    equal(2, number(protocol))?,
                ])?);
            }
        }
    }
    Ok(rules)
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    // The kernel takes these arguments as 32-bit numbers, whatever the upper half holds.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )
}

fn all(conditions: &[SeccompCondition]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.to_vec())
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()
}

/// Installs a program for the calling thread, with refusals told to the audit log (`SECCOMP_FILTER_FLAG_LOG`), which the
/// crate's own function does not ask for.
fn install(program: &BpfProgram) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let arguments = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    #[expect(unsafe_code, reason = "no dependency installs a filter with this flag")]
    // SAFETY: seccomp(2) copies `len` instructions from `filter`, both of the same live vector, and writes nothing. The two
    // types of an instruction are the kernel's `struct sock_filter`, both repr(C).
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_LOG,
            &raw const arguments,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
