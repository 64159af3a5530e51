//! The verbs and options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// Immutable infrastructure on one machine: what is declared is built, started beside the old,
/// proved, and put in its place.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options that every verb takes, before or behind it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where all state is kept
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/kiln")]
    pub(crate) root: PathBuf,
    /// The directory of the stack
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    pub(crate) stack: PathBuf,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print without colors
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// Values for the variables of a stack.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Variables {
    /// The value of a variable
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) vars: Vec<String>,
    /// A file of variables
    #[arg(long = "var-file", value_name = "FILE")]
    pub(crate) var_files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write the first file of a new stack
    Init(commands::init::Args),
    /// Check a stack without touching anything
    Validate(commands::validate::Args),
    /// Write configuration files in canonical form
    Fmt(commands::fmt::Args),
    /// Show what would be created, replaced and destroyed, and why
    Plan(commands::plan::Args),
    /// Plan, then do it; ends when the new is healthy or the old serves on
    Apply(commands::apply::Args),
    /// Show components, instances, health, drift and addresses
    Status(commands::status::Args),
    /// List the generations of a stack
    History(commands::history::Args),
    /// Show one generation
    Show(commands::show::Args),
    /// Show what differs between two generations
    Diff(commands::diff::Args),
    /// Bring back the content of an older generation, as a new one
    Rollback(commands::rollback::Args),
    /// Take out the pin that a rollback has set
    Resume(commands::resume::Args),
    /// Deploy what is on a branch, commit by commit; without a URL, show what is followed
    Follow(Box<commands::follow::Args>),
    /// Pin the number of a server's instances, or give it back
    Scale(commands::scale::Args),
    /// Measure now and show what is not as declared
    Drift(commands::drift::Args),
    /// Show what instances have written
    Logs(commands::logs::Args),
    /// Show what has happened to a stack
    Events(commands::events::Args),
    /// Show what was found not to be what it was made as, and the evidence of it
    Incidents(commands::incidents::Args),
    /// Hold what runs against rules of hardening, as the kernel has it
    Audit(commands::audit::Args),
    /// Show what instances use
    Top(commands::top::Args),
    /// Print what is measured of all stacks, for monitoring
    Metrics(commands::metrics::Args),
    /// Build, lock, list, show and verify images
    Image(commands::image::Args),
    /// Back up the data of databases, and bring it back
    Database(commands::database::Args),
    /// Retire the stack
    Destroy(commands::destroy::Args),
    /// Run the daemon
    Serve(commands::serve::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
    /// Print the version
    Version(commands::version::Args),
    /// Run the data plane; the daemon starts it
    #[command(hide = true)]
    Gateway(commands::gateway::Args),
    /// Run the parent of all instances; the daemon starts it
    #[command(hide = true)]
    Launcher(commands::launcher::Args),
    /// Follow one branch; the daemon starts it
    #[command(hide = true)]
    Follower(commands::follower::Args),
    /// Run a program of an image; a build starts it
    #[command(hide = true)]
    Sandbox(commands::sandbox::Args),
}
