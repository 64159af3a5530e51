//! The command line.

mod cli;
mod commands;
mod context;
mod document;
mod error;
mod progress;
mod render;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::context::Context;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Writing to a closed terminal is no further error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let context = Context::new(&cli.global);
    let result = commands::run(&context, cli.verb);
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.show(&context);
            error.exit().into()
        }
    }
}
