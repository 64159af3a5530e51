//! `kiln logs NAME`: what instances have written, those that have ended too.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_daemon::ledger::Ledger;
use kiln_engine::journal::Event;
use kiln_local::logs::{Follow, Line, directory, tail};
use kiln_model::name::{ComponentId, InstanceId, Kind, StackName};

use crate::context::{Context, print_text};
use crate::document::look::{LogLine, LogsDocument};
use crate::error::{CommandError, Exit};

use super::scale::find;

/// How often logs are read while they are followed.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server, `server.web` or `web`; or one of its instances
    name: String,
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "N", default_value_t = 200)]
    tail: usize,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let wanted = Wanted::find(&ledger, &stack, &args.name)?;
    let mut followed = BTreeMap::new();
    // From its present end on, so that no line is missed and none shown twice.
    if args.follow {
        begin(context, &wanted.instances(&ledger, &stack)?, &mut followed)?;
    }
    let mut lines = Vec::new();
    for instance in wanted.instances(&ledger, &stack)? {
        let path = directory(context.root.path(), instance.as_str());
        let last = tail(&path, args.tail).map_err(|e| unreadable(&instance, &e))?;
        lines.extend(last.into_iter().map(|line| shown(&instance, line)));
    }
    lines.sort();
    let lines = lines.split_off(lines.len().saturating_sub(args.tail));
    if !args.follow {
        let component = wanted.component.to_string();
        let document = LogsDocument { stack: stack.to_string(), component, lines };
        context.print(&document, || document.lines.iter().map(text).collect())?;
        return Ok(Exit::Done);
    }
    follow_up(context, &lines)?;
    loop {
        begin(context, &wanted.instances(&ledger, &stack)?, &mut followed)?;
        let mut news = Vec::new();
        for (instance, follow) in &mut followed {
            let lines = follow.poll().map_err(|e| unreadable(instance, &e))?;
            news.extend(lines.into_iter().map(|line| shown(instance, line)));
        }
        news.sort();
        follow_up(context, &news)?;
        std::thread::sleep(PAUSE);
    }
}

/// Whose logs are wanted.
struct Wanted {
    component: ComponentId,
    /// One of its instances, where just that is wanted.
    only: Option<InstanceId>,
}

impl Wanted {
    fn find(ledger: &Ledger, stack: &StackName, name: &str) -> Result<Self, CommandError> {
        let made = made(ledger, stack)?;
        if let Some((instance, component)) = made.iter().find(|(id, _)| id.as_str() == name) {
            return Ok(Self { component: component.clone(), only: Some(instance.clone()) });
        }
        // What is not declared any more has logs too.
        let past = made.iter().map(|(_, component)| component);
        if let Some(component) = past.clone().find(|c| c.to_string() == name || c.name == name) {
            return Ok(Self { component: component.clone(), only: None });
        }
        let newest = ledger.state(stack)?.aim();
        let newest = newest.map(|number| ledger.generation(stack, number)).transpose()?.flatten();
        match newest {
            Some(generation) => {
                let component = find(&generation, name, Some(Kind::Server))?;
                Ok(Self { component, only: None })
            }
            None => Err(CommandError::usage(format!("stack {stack} has no server {name}"))),
        }
    }

    fn instances(
        &self,
        ledger: &Ledger,
        stack: &StackName,
    ) -> Result<Vec<InstanceId>, CommandError> {
        let wanted = |(id, component): (InstanceId, ComponentId)| {
            let fits = component == self.component && self.only.as_ref().is_none_or(|o| *o == id);
            fits.then_some(id)
        };
        Ok(made(ledger, stack)?.into_iter().filter_map(wanted).collect())
    }
}

/// The instances that were ever made, with what each is one of.
fn made(
    ledger: &Ledger,
    stack: &StackName,
) -> Result<Vec<(InstanceId, ComponentId)>, CommandError> {
    let entries = ledger.journal(stack)?.into_iter();
    Ok(entries
        .filter_map(|entry| match entry.event {
            Event::Made { component, instance, .. } | Event::Failed { component, instance, .. } => {
                Some((instance, component))
            }
            _ => None,
        })
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect())
}

fn begin(
    context: &Context,
    instances: &[InstanceId],
    followed: &mut BTreeMap<InstanceId, Follow>,
) -> Result<(), CommandError> {
    for instance in instances {
        if !followed.contains_key(instance) {
            let path = directory(context.root.path(), instance.as_str());
            let follow = Follow::new(&path).map_err(|e| unreadable(instance, &e))?;
            followed.insert(instance.clone(), follow);
        }
    }
    Ok(())
}

fn unreadable(instance: &InstanceId, error: &std::io::Error) -> CommandError {
    CommandError::failed(format!("the log of {instance} cannot be read")).caused_by(error)
}

fn shown(instance: &InstanceId, line: Line) -> LogLine {
    LogLine {
        time: line.time,
        instance: instance.to_string(),
        stream: line.stream.name().to_owned(),
        text: line.text,
    }
}

fn follow_up(context: &Context, lines: &[LogLine]) -> Result<(), CommandError> {
    for line in lines {
        let text = if context.json {
            let json = serde_json::to_string(line);
            json.map_err(|e| CommandError::failed("a line cannot be written").caused_by(&e))? + "\n"
        } else {
            text(line)
        };
        print_text(&text)?;
    }
    Ok(())
}

/// A line as a person reads it: control characters could rule the terminal.
fn text(line: &LogLine) -> String {
    let clean: String =
        line.text.chars().map(|c| if c.is_control() && c != '\t' { '·' } else { c }).collect();
    let time = line.time.get(..23).unwrap_or(&line.time);
    format!("{time} {} {clean}\n", line.instance)
}
