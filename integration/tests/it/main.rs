//! What `profiler` records and sends, end to end: one binary of tests, so that what they share is built and linked once. Those that
//! record do so one at a time (`environment::one_at_a_time`).
#![forbid(unsafe_code)]

mod against_other_tools;
mod agent;
mod agent_faults;
mod agent_host;
mod cgroup;
mod collector;
mod command_line;
mod config;
mod confinement;
mod control;
mod depth;
mod detection;
mod escapes;
mod events;
mod hostile;
mod java;
mod managed;
mod namer;
mod native;
mod node;
mod outputs;
mod processes;
mod processors;
mod python;
mod reader;
mod ring;
mod rules;
mod session;
mod telemetry;
mod unreadable;
mod unusual_stacks;
