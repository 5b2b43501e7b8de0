//! Network namespaces, each held by a thread: what runs on the thread happens in the namespace.

use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub(crate) struct Netns {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    tid: i32,
}

impl Netns {
    /// Makes one; `Err` says why that is not permitted.
    pub(crate) fn new() -> Result<Self, String> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            #[expect(unsafe_code, reason = "the call cannot be expressed safely")]
            // SAFETY: a new network namespace affects this thread alone and no descriptor or memory of others.
            let made = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
            let failed = made.is_err();
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            tell.send(made.map(|()| tid)).unwrap();
            if failed {
                return;
            }
            for job in work {
                job();
            }
        });
        match told.recv().unwrap() {
            Ok(tid) => {
                let netns = Self {
                    jobs: Some(jobs),
                    thread: Some(thread),
                    tid,
                };
                netns.sh("ip link set lo up");
                Ok(netns)
            }
            Err(error) => Err(format!("no network namespace can be made here: {error}")),
        }
    }

    /// Runs `job` in the namespace.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.jobs
            .as_ref()
            .unwrap()
            .send(Box::new(move || {
                let _ = tell.send(job());
            }))
            .unwrap();
        told.recv().expect("the job failed")
    }

    /// Runs a shell script in the namespace; it must succeed. Returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(
            output.status.success(),
            "{script}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell script in the namespace.
    pub(crate) fn try_sh(&self, script: &str) -> Output {
        let script = script.to_owned();
        self.run(move || Command::new("sh").args(["-ec", &script]).output().unwrap())
    }

    /// The id by which `ip link set … netns` finds it.
    pub(crate) fn tid(&self) -> i32 {
        self.tid
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Client (`10.1.0.2`, `fd01::2`), gateway (`10.1.0.1`, `10.2.0.1`) and server (`10.2.0.2`, `fd02::2`) in a row.
pub(crate) struct Lab {
    pub(crate) client: Netns,
    pub(crate) gateway: Netns,
    pub(crate) server: Netns,
}

impl Lab {
    /// Builds it, conntrack's settings included; `Err` says why not.
    pub(crate) fn new() -> Result<Self, String> {
        let lab = Self {
            client: Netns::new()?,
            gateway: Netns::new()?,
            server: Netns::new()?,
        };
        for (host, side, net) in [(&lab.client, "c", 1), (&lab.server, "s", 2)] {
            let tid = host.tid();
            lab.gateway.sh(&format!(
                "ip link add g{side} type veth peer name {side}0 netns {tid}"
            ));
            lab.gateway.sh(&format!(
                "ip addr add 10.{net}.0.1/24 dev g{side}; ip addr add fd0{net}::1/64 dev g{side} nodad; ip link set g{side} up"
            ));
            host.sh(&format!(
                "ip addr add 10.{net}.0.2/24 dev {side}0; ip addr add fd0{net}::2/64 dev {side}0 nodad; ip link set {side}0 up
                 ip route add default via 10.{net}.0.1; ip route add default via fd0{net}::1"
            ));
        }
        lab.gateway
            .sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        // The settings first: a mask that is made while events are "automatic" and nobody listens masks nothing.
        lab.gateway.sh(
            "sysctl -qw net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_timestamp=1 net.netfilter.nf_conntrack_events=1
             iptables -t raw -A PREROUTING -j CT --ctevents new,related,reply,destroy
             ip6tables -t raw -A PREROUTING -j CT --ctevents new,related,reply,destroy",
        );
        Ok(lab)
    }

    /// Makes the kernel look at its table, which ends what has timed out.
    pub(crate) fn reap(&self) {
        self.gateway
            .try_sh("conntrack -L >/dev/null 2>&1; conntrack -L -f ipv6 >/dev/null 2>&1");
    }

    /// Tries to connect from the client by TCP.
    pub(crate) fn connect(&self, to: &str, timeout: Duration) -> std::io::Result<std::net::TcpStream> {
        let to = to.parse().unwrap();
        self.client
            .run(move || std::net::TcpStream::connect_timeout(&to, timeout))
    }

    /// Listens on the server by TCP.
    pub(crate) fn listen(&self, on: &str) -> std::net::TcpListener {
        let on = on.to_owned();
        self.server.run(move || std::net::TcpListener::bind(on).unwrap())
    }
}
