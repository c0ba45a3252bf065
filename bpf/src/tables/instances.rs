//! What the kernel half knows of runtimes.

use super::fits;
use super::region::Region;
use crate::abi::{Instance, MAX_INSTANCES};
use crate::error::Result;

/// Runtimes in processes.
#[derive(Debug)]
pub struct InstanceTable(pub(super) Region<Instance>);

impl InstanceTable {
    /// Writes an instance, to which nothing leads yet.
    ///
    /// # Errors
    /// There is no such index.
    pub fn write(&mut self, index: u32, instance: &Instance) -> Result<()> {
        fits(self.0.write(index as usize, &[*instance]), "instance", MAX_INSTANCES)
    }

    pub(crate) fn as_ptr(&self) -> *const Instance {
        self.0.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
