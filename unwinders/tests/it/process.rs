//! Processes, their mappings and executables.

mod events;
mod executables;
mod mappings;
mod real;
mod replaced;
mod sideband;
