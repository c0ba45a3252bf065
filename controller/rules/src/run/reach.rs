//! What rules on stacks and frames read, which says how often they have to be asked.

use profiler_ottl::syntax::{Condition, Statement};

use crate::{
    paths::{Accessor, Level},
    process::VARYING,
};

/// What rules read and change beside the frame that they run on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    /// The innermost of the contexts around the stack.
    pub outer: Option<Level>,
    /// The stack that the frame is in.
    pub stack: bool,
    /// They may say or do something else each time: they call the clock, or change what is around the stack.
    pub varies: bool,
    /// One runs on everything.
    pub always: bool,
}

impl Reach {
    pub fn of_conditions(level: Level, conditions: &[Condition]) -> Self {
        let mut reach = Self::default();
        conditions.iter().for_each(|condition| reach.add_condition(level, condition));
        reach
    }

    pub fn add_condition(&mut self, level: Level, condition: &Condition) {
        self.add(level, &condition.paths(), &condition.functions());
    }

    pub fn add_statement(&mut self, level: Level, statement: &Statement) {
        self.add(level, &statement.paths(), &statement.functions());
        let changed = level.accessor(&statement.target());
        self.varies |= changed.is_some_and(|(of, _)| of <= Level::Sample);
    }

    fn add(&mut self, level: Level, paths: &[Vec<&str>], functions: &[&str]) {
        for (of, accessor) in paths.iter().filter_map(|path| level.accessor(path)) {
            match of {
                Level::Stack => self.stack = true,
                Level::Frame => self.stack |= accessor == Accessor::FrameIndex,
                outer => self.outer = self.outer.max(Some(outer)),
            }
        }
        self.varies |= functions.iter().any(|name| VARYING.contains(name));
    }

    /// Whether it is another one with each sample.
    pub fn is_of_sample(self) -> bool {
        self.varies || self.outer == Some(Level::Sample)
    }
}
