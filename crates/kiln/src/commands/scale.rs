//! `kiln scale NAME=N`: pin the number of a server's instances, or give it back.

use std::str::FromStr;
use std::time::Instant;

use kiln_daemon::api::Scale;
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, Kind};

use crate::context::Context;
use crate::document::outputs;
use crate::error::{CommandError, Exit};
use crate::progress::Board;

use super::apply::conclusion::{Change, see_to_the_end};

/// The most instances that can be asked for.
const MOST: u32 = 10_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server and its count, `server.web=5`; `auto` gives the count back
    #[arg(value_name = "NAME=N|auto")]
    wanted: Wanted,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A name and a count.
#[derive(Debug, Clone)]
struct Wanted {
    name: String,
    count: Option<u32>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) =
            text.rsplit_once('=').ok_or("expected a name and a count, such as `server.web=5`")?;
        let count = match count {
            "auto" => None,
            digits => match digits.parse::<u32>() {
                Ok(count) if count <= MOST => Some(count),
                _ => return Err(format!("the count must be `auto` or 0 to {MOST}")),
            },
        };
        Ok(Self { name: name.to_owned(), count })
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let begun = Instant::now();
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let active = ledger.active(&stack)?.ok_or_else(|| {
        CommandError::failed(format!("no generation of {stack} is active"))
            .with_help("`kiln apply` brings it up")
    })?;
    let component = find(&active, &args.wanted.name, Some(Kind::Server))?;
    let question = match args.wanted.count {
        Some(count) => format!("Pin {component} of stack {stack} to {count}?"),
        None => format!("Give the count of {component} of stack {stack} back?"),
    };
    if !args.yes && !context.confirm(&question)? {
        context.say("Nothing was changed.");
        return Ok(Exit::Failed);
    }
    let board = Board::new(context.err);
    let wanted = Scale { component, count: args.wanted.count };
    let change = Change { stack: &stack, outputs: outputs(&active.content.outputs), begun };
    context.block_on(async {
        let lines = context.client().await?.scale(&stack, &wanted).await?;
        see_to_the_end(context, change, lines, &board).await
    })
}

/// The component that is written `kind.name`, or `name` where that is unique.
pub(crate) fn find(
    generation: &Generation,
    text: &str,
    kind: Option<Kind>,
) -> Result<ComponentId, CommandError> {
    let components = &generation.content.components;
    let named: Option<ComponentId> = text.parse().ok();
    if let Some(id) = named.filter(|id| components.contains_key(id)) {
        return match kind {
            Some(kind) if id.kind != kind => {
                Err(CommandError::usage(format!("{id} is not a {kind}")))
            }
            _ => Ok(id),
        };
    }
    let fits = |id: &&ComponentId| id.name == text && kind.is_none_or(|kind| id.kind == kind);
    let found: Vec<&ComponentId> = components.keys().filter(fits).collect();
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let known = components.keys().filter(|id| kind.is_none_or(|kind| id.kind == kind));
            let known: Vec<String> = known.map(ToString::to_string).collect();
            let near = kiln_config::diagnostic::nearest(text, known.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean {near}?"),
                None if known.is_empty() => "it has none".to_owned(),
                None => format!("it has {}", known.join(", ")),
            };
            let what = kind.map_or("component", Kind::as_str);
            let stack = &generation.stack;
            Err(CommandError::usage(format!("stack {stack} has no {what} {text}")).with_help(help))
        }
        several => {
            let listed: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(CommandError::usage(format!("{text} names several components"))
                .with_help(format!("say which: {}", listed.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::fixture::{generation, image, network, server};

    use super::*;

    #[test]
    fn a_count_is_a_number_or_auto() {
        let wanted: Wanted = "server.web[\"a=b\"]=5".parse().unwrap();
        assert_eq!((wanted.name.as_str(), wanted.count), ("server.web[\"a=b\"]", Some(5)));
        assert_eq!("web=auto".parse::<Wanted>().unwrap().count, None);
        for text in ["web", "web=", "web=-1", "web=1000000", "web=many"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_enough_where_it_is_unique() {
        let specs = vec![image("web", "v1"), network("front", "10.0.0.0/24"), server("web").spec()];
        let generation = generation(1, specs);
        let find = |text, kind| find(&generation, text, kind).map(|id| id.to_string());
        assert_eq!(find("web", Some(Kind::Server)).unwrap(), "server.web");
        assert_eq!(find("front", None).unwrap(), "network.front");
        assert!(find("web", None).is_err(), "an image and a server");
        assert!(find("image.web", Some(Kind::Server)).is_err());
        assert!(find("wab", Some(Kind::Server)).is_err());
    }
}
