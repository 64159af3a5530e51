//! `alarm` of the `stack` block: whom the stack tells of alarms.

use kiln_model::alarm::Hooks;

use super::demands::read;
use super::scale::program;
use crate::stack::decode::Field;
use crate::stack::world::World;

/// Longer URLs are refused by servers.
const LONGEST_URL: usize = 2_000;

/// Whom the `stack` block names; `None` where it is wrong, which has been reported.
pub(in crate::stack) fn hooks(world: &World<'_>) -> Option<Hooks> {
    Some(read(world, "alarm", alarm).ok()?.unwrap_or_default())
}

fn alarm(field: &Field<'_>) -> Option<Hooks> {
    let settings = field.settings(&["webhook", "command", "user"])?;
    let webhook = settings.read_or("webhook", None, |field| url(field).map(Some));
    let command = settings.read_or("command", None, |field| program(field).map(Some));
    let user = settings.read_or("user", None, |field| super::image::user(field).map(Some));
    let (webhook, command, user) = (webhook?, command?, user?);
    if webhook.is_none() && command.is_none() {
        return field.refuse("at least one of `webhook` and `command`");
    }
    if user.is_some() && command.is_none() {
        return settings.get("user")?.refuse("set together with `command`: nobody else is run");
    }
    Some(Hooks { webhook, command, user })
}

/// A URL that something can be sent to.
fn url(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let plain = text.len() <= LONGEST_URL && text.chars().all(|c| c.is_ascii_graphic());
    match host {
        Some(host) if plain && !host.is_empty() && !host.contains('@') => Some(text),
        _ => field.refuse("a URL without a login, such as \"https://pager.example/kiln\""),
    }
}
