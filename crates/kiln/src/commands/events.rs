//! `kiln events`: what has happened to a stack.

use std::fmt::Write as _;
use std::time::Duration;

use kiln_daemon::api::Acceptance;
use kiln_engine::actor::Actor;
use kiln_engine::journal::Record;
use kiln_model::digest::Digest;
use serde_json::Value;

use crate::context::{Context, print_text};
use crate::document::look::{
    AcceptanceDocument, ActorDocument, AuditDocument, EventDocument, EventsDocument,
    ProblemDocument,
};
use crate::error::{CommandError, Exit};
use crate::render::table::Table;

/// How often the journal is read while it is followed.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct Args {
    /// Go on as more happens
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last
    #[arg(long, value_name = "N", default_value_t = 200)]
    tail: usize,
    /// Of all stacks, and what belongs to none
    #[arg(long)]
    all: bool,
    /// Check that no entry was removed, moved or forged; exits with 1 where one was
    #[arg(long, conflicts_with_all = ["follow", "all"])]
    verify: bool,
    /// Take the store as it is for the truth, and write that down with the reason
    #[arg(long, value_name = "REASON", conflicts_with_all = ["follow", "all", "verify"])]
    accept: Option<String>,
    /// Do not ask before accepting
    #[arg(long, requires = "accept")]
    yes: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if args.verify {
        return verify(context);
    }
    if let Some(because) = &args.accept {
        return accept(context, because, args.yes);
    }
    let ledger = context.ledger()?;
    let stack = if args.all { None } else { Some(context.stack_name(&ledger)?) };
    let records = ledger.records(stack.as_ref())?;
    let mut seen = records.last().map_or(0, |record| record.number);
    let last = &records[records.len().saturating_sub(args.tail)..];
    let events: Vec<EventDocument> = last.iter().map(event).collect();
    if !args.follow {
        let stack = stack.map(|stack| stack.to_string()).unwrap_or_default();
        let document = EventsDocument { stack, events };
        context.print(&document, || text(&document.events, args.all))?;
        return Ok(Exit::Done);
    }
    follow_up(context, &events, args.all)?;
    loop {
        std::thread::sleep(PAUSE);
        let records = ledger.records(stack.as_ref())?;
        let news = records.iter().filter(|record| record.number > seen);
        let news: Vec<EventDocument> = news.map(event).collect();
        seen = records.last().map_or(seen, |record| record.number);
        follow_up(context, &news, args.all)?;
    }
}

/// Walks through the whole chain.
fn verify(context: &Context) -> Result<Exit, CommandError> {
    let audit = context.ledger()?.audit()?;
    let problems = audit.problems.iter().map(|problem| ProblemDocument {
        kind: problem.kind(),
        from: problem.entries().map(|(from, _)| from),
        to: problem.entries().map(|(_, to)| to),
        text: problem.to_string(),
    });
    let document = AuditDocument {
        sound: audit.problems.is_empty(),
        entries: audit.entries,
        head: Digest::from_bytes(audit.hash).to_string(),
        problems: problems.collect(),
    };
    context.print(&document, || audit_text(&document))?;
    if document.sound {
        return Ok(Exit::Done);
    }
    context.say(
        "what runs serves on, and the daemon decides nothing on this store; end it and put \
         ROOT/store back from a backup, or, where what is there is right, take it with `kiln events --accept \
         REASON`",
    );
    Ok(Exit::Failed)
}

fn audit_text(document: &AuditDocument) -> String {
    let AuditDocument { entries, head, problems, .. } = document;
    let mut text = String::new();
    for problem in problems {
        let _ = writeln!(text, "{}: {}", problem.kind, problem.text);
    }
    let verdict = if document.sound { "all as they were written" } else { "not as written" };
    let _ = writeln!(text, "{entries} entries, {verdict}; head {head}");
    text
}

/// Has the daemon take the store as it is.
fn accept(context: &Context, because: &str, yes: bool) -> Result<Exit, CommandError> {
    if because.trim().is_empty() {
        return Err(CommandError::usage("the reason is empty")
            .with_help("say why what is there is right; it is written down"));
    }
    let question = "Take the store as it is for the truth, whatever was done to it?";
    if !yes && !context.confirm(question)? {
        return Ok(Exit::Failed);
    }
    let wanted = Acceptance { because: because.to_owned() };
    let accepted = context.ask(async |mut client| client.accept(&wanted).await)?;
    let document = AcceptanceDocument { accepted };
    context.print(&document, || match document.accepted.as_slice() {
        [] => "nothing was wrong with the store".to_owned(),
        some => {
            some.iter().fold(String::new(), |text, problem| text + "accepted: " + problem + "\n")
        }
    })?;
    Ok(Exit::Done)
}

fn follow_up(context: &Context, events: &[EventDocument], all: bool) -> Result<(), CommandError> {
    if !context.json {
        return print_text(&text(events, all));
    }
    for event in events {
        let line = serde_json::to_string(event)
            .map_err(|e| CommandError::failed("an event cannot be written").caused_by(&e))?;
        print_text(&format!("{line}\n"))?;
    }
    Ok(())
}

/// An entry of the journal: a word, or a word and its fields.
fn event(record: &Record) -> EventDocument {
    let (kind, fields) = match serde_json::to_value(&record.entry.event) {
        Ok(Value::String(kind)) => (kind, serde_json::Map::new()),
        Ok(Value::Object(mut outer)) => {
            let kind = outer.keys().next().cloned().unwrap_or_default();
            match outer.remove(&kind) {
                Some(Value::Object(fields)) => (kind, fields),
                _ => (kind, serde_json::Map::new()),
            }
        }
        _ => ("unknown".to_owned(), serde_json::Map::new()),
    };
    EventDocument {
        number: record.number,
        stack: record.stack.clone(),
        at: record.entry.at.to_string(),
        by: actor(&record.by),
        hash: record.hash.to_string(),
        content: record.content.map(|content| content.to_string()),
        kind,
        fields,
    }
}

fn actor(by: &Actor) -> ActorDocument {
    let mut document = ActorDocument {
        kind: "keeper",
        uid: None,
        pid: None,
        program: None,
        login: None,
        terminal: None,
        url: None,
        branch: None,
        commit: None,
        cause: None,
        text: by.to_string(),
    };
    if let Actor::Peer(peer) = by {
        document.kind = if peer.follows.is_some() { "follower" } else { "peer" };
        document.uid = Some(peer.uid);
        document.pid = Some(peer.pid);
        document.program = Some(peer.program.clone());
        document.login = peer.login;
        document.terminal.clone_from(&peer.terminal);
        if let Some(followed) = &peer.follows {
            document.url = Some(followed.url.clone());
            document.branch = Some(followed.branch.clone());
            document.commit.clone_from(&followed.commit);
            document.cause.clone_from(&followed.cause);
        }
    }
    document
}

/// What was wrong with the store, for events that tell of that.
fn problems(event: &EventDocument) -> Option<String> {
    let problems = event.fields.get("problems")?.as_array()?;
    let told: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
    Some(told.join("; "))
}

/// What an alarm says, for events that tell of one.
fn alarmed(event: &EventDocument, field: &str) -> Option<String> {
    let alarm = event.fields.get("alarm")?;
    let text = alarm.get(field)?.as_str()?;
    let cause = alarm.get("cause")?.as_str()?;
    Some(if field == "what" { format!("{cause}: {text}") } else { text.to_owned() })
}

/// The first difference, for events that tell of drift.
fn drifted(event: &EventDocument) -> Option<String> {
    let first = event.fields.get("drift")?.as_array()?.first()?;
    let field = |name: &str| first.get(name)?.as_str();
    Some(format!("{} is {}, not {}", field("what")?, field("found")?, field("expected")?))
}

fn text(events: &[EventDocument], all: bool) -> String {
    let mut table = Table::default();
    for event in events {
        let word = |name: &str| match event.fields.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(value) => Some(value.to_string()),
        };
        let what = word("instance")
            .or_else(|| {
                word("branch")
                    .map(|branch| format!("{branch} of {}", word("url").unwrap_or_default()))
            })
            .or_else(|| word("version").map(|version| format!("kiln {version}")))
            .or_else(|| word("id"))
            .or_else(|| problems(event))
            .or_else(|| alarmed(event, "component"))
            .or_else(|| word("component"))
            .or_else(|| word("generation").map(|generation| format!("generation {generation}")));
        let why = word("because")
            .or_else(|| drifted(event))
            .or_else(|| alarmed(event, "what"))
            .or_else(|| word("cause"))
            .or_else(|| word("count"))
            .or_else(|| {
                let reason = event.fields.get("reason")?;
                reason.get("kind")?.as_str().map(str::to_owned)
            });
        let count = || Some(format!("from {} to {}", word("was")?, word("count")?));
        let why = match (count(), why) {
            (Some(count), Some(why)) => Some(format!("{count}: {why}")),
            (_, why) => why,
        };
        let said = event.fields.get("last_words").and_then(Value::as_array);
        let said = said.and_then(|words| words.last()?.as_str()).map(|last| format!(": {last}"));
        let why = why.unwrap_or_default() + &said.unwrap_or_default();
        let at = event.at.replace('T', " ");
        let by = if event.by.kind == "keeper" { "" } else { &event.by.text };
        let by = if by.is_empty() { String::new() } else { format!("by {by}") };
        let why = [why, by].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let (what, why) = (what.unwrap_or_default(), why.join(", "));
        if all {
            table.row([&event.stack, &at, &event.kind, &what, &why]);
        } else {
            table.row([&at, &event.kind, &what, &why]);
        }
    }
    table.render(0)
}

#[cfg(test)]
mod tests {
    use kiln_engine::actor::Peer;
    use kiln_engine::journal::{Entry, Event};
    use kiln_model::quantity::Timestamp;

    use super::*;

    #[test]
    fn entries_are_a_word_and_its_fields() {
        let at = Timestamp(0);
        let made = Event::Made {
            component: "server.web".parse().unwrap(),
            instance: "web-1".parse().unwrap(),
            because: "it is missing".to_owned(),
            grows: false,
        };
        let failed = Event::Failed {
            component: "server.web".parse().unwrap(),
            instance: "web-1".parse().unwrap(),
            cause: "exited with status 2".to_owned(),
            last_words: vec!["usage: web".to_owned(), "no such option".to_owned()],
        };
        let sized = Event::Sized {
            component: "server.web".parse().unwrap(),
            was: 2,
            count: 7,
            because: "2,310 requests/s over 400 each".to_owned(),
        };
        let peer = Peer {
            uid: 0,
            pid: 4711,
            program: "/usr/bin/kiln".to_owned(),
            login: Some(1000),
            terminal: None,
            follows: None,
        };
        let events = [Event::Resumed, made, failed, sized].map(|event| Record {
            number: 1,
            stack: "shop".to_owned(),
            by: match event {
                Event::Resumed => Actor::Peer(Box::new(peer.clone())),
                _ => Actor::Keeper,
            },
            entry: Entry { at, event },
            content: None,
            hash: Digest::of(b"1"),
        });
        let events: Vec<EventDocument> = events.iter().map(event).collect();
        assert_eq!(events[0].kind, "resumed");
        let expected = "\
1970-01-01 00:00:00.000Z  resumed              by uid 0 (pid 4711, /usr/bin/kiln, login 1000)
1970-01-01 00:00:00.000Z  made     web-1       it is missing
1970-01-01 00:00:00.000Z  failed   web-1       exited with status 2: no such option
1970-01-01 00:00:00.000Z  sized    server.web  from 2 to 7: 2,310 requests/s over 400 each
";
        assert_eq!(text(&events, false), expected);
    }
}
