//! Makes a running process do a system call that it would never do, as code that took it over could: by ptrace(2).
//!
//! The call is the process's own: its user, its capabilities, its filters and its Landlock rules judge it. x86-64 alone.

use anyhow::{Context, Result, bail, ensure};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

/// Below the stack's end, beyond the 128 bytes that the ABI lets a function use there.
const SCRATCH: u64 = 4096;
/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// An argument of a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Number(i64),
    /// A pointer to this text, which ends with a zero byte.
    Text(&'a str),
}

/// A process whose main thread stands still.
pub(crate) struct Taken {
    pid: libc::pid_t,
    memory: std::fs::File,
    registers: libc::user_regs_struct,
}

impl Taken {
    /// Stops the main thread where it waits in a system call.
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .context("its memory")?;
        let pid = libc::pid_t::try_from(pid)?;
        request(libc::PTRACE_ATTACH, pid, 0).context("PTRACE_ATTACH")?;
        wait_stop(pid)?;
        let registers = registers(pid)?;
        let taken = Self {
            pid,
            memory,
            registers,
        };
        let mut code = [0; 2];
        taken.memory.read_exact_at(&mut code, registers.rip - 2)?;
        ensure!(code == SYSCALL, "the thread does not wait in a system call");
        Ok(taken)
    }

    /// Does the system call; the kernel's answer, or its error.
    pub(crate) fn call(&self, number: libc::c_long, arguments: &[Arg<'_>]) -> Result<io::Result<i64>> {
        let mut scratch = self.registers.rsp - SCRATCH;
        let mut values = [0_u64; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Arg::Number(number) => number.cast_unsigned(),
                Arg::Text(text) => {
                    let bytes = [text.as_bytes(), b"\0"].concat();
                    self.memory.write_all_at(&bytes, scratch)?;
                    let at = scratch;
                    scratch += bytes.len() as u64;
                    at
                }
            };
        }
        let mut set = self.registers;
        [set.rdi, set.rsi, set.rdx, set.r10, set.r8, set.r9] = values;
        set.rax = number.cast_unsigned();
        // No system call that the kernel would begin again.
        set.orig_rax = u64::MAX;
        set.rip -= 2;
        set_registers(self.pid, &set)?;
        request(libc::PTRACE_SINGLESTEP, self.pid, 0).context("PTRACE_SINGLESTEP")?;
        wait_stop(self.pid)?;
        let answer = registers(self.pid)?.rax.cast_signed();
        Ok(if (-4095..0).contains(&answer) {
            Err(io::Error::from_raw_os_error(i32::try_from(-answer)?))
        } else {
            Ok(answer)
        })
    }

    /// The error of a system call that fails; 0 when it does not.
    pub(crate) fn error(&self, number: libc::c_long, arguments: &[Arg<'_>]) -> Result<i32> {
        Ok(match self.call(number, arguments)? {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // It goes on with the system call that it was in.
        set_registers(self.pid, &self.registers).ok();
        request(libc::PTRACE_DETACH, self.pid, 0).ok();
    }
}

#[expect(unsafe_code, reason = "no dependency wraps ptrace")]
fn request(what: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: these requests take numbers alone; address and data are not followed.
    let result = unsafe { libc::ptrace(what, pid, 0_usize, data) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[expect(unsafe_code, reason = "no dependency wraps ptrace")]
fn registers(pid: libc::pid_t) -> Result<libc::user_regs_struct> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::uninit();
    // SAFETY: PTRACE_GETREGS writes one `struct user_regs_struct` to `data`, which has room for it.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0_usize, registers.as_mut_ptr()) };
    if result < 0 {
        bail!("PTRACE_GETREGS: {}", io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled it, since the call succeeded.
    Ok(unsafe { registers.assume_init() })
}

#[expect(unsafe_code, reason = "no dependency wraps ptrace")]
fn set_registers(pid: libc::pid_t, registers: &libc::user_regs_struct) -> Result<()> {
    // SAFETY: PTRACE_SETREGS reads one `struct user_regs_struct` from `data`.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0_usize, &raw const *registers) };
    if result < 0 {
        bail!("PTRACE_SETREGS: {}", io::Error::last_os_error());
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "rustix does not wait for a traced process that is no child"
)]
fn wait_stop(pid: libc::pid_t) -> Result<()> {
    let mut status = 0;
    // SAFETY: waitpid writes one integer, which is there.
    let result = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    if result != pid {
        bail!("waitpid: {}", io::Error::last_os_error());
    }
    ensure!(libc::WIFSTOPPED(status), "the process ended: status {status:#x}");
    Ok(())
}
