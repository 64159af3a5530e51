//! The verbs, a file each.

pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod database;
pub(crate) mod destroy;
pub(crate) mod diff;
pub(crate) mod drift;
pub(crate) mod events;
pub(crate) mod fmt;
pub(crate) mod follow;
pub(crate) mod follower;
pub(crate) mod gateway;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod incidents;
pub(crate) mod init;
pub(crate) mod launcher;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod plan;
pub(crate) mod resume;
pub(crate) mod rollback;
pub(crate) mod sandbox;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod validate;
pub(crate) mod version;

use crate::cli::Verb;
use crate::context::Context;
use crate::error::{CommandError, Exit};

/// Does what a verb says.
pub(crate) fn run(context: &Context, verb: Verb) -> Result<Exit, CommandError> {
    match verb {
        Verb::Init(args) => init::run(context, &args),
        Verb::Validate(args) => validate::run(context, &args),
        Verb::Fmt(args) => fmt::run(context, &args),
        Verb::Plan(args) => plan::run(context, &args),
        Verb::Apply(args) => apply::run(context, &args),
        Verb::Status(args) => status::run(context, &args),
        Verb::History(args) => history::run(context, &args),
        Verb::Show(args) => show::run(context, &args),
        Verb::Diff(args) => diff::run(context, &args),
        Verb::Rollback(args) => rollback::run(context, &args),
        Verb::Resume(args) => resume::run(context, &args),
        Verb::Scale(args) => scale::run(context, &args),
        Verb::Follow(args) => follow::run(context, &args),
        Verb::Drift(args) => drift::run(context, &args),
        Verb::Logs(args) => logs::run(context, &args),
        Verb::Events(args) => events::run(context, &args),
        Verb::Incidents(args) => incidents::run(context, &args),
        Verb::Audit(args) => audit::run(context, &args),
        Verb::Top(args) => top::run(context, &args),
        Verb::Metrics(args) => metrics::run(context, &args),
        Verb::Image(args) => image::run(context, &args),
        Verb::Database(args) => database::run(context, &args),
        Verb::Destroy(args) => destroy::run(context, &args),
        Verb::Serve(args) => serve::run(context, &args),
        Verb::Completions(args) => completions::run(context, &args),
        Verb::Version(args) => version::run(context, &args),
        Verb::Gateway(args) => gateway::run(context, &args),
        Verb::Launcher(args) => launcher::run(context, &args),
        Verb::Follower(args) => follower::run(context, &args),
        Verb::Sandbox(args) => sandbox::run(context, &args),
    }
}
