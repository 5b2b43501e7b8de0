//! One thing at a time: what may happen next, and how it all comes to rest.

use crate::client::identity;
use crate::journal::Report;
use crate::reference::Policy;
use crate::sim::{CLIENTS, GATEWAYS, Sim};
use nuauth_server::engine::{Input, OnEnd};
use rand::RngExt;
use std::sync::Arc;

impl Sim {
    // The journal.

    pub(crate) fn commit(&mut self) {
        if self.server.is_none() {
            return;
        }
        if self.reference.faulty && self.rng.random_ratio(1, 12) {
            self.note(|| "a commit fails".into());
            self.journal.fail(&mut self.rng);
        } else {
            self.journal.commit(&mut self.rng);
        }
    }

    pub(crate) fn report(&mut self) {
        match self.journal.reports.pop_front() {
            Some(Report::Committed { opened, acknowledged }) => {
                self.note(|| format!("{opened:?} and {acknowledged:?} are durable"));
                self.feed(Input::Committed { opened, acknowledged });
            }
            Some(Report::Failed(opened)) => {
                self.note(|| format!("{opened:?} could not be logged"));
                self.feed(Input::LogFailed { opened });
            }
            None => {}
        }
    }

    // What happens next.

    pub(crate) fn step(&mut self) {
        self.now += self.rng.random_range(1..300);
        for link in &mut self.links {
            if link.is_dead(self.now) {
                link.end();
            }
        }
        match self.rng.random_range(0..1000) {
            0..240 => {
                let gateway = self.any(GATEWAYS);
                self.turn(gateway);
            }
            240..450 if !self.links.is_empty() => {
                let link = self.any(self.links.len());
                self.deliver(link);
            }
            450..660 => {
                let client = self.any(CLIENTS.len());
                for _ in 0..self.any(4) {
                    self.clients[client].work(&self.sockets, self.reference.faulty, &mut self.rng);
                }
                for _ in 0..self.any(4) {
                    self.hear(client);
                }
            }
            660..730 => self.commit(),
            730..800 => self.report(),
            800..860 => self.open_socket(),
            860..920 => {
                for _ in 0..4 {
                    self.traffic();
                }
            }
            920..930 => self.time_out_entry(),
            930..960 => self.feed(Input::Tick),
            960..967 => {
                self.now += self.rng.random_range(1000..3_000_000);
                self.feed(Input::Tick);
            }
            967..968 => {
                self.now += self.rng.random_range(5_000_000..70_000_000);
                self.feed(Input::Tick);
            }
            968..991 => {
                self.start_server();
                let gateway = self.any(GATEWAYS);
                self.connect(gateway);
                let client = self.any(CLIENTS.len());
                self.login(client);
            }
            991..1000 => self.fault(),
            _ => {}
        }
    }

    pub(crate) fn fault(&mut self) {
        let gateway = self.any(GATEWAYS);
        let client = self.any(CLIENTS.len());
        match self.rng.random_range(0..16) {
            0..3 => self.cut(gateway),
            3 => self.crash_agent(gateway),
            4 => self.crash_server(),
            5 => self.logout(client),
            6..8 => self.prove(client),
            8 => self.clients[client].withdraw(),
            9..12 => self.clients[client].announce(&self.sockets, &mut self.rng),
            12 => {
                let policy = Policy {
                    version: self.rng.random_range(0..2),
                    modes: if self.rng.random_bool(0.5) {
                        self.rng.random()
                    } else {
                        self.reference.policy.modes
                    },
                };
                self.note(|| format!("the policy becomes {policy:?}"));
                self.reference.forget_drops();
                self.reference.policy = policy;
                self.feed(Input::Judge(Arc::new(policy)));
                let users = (0..4).map(identity);
                let users = users.map(|user| (Arc::clone(&user.user.name), user)).collect();
                self.feed(Input::Users(users));
            }
            13 => {
                let gone = self.any(8);
                self.note(|| format!("the users are read again, without {gone}"));
                self.reference.forget_drops();
                let known = (0..4).filter(|user| *user != gone).map(identity);
                let users = known.map(|user| (Arc::clone(&user.user.name), user)).collect();
                self.feed(Input::Users(users));
            }
            14 => {
                self.note(|| format!("gateway {gateway} loses events"));
                self.agents[gateway].overrun(&mut self.kernels[gateway], &mut self.reference, self.now);
            }
            15 => {
                self.note(|| format!("a program empties the table of gateway {gateway}"));
                self.kernels[gateway].flush(self.now, &mut self.reference.records);
            }
            _ => {}
        }
    }

    /// Nothing goes wrong any more: everything connects, is delivered and becomes durable. Then the books are compared.
    pub(crate) fn settle(&mut self) {
        self.reference.faulty = false;
        self.note(|| "nothing goes wrong any more".into());
        for round in 0..1600 {
            self.now += 2000;
            self.start_server();
            for gateway in 0..GATEWAYS {
                self.connect(gateway);
                self.turn(gateway);
            }
            for index in (0..self.links.len()).rev() {
                self.deliver(index);
            }
            for client in 0..CLIENTS.len() {
                self.clients[client].inbox.clear();
                self.hear(client);
            }
            self.commit();
            self.report();
            // In the end nothing is asked for any more that would not be answered.
            if round % 5 == 0 && round < 1500 {
                self.now += 300_000;
                self.feed(Input::Tick);
            }
        }
        let idle = self.journal.is_idle()
            && self
                .agents
                .iter()
                .zip(&self.kernels)
                .all(|(agent, kernel)| agent.is_idle(kernel));
        assert!(idle, "the world does not come to rest");
        if let Some(server) = &self.server {
            let stats = server.engine.stats();
            let active = self.journal.active().len() as u64;
            assert_eq!(
                stats.live_connections, active,
                "engine and log differ about what is live"
            );
            assert_eq!(stats.pending_asks, 0, "questions without packets are open");
            assert_eq!(
                (stats.waiting_commits, stats.waiting_async),
                (0, 0),
                "rows are waited for that are durable"
            );
            for (what, times) in [
                ("late", stats.late_commits),
                ("drop without row", stats.drops_unlogged),
                ("aggregated", stats.drops_aggregated),
                ("resynced", stats.resynced_rows),
                ("deleted", stats.deleted_entries),
            ] {
                self.reference.seen.extend((times > 0).then_some(what));
            }
            assert_eq!(
                self.reference.flood.told, stats.drops_aggregated,
                "drops without a row are counted in the log"
            );
        }
        if self.relays_events && self.limits.on_session_end == OnEnd::Kill {
            let sessions = self.server.iter().flat_map(|server| &server.sessions);
            let present: Vec<_> = sessions
                .map(|(session, client)| (self.clients[*client].user as u64, session))
                .collect();
            self.reference.assert_ended(&self.journal, |user, address| {
                present.iter().any(|(of, session)| {
                    let held = self.reference.held.get(session);
                    *of == user && held.is_some_and(|held| held.contains(&address))
                })
            });
        }
        if self.relays_events {
            self.reference
                .assert_settled(&self.journal, &self.kernels, &self.names);
        } else {
            let live = self.journal.active();
            assert!(live.is_empty(), "rows without events are live: {live:?}");
        }
    }
}
