//! Rules on stacks and frames: once a row of the dictionary, as far as what they read is the same for all samples of it.

use std::collections::{HashMap, HashSet};

use profiler_ottl::RuleError;

use super::{Kind, Rules, Run, Verdict};
use crate::{
    cursor::{Cursor, Frame, Place, Row},
    paths::Level,
};

/// What rules did before, and do again where they read the same.
pub(super) struct Stacks<'r> {
    rules: &'r Rules,
    /// Where in the request what follows holds.
    of: Option<Place>,
    /// What conditions say of a row.
    frames: HashMap<Row, Verdict>,
    stacks: HashMap<i32, Verdict>,
    /// What statements make of a row.
    edited: HashMap<Row, Frame>,
    became: HashMap<i32, i32>,
    /// Rows that no statement changes, wherever they are.
    idle_frames: HashSet<Row>,
    idle_stacks: HashSet<i32>,
}

impl<'r> Stacks<'r> {
    pub fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            of: None,
            frames: HashMap::new(),
            stacks: HashMap::new(),
            edited: HashMap::new(),
            became: HashMap::new(),
            idle_frames: HashSet::new(),
            idle_stacks: HashSet::new(),
        }
    }

    /// Runs the rules on the stack, or on each of its frames, of the sample that `cursor` is at; nothing if the time is over. What holds of a frame
    /// holds of its sample.
    pub fn run(&mut self, run: &mut Run<'_>, cursor: &mut Cursor, place: Place) -> Result<Option<Verdict>, RuleError> {
        self.enter(place);
        let stack = cursor.stack_index();
        if self.idle_stacks.contains(&stack) {
            return Ok(Some(Verdict::default()));
        }
        if let Some(known) = self.stacks.get(&stack) {
            return Ok(Some(*known));
        }
        if let Some(became) = self.became.get(&stack) {
            cursor.set_stack_index(*became);
            return Ok(Some(Verdict::default()));
        }
        let frames = cursor.open();
        let verdict =
            if self.rules.level == Level::Stack { run.once(cursor)? } else { self.each(run, cursor, frames)? };
        let Some(verdict) = verdict else { return Ok(None) };
        let keeps = !self.rules.reach.is_of_sample();
        match self.rules.kind {
            Kind::Filter { .. } if keeps => {
                self.stacks.insert(stack, verdict);
            }
            Kind::Filter { .. } => {}
            Kind::Statements { .. } => {
                // A full table is not the fault of one rule.
                let failed = |error| RuleError { index: 0, text: String::new(), error };
                let became = cursor.store().map_err(failed)?;
                if keeps {
                    self.became.insert(stack, became);
                } else if !verdict.is_active && self.guards_are_of_rows() {
                    self.idle_stacks.insert(stack);
                }
            }
        }
        Ok(Some(verdict))
    }

    /// Forgets what held for other samples and not for that at `place`.
    fn enter(&mut self, place: Place) {
        let of = match self.rules.reach.outer {
            None => Place::default(),
            Some(Level::Resource) => Place { resource: place.resource, ..Place::default() },
            Some(Level::Scope) => Place { resource: place.resource, scope: place.scope, ..Place::default() },
            Some(Level::Profile) => Place { sample: 0, ..place },
            Some(Level::Sample | Level::Stack | Level::Frame) => place,
        };
        if self.of.replace(of) != Some(of) {
            self.frames.clear();
            self.stacks.clear();
            self.edited.clear();
            self.became.clear();
        }
    }

    /// Whether what decides if a statement runs is the same for all samples.
    fn guards_are_of_rows(&self) -> bool {
        let guards = self.rules.guards;
        !guards.always && !guards.varies && guards.outer.is_none()
    }

    /// Runs the rules on each frame, or, of conditions, on those up to the first that one holds for.
    fn each(&mut self, run: &mut Run<'_>, cursor: &mut Cursor, frames: usize) -> Result<Option<Verdict>, RuleError> {
        let is_filter = matches!(self.rules.kind, Kind::Filter { .. });
        let keeps = !self.rules.reach.is_of_sample() && !self.rules.reach.stack;
        let keeps_idle = self.guards_are_of_rows() && !self.rules.guards.stack;
        let mut all = Verdict::default();
        for at in 0..frames {
            let row = cursor.go_to_frame(at);
            if self.idle_frames.contains(&row) {
                continue;
            }
            if let Some(frame) = self.edited.get(&row) {
                cursor.set_frame(frame);
                continue;
            }
            let verdict = match self.frames.get(&row) {
                Some(known) => *known,
                None => {
                    let Some(verdict) = run.once(cursor)? else { return Ok(None) };
                    if is_filter && keeps {
                        self.frames.insert(row, verdict);
                    } else if !is_filter && keeps_idle && !verdict.is_active {
                        self.idle_frames.insert(row);
                    } else if !is_filter && keeps {
                        self.edited.extend(cursor.frame().map(|frame| (row, frame.clone())));
                    }
                    verdict
                }
            };
            all.is_active |= verdict.is_active;
            if verdict.holds {
                return Ok(Some(verdict));
            }
        }
        Ok(Some(all))
    }
}
