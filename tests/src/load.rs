//! The load generator: many short TCP connections from explicit source addresses and ports, on one thread.
//!
//! It measures `connect()` alone, and runs as a process of its own so that a client finds it as a program.

use crate::wait::now;
use anyhow::{Context, Result, bail};
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// When the next connection begins.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As soon as fewer than this many are being opened.
    Closed(usize),
    /// At this rate per second, whatever happens to the others.
    Open(u32),
}

/// What happens to a connection that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It is reset at once.
    Reset,
    /// It stays until the report is dropped.
    Hold,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where to connect to.
    pub target: SocketAddr,
    /// Source addresses, used in turn.
    pub sources: Vec<IpAddr>,
    /// First source port of each address.
    pub first_port: u16,
    /// Connections.
    pub count: u32,
    /// When each begins.
    pub pace: Pace,
    /// How each ends.
    pub closing: Closing,
    /// A connection that is not open by then has failed.
    pub timeout: Duration,
}

/// What came out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Connections that were opened.
    pub connected: u32,
    /// Refused by the other side.
    pub refused: u32,
    /// Not open in time.
    pub timed_out: u32,
    /// Failed otherwise.
    pub failed: u32,
    /// Opened per second of the whole run.
    pub connections_per_second: f64,
    /// Median of `connect()`, microseconds.
    pub p50_us: u64,
    /// 99th percentile of `connect()`, microseconds.
    pub p99_us: u64,
    /// Slowest `connect()`, microseconds.
    pub max_us: u64,
    /// Length of the run, seconds.
    pub seconds: f64,
    /// The connections themselves, when they are held.
    #[serde(skip)]
    pub held: Vec<std::sync::Arc<Socket>>,
}

struct Opening {
    socket: Socket,
    began: Instant,
}

struct Run<'a> {
    options: &'a LoadOptions,
    epoll: rustix::fd::OwnedFd,
    slots: Vec<Option<Opening>>,
    free: Vec<usize>,
    /// Slots in the order in which they began, to notice those that take too long.
    order: VecDeque<(usize, Instant)>,
    latencies: Vec<u64>,
    report: LoadReport,
}

/// Most readiness reports taken at once.
const EVENTS: usize = 256;

/// Runs the load in the namespace of the calling thread.
pub fn load(options: &LoadOptions) -> Result<LoadReport> {
    if options.sources.is_empty() {
        bail!("the load generator needs a source address");
    }
    let per_source = options.count.div_ceil(u32::try_from(options.sources.len())?);
    if u32::from(options.first_port) + per_source > 65536 {
        bail!("{} connections need more source addresses", options.count);
    }
    let mut run = Run {
        options,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        slots: Vec::new(),
        free: Vec::new(),
        order: VecDeque::new(),
        latencies: Vec::with_capacity(options.count as usize),
        report: LoadReport::default(),
    };
    run.all()?;
    Ok(run.finish())
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        let start = now();
        let mut begun = 0;
        loop {
            let mut wait = self.options.timeout;
            match self.options.pace {
                Pace::Closed(in_flight) => {
                    while begun < self.options.count && self.opening() < in_flight {
                        self.begin(begun)?;
                        begun += 1;
                    }
                }
                Pace::Open(rate) => {
                    while begun < self.options.count {
                        let due = start + Duration::from_secs(1) * begun / rate;
                        let early = due.saturating_duration_since(now());
                        if !early.is_zero() {
                            wait = early;
                            break;
                        }
                        self.begin(begun)?;
                        begun += 1;
                    }
                }
            }
            if begun == self.options.count && self.opening() == 0 {
                break;
            }
            self.progress(wait)?;
        }
        self.report.seconds = start.elapsed().as_secs_f64();
        Ok(())
    }

    fn opening(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn begin(&mut self, index: u32) -> Result<()> {
        let sources = u32::try_from(self.options.sources.len())?;
        let address = self.options.sources[usize::try_from(index % sources)?];
        let port = self.options.first_port + u16::try_from(index / sources)?;
        let socket = Socket::new(
            Domain::for_address(self.options.target),
            Type::STREAM.nonblocking(),
            None,
        )
        .context("cannot make a socket")?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.options.closing == Closing::Reset {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        socket
            .bind(&SocketAddr::new(address, port).into())
            .with_context(|| format!("cannot bind {address} port {port}"))?;
        let began = now();
        match socket.connect(&self.options.target.into()) {
            Ok(()) => return self.opened(socket, began),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => {
                self.failed(&error);
                return Ok(());
            }
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let data = epoll::EventData::new_u64(slot as u64);
        // Once: a child that is being started holds copies of all descriptors for a moment, and what is closed here meanwhile
        // would be told again and again, for whoever has its slot by then.
        let flags = epoll::EventFlags::OUT | epoll::EventFlags::ONESHOT;
        epoll::add(&self.epoll, &socket, data, flags)?;
        self.slots[slot] = Some(Opening { socket, began });
        self.order.push_back((slot, began));
        Ok(())
    }

    fn progress(&mut self, wait: Duration) -> Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs())?,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        ) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let slot = usize::try_from(event.data.u64())?;
            let Some(Opening { socket, began }) = self.slots.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            self.free.push(slot);
            match socket.take_error()? {
                None => self.opened(socket, began)?,
                Some(error) => self.failed(&error),
            }
        }
        self.expire();
        Ok(())
    }

    fn opened(&mut self, socket: Socket, began: Instant) -> Result<()> {
        self.latencies.push(u64::try_from(began.elapsed().as_micros())?);
        if self.options.closing == Closing::Hold {
            epoll::delete(&self.epoll, &socket).ok();
            self.report.held.push(socket.into());
        }
        Ok(())
    }

    fn failed(&mut self, error: &std::io::Error) {
        match error.kind() {
            ErrorKind::ConnectionRefused => self.report.refused += 1,
            ErrorKind::TimedOut => self.report.timed_out += 1,
            _ => self.report.failed += 1,
        }
    }

    fn expire(&mut self) {
        while let Some(&(slot, began)) = self.order.front() {
            let same = self.slots[slot]
                .as_ref()
                .is_some_and(|opening| opening.began == began);
            if same && began.elapsed() < self.options.timeout {
                return;
            }
            self.order.pop_front();
            if let Some(opening) = self.slots[slot].take_if(|_| same) {
                epoll::delete(&self.epoll, &opening.socket).ok();
                self.free.push(slot);
                self.report.timed_out += 1;
            }
        }
    }

    fn finish(mut self) -> LoadReport {
        self.latencies.sort_unstable();
        let at = |hundredths: usize| -> u64 {
            let index = (self.latencies.len() * hundredths / 100).min(self.latencies.len().saturating_sub(1));
            self.latencies.get(index).copied().unwrap_or_default()
        };
        let (p50_us, p99_us, max_us) = (at(50), at(99), at(100));
        let connected = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX);
        LoadReport {
            connected,
            p50_us,
            p99_us,
            max_us,
            connections_per_second: f64::from(connected) / self.report.seconds.max(f64::MIN_POSITIVE),
            ..std::mem::take(&mut self.report)
        }
    }
}
