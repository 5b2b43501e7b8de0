//! What a candidate of the index still asks for, in a few bytes: most rules ask for nothing more, or for a program.
//!
//! Whatever else a rule asks for is left to the rule.

use super::pattern::Pattern;
use super::rule::{Rule, is_met};
use crate::engine::{Quality, Subject};
use std::collections::HashMap;

/// Patterns whose answer is kept for the rest of a packet's search.
const KEPT: usize = 256;

/// What all rules ask for besides.
#[derive(Debug, Default)]
pub(super) struct Rests {
    rules: Vec<Rest>,
    /// Every pattern of programs once.
    programs: Vec<Pattern>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    quality: Option<Quality>,
    program: Program,
    /// The rule must be asked.
    more: bool,
}

#[derive(Debug, Clone, Copy)]
enum Program {
    Any,
    /// One that a pattern matches.
    One(u32),
}

/// The search of one packet.
pub(super) struct Search<'a> {
    rests: &'a Rests,
    rules: &'a [Rule],
    subject: &'a Subject<'a>,
    asked: [u64; KEPT / 64],
    matched: [u64; KEPT / 64],
}

impl Rests {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut rests = Self::default();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for rule in rules {
            let more = rule.asks_for_details() || rule.programs.len() > 1;
            let mut program = Program::Any;
            if let [pattern] = &*rule.programs {
                let next = u32::try_from(rests.programs.len()).unwrap_or(u32::MAX);
                let number = *numbers.entry(pattern.text().to_owned()).or_insert_with(|| {
                    rests.programs.push(pattern.clone());
                    next
                });
                program = Program::One(number);
            }
            rests.rules.push(Rest {
                quality: rule.quality,
                program,
                more,
            });
        }
        rests
    }

    pub(super) fn search<'a>(&'a self, rules: &'a [Rule], subject: &'a Subject<'a>) -> Search<'a> {
        Search {
            rests: self,
            rules,
            subject,
            asked: [0; KEPT / 64],
            matched: [0; KEPT / 64],
        }
    }
}

impl Search<'_> {
    /// Whether a candidate matches.
    #[inline]
    pub(super) fn matches(&mut self, place: usize) -> bool {
        let Rest {
            quality,
            program,
            more,
        } = self.rests.rules[place];
        is_met(quality, self.subject)
            && match program {
                Program::Any => true,
                Program::One(pattern) => self.is_program(pattern as usize),
            }
            && (!more || self.rules[place].lack_of_details(self.subject).is_none())
    }

    fn is_program(&mut self, pattern: usize) -> bool {
        let Some(program) = self.subject.program else {
            return false;
        };
        let (word, bit) = (pattern / 64, 1 << (pattern % 64));
        if pattern >= KEPT {
            return self.rests.programs[pattern].matches(program);
        }
        if self.asked[word] & bit == 0 {
            self.asked[word] |= bit;
            if self.rests.programs[pattern].matches(program) {
                self.matched[word] |= bit;
            }
        }
        self.matched[word] & bit != 0
    }
}
