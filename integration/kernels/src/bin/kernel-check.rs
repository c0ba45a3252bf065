//! What a kernel of the matrix is asked from within, and the judgement of a machine that has no host to judge it: see
//! `guest/steps`. Static, since the guest has no libraries.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use profiler_kernels::{Error, judge, loaded, rate, table, transcript};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Tell what the kernel says of the profiler's programs, once they are loaded
    Loaded,
    /// Record a ground-truth program while the rate changes, and check counts, weights and shares
    Rate {
        /// The program
        program: PathBuf,
    },
    /// Judge the results of a machine and print its column
    Judge {
        /// The machine
        name: String,
        /// A folder a step
        results: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel-check: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if nothing is wrong.
fn run(task: &Task) -> Result<bool, Error> {
    match task {
        Task::Loaded => loaded::once_loaded()?.iter().for_each(|program| println!("{}", program.line())),
        Task::Rate { program } => println!("{}", rate::change_live(program)?),
        Task::Judge { name, results } => {
            let steps = transcript::of_folder(results)?;
            let release = steps.steps.get("kernel").map_or("", |step| step.stdout.trim());
            let column = judge::judge(name, &format!("{name}: {release}"), &steps);
            eprintln!("{}", column.verdict());
            print!("{}", table::markdown(&[&column]));
            return Ok(column.failure.is_none());
        }
    }
    Ok(true)
}
