//! Network namespaces, each lived in by one thread, and the traffic to send through them.

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a test waits for what must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// A network namespace. Everything that is run in it is run by its one thread; programs and threads started there
/// live in it too.
pub(crate) struct Netns {
    tid: u32,
    work: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

#[expect(
    unsafe_code,
    reason = "the system call is unsafe for what it could do to descriptors"
)]
fn leave_the_namespace() -> std::io::Result<()> {
    // SAFETY: a new network namespace changes neither memory nor descriptors.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.map_err(Into::into)
}

/// Whether namespaces can be made here; says loudly what to do if not.
pub(crate) fn permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let tried = std::thread::spawn(leave_the_namespace).join().unwrap();
        if let Err(error) = &tried {
            // Not through the test harness, which would keep it to itself.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** SKIPPED: no network namespace can be made here ({error}). Run as root, or:\n\
                 ***     unshare -Urnm cargo test -p nufw-agent --test kernel\n"
            );
        }
        tried.is_ok()
    })
}

impl Netns {
    /// A namespace of its own, with loopback up.
    pub(crate) fn new() -> Self {
        let (work, jobs) = mpsc::channel::<Job>();
        let (started, tid) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            leave_the_namespace().unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            started.send(tid.unsigned_abs()).unwrap();
            for job in jobs {
                job();
            }
        });
        let netns = Self {
            tid: tid.recv().unwrap(),
            work: Some(work),
            thread: Some(thread),
        };
        netns.sh("ip link set lo up");
        netns
    }

    /// Runs something inside.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = done.send(job());
        });
        self.work.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the job in the namespace failed, see above")
    }

    /// Runs a shell script inside; it must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move || sh(&script))
    }

    /// Makes a pair of interfaces, one end in each namespace.
    pub(crate) fn link(&self, name: &str, other: &Self, other_name: &str) {
        self.sh(&format!(
            "ip link add {name} type veth peer name {other_name}; ip link set {other_name} netns {}; \
             ip link set {name} up",
            other.tid
        ));
        other.sh(&format!("ip link set {other_name} up"));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a shell script in the namespace of the calling thread; it must succeed.
pub(crate) fn sh(script: &str) -> String {
    let mut child = Command::new("sh")
        .args(["-eu"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A runtime for one thread, as the agent's.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A UDP socket on loopback that waits `SILENCE` for a datagram.
pub(crate) fn receiver(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

/// Everything that has arrived.
pub(crate) fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| {
        socket
            .recv(&mut buffer)
            .ok()
            .map(|length| buffer[..length].to_vec())
    })
    .collect()
}
