//! The questions that are open: packets that wait together, whom they were put to, and until when.
//!
//! Decides and sends nothing. Bounded by `Limits::pending_asks`, which its user keeps.

use super::conns::Flow;
use super::types::LinkId;
use nufw_proto::gateway::Hook;
use nufw_proto::{AskId, ClaimId, ConnId, SessionId, Text, Timestamp, Tuple};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;

/// One packet that waits: the agent's link and its name for the packet.
pub(super) type Packet = (LinkId, AskId);

/// The ports of a bridge by which a packet came in and would leave; empty where it has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    pub(super) phys_in: Text<15>,
    pub(super) phys_out: Text<15>,
}

/// A connection that is being decided.
pub(super) struct Pending {
    pub(super) flow: Flow,
    pub(super) hook: Hook,
    pub(super) in_dev: Text<15>,
    pub(super) out_dev: Text<15>,
    /// The ports of a bridge, where the packet passes through one.
    pub(super) ports: Ports,
    /// When the gateway received the first packet, by its clock.
    pub(super) received: Timestamp,
    /// When it received the last.
    pub(super) last_received: Timestamp,
    /// Whether the gateway will tell what becomes of the connection.
    pub(super) tracked: bool,
    /// Every packet of the connection that waits: the first one and its retransmissions.
    pub(super) packets: Vec<Packet>,
    /// Sessions asked.
    pub(super) asked: Vec<SessionId>,
    /// Sessions asked that have not answered.
    pub(super) waiting_for: Vec<SessionId>,
    /// A drop of this flow is remembered: refusing it again makes no other row.
    pub(super) dropped_before: bool,
    /// The row of a packet of the same flow that was granted and that the kernel had not confirmed.
    pub(super) again: Option<ConnId>,
    /// When the question is given up.
    pub(super) deadline: Duration,
    /// It is granted, and its row is being made durable.
    pub(super) granted: Option<Granted>,
}

/// What a granted question waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    /// Who claimed it; `None` where a rule for nobody granted it.
    pub(super) to: Option<SessionId>,
    /// Its row.
    pub(super) row: ConnId,
    /// How long its packets wait for it.
    pub(super) until: Duration,
}

impl Pending {
    /// Whether its row is being made durable.
    pub(super) fn logging(&self) -> bool {
        self.granted.is_some()
    }
}

/// Entries that may be stale before the queue of deadlines is cleaned of them.
const STALE_DEADLINES: usize = 1024;

#[derive(Default)]
pub(super) struct PendingTable {
    all: HashMap<ClaimId, Pending>,
    /// The questions about a tuple: one for each gateway and zone that it is seen in.
    by_tuple: HashMap<Tuple, Vec<ClaimId>>,
    /// Entries of questions that are answered stay until their time or until they are the most.
    deadlines: BinaryHeap<Reverse<(Duration, ClaimId)>>,
    last: u64,
}

impl PendingTable {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, question: ClaimId) -> Option<&Pending> {
        self.all.get(&question)
    }

    pub(super) fn get_mut(&mut self, question: ClaimId) -> Option<&mut Pending> {
        self.all.get_mut(&question)
    }

    /// The open question about a flow.
    pub(super) fn about(&self, flow: &Flow) -> Option<ClaimId> {
        self.about_tuple(&flow.tuple)
            .iter()
            .copied()
            .find(|question| self.all.get(question).is_some_and(|p| p.flow == *flow))
    }

    /// The open questions about a tuple, wherever it was seen.
    pub(super) fn about_tuple(&self, tuple: &Tuple) -> &[ClaimId] {
        self.by_tuple.get(tuple).map_or(&[], Vec::as_slice)
    }

    pub(super) fn insert(&mut self, pending: Pending) -> ClaimId {
        self.last += 1;
        let question = ClaimId(self.last);
        self.due(question, pending.deadline);
        self.put(question, pending);
        question
    }

    fn due(&mut self, question: ClaimId, deadline: Duration) {
        if self.deadlines.len() >= 2 * self.all.len() + STALE_DEADLINES {
            let all = &self.all;
            self.deadlines
                .retain(|Reverse((_, question))| all.contains_key(question));
        }
        self.deadlines.push(Reverse((deadline, question)));
    }

    fn put(&mut self, question: ClaimId, pending: Pending) {
        self.by_tuple
            .entry(pending.flow.tuple)
            .or_default()
            .push(question);
        self.all.insert(question, pending);
    }

    /// Puts a question back that is granted: its packets, and those that join them, wait for the row.
    pub(super) fn wait_for_log(&mut self, question: ClaimId, granted: Granted, pending: Pending) {
        self.due(question, granted.until);
        self.put(
            question,
            Pending {
                granted: Some(granted),
                ..pending
            },
        );
    }

    pub(super) fn remove(&mut self, question: ClaimId) -> Option<Pending> {
        let pending = self.all.remove(&question)?;
        if let Some(about) = self.by_tuple.get_mut(&pending.flow.tuple) {
            about.retain(|&other| other != question);
            if about.is_empty() {
                self.by_tuple.remove(&pending.flow.tuple);
            }
        }
        Some(pending)
    }

    /// The oldest questions that came after one.
    pub(super) fn after(&self, after: ClaimId, most: usize) -> Vec<(ClaimId, &Pending)> {
        let mut questions: Vec<ClaimId> = self.all.keys().copied().filter(|&id| id > after).collect();
        if questions.len() > most {
            questions.select_nth_unstable(most);
            questions.truncate(most);
        }
        questions.sort_unstable();
        questions
            .into_iter()
            .filter_map(|id| Some((id, self.all.get(&id)?)))
            .collect()
    }

    /// Questions in the order they were asked, so that a replay does the same.
    pub(super) fn sorted(&self, matches: impl Fn(&Pending) -> bool) -> Vec<ClaimId> {
        let mut questions: Vec<ClaimId> = self
            .all
            .iter()
            .filter(|(_, p)| matches(p))
            .map(|(&question, _)| question)
            .collect();
        questions.sort_unstable();
        questions
    }

    /// The next question whose time is over; each is told once for each thing that it waited for.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<ClaimId> {
        let &Reverse((deadline, question)) = self.deadlines.peek()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop();
        Some(question)
    }

    /// Rows that questions are about which may be answered by what was granted before.
    pub(super) fn about_rows(&self) -> HashSet<ConnId> {
        self.all.values().filter_map(|pending| pending.again).collect()
    }

    /// Forgets the packets of a link that is over: its agent asks again, here or elsewhere. A question without packets is dropped,
    /// save where its row is on its way to the disk.
    pub(super) fn forget_link(&mut self, link: LinkId) {
        let mut empty = Vec::new();
        for (&question, pending) in &mut self.all {
            pending.packets.retain(|&(of, _)| of != link);
            if pending.packets.is_empty() && !pending.logging() {
                empty.push(question);
            }
        }
        for question in empty {
            self.remove(question);
        }
    }
}
