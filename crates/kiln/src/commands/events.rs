//! `kiln events`: what has happened to a stack.

use std::time::Duration;

use kiln_engine::journal::Entry;
use serde_json::Value;

use crate::context::{Context, print_text};
use crate::document::look::{EventDocument, EventsDocument};
use crate::error::{CommandError, Exit};
use crate::render::table::Table;

/// How often the journal is read while it is followed.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on as more happens
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last
    #[arg(long, value_name = "N", default_value_t = 200)]
    tail: usize,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let ledger = context.ledger()?;
    let stack = context.stack_name(&ledger)?;
    let entries = ledger.journal(&stack)?;
    let mut seen = entries.len();
    let last = &entries[seen.saturating_sub(args.tail)..];
    let events: Vec<EventDocument> = last.iter().map(event).collect();
    if !args.follow {
        let document = EventsDocument { stack: stack.to_string(), events };
        context.print(&document, || text(&document.events))?;
        return Ok(Exit::Done);
    }
    follow_up(context, &events)?;
    loop {
        std::thread::sleep(PAUSE);
        let entries = ledger.journal(&stack)?;
        let news: Vec<EventDocument> = entries.iter().skip(seen).map(event).collect();
        seen = entries.len();
        follow_up(context, &news)?;
    }
}

fn follow_up(context: &Context, events: &[EventDocument]) -> Result<(), CommandError> {
    if !context.json {
        return print_text(&text(events));
    }
    for event in events {
        let line = serde_json::to_string(event)
            .map_err(|e| CommandError::failed("an event cannot be written").caused_by(&e))?;
        print_text(&format!("{line}\n"))?;
    }
    Ok(())
}

/// An entry of the journal: a word, or a word and its fields.
fn event(entry: &Entry) -> EventDocument {
    let (kind, fields) = match serde_json::to_value(&entry.event) {
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
    EventDocument { at: entry.at.to_string(), kind, fields }
}

fn text(events: &[EventDocument]) -> String {
    let mut table = Table::default();
    for event in events {
        let word = |name: &str| match event.fields.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(value) => Some(value.to_string()),
        };
        let what = word("instance")
            .or_else(|| word("component"))
            .or_else(|| word("generation").map(|generation| format!("generation {generation}")));
        let why =
            word("because").or_else(|| word("cause")).or_else(|| word("count")).or_else(|| {
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
        table.row([&at, &event.kind, &what.unwrap_or_default(), &why]);
    }
    table.render(0)
}

#[cfg(test)]
mod tests {
    use kiln_engine::journal::Event;
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
        let events = [Event::Resumed, made, failed, sized].map(|event| Entry { at, event });
        let events: Vec<EventDocument> = events.iter().map(event).collect();
        assert_eq!(events[0].kind, "resumed");
        let expected = "\
1970-01-01 00:00:00.000Z  resumed
1970-01-01 00:00:00.000Z  made     web-1       it is missing
1970-01-01 00:00:00.000Z  failed   web-1       exited with status 2: no such option
1970-01-01 00:00:00.000Z  sized    server.web  from 2 to 7: 2,310 requests/s over 400 each
";
        assert_eq!(text(&events), expected);
    }
}
