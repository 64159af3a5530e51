//! Passing messages on between a client and an instance, both ways at once.

use std::task::{Context, Poll};

use super::link::read_parameter;
use super::session::{Session, Turn};
use super::tracker::Tracker;
use super::wire::{self, Fault, Malformed, Scanner, Step, code};

/// Messages that are looked at are waited for up to these sizes.
const LOOKED_AT: usize = 64 << 10;
const QUESTION: usize = 1 << 20;
const STATEMENT: usize = 16 << 20;

/// Up to which size a client's message is waited for.
fn of_client(kind: u8) -> Option<usize> {
    match kind {
        b'd' => Some(0),
        b'P' => Some(STATEMENT),
        b'Q' => Some(QUESTION),
        b'B' | b'C' | b'D' | b'E' | b'F' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(LOOKED_AT),
        _ => None,
    }
}

/// The same of an instance's. What it may say that is not known here is passed on.
fn of_instance(kind: u8) -> Option<usize> {
    match kind {
        b'1' | b'3' | b'C' | b'E' | b'G' | b'S' | b'Z' => Some(LOOKED_AT),
        _ => Some(0),
    }
}

impl Session {
    /// Passes on what can be. `was_idle` says that nothing was under way when this began.
    pub(super) fn poll_pass(&mut self, cx: &mut Context<'_>, was_idle: bool) -> Poll<Turn> {
        loop {
            let back = match self.poll_back(cx) {
                Ok(back) => back,
                Err(turn) => return Poll::Ready(turn),
            };
            let there = match self.poll_there(cx) {
                Ok(there) => there,
                Err(turn) => return Poll::Ready(turn),
            };
            let idle = self.is_idle();
            self.member.busy(!idle);
            if self.holds && idle && !was_idle {
                return Poll::Ready(Turn::Idle);
            }
            if !back && !there {
                return Poll::Pending;
            }
        }
    }

    /// From the instance to the client. Whether anything has moved.
    fn poll_back(&mut self, cx: &mut Context<'_>) -> Result<bool, Turn> {
        match self.outlet.poll_flush(cx, &mut self.client) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Turn::Done),
            Poll::Pending => return Ok(false),
        }
        let Self { link, outlet, tracker, told, ending, .. } = self;
        let Some(link) = link else { return Err(Turn::Lost) };
        let out = outlet.bytes();
        let read = link.inlet.poll_read(cx, &mut link.stream, |scanner, bytes| {
            back(scanner, bytes, out, |kind, message| {
                let body = wire::body(message);
                if kind == b'E' {
                    let fault = Fault::read(body);
                    if fault.is_fatal() && fault.is_of_instance() {
                        return Err(Turn::Lost);
                    }
                    *ending |= fault.is_fatal();
                } else if kind == b'S' {
                    told.extend(read_parameter(body));
                }
                tracker.answer(kind, body);
                Ok(())
            })
        });
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(Ok(1..))) => {
                if link.is_severed() {
                    Err(Turn::Lost)
                } else {
                    Ok(true)
                }
            }
            Poll::Ready(Ok(Ok(0)) | Err(_)) => Err(Turn::Lost),
            Poll::Ready(Ok(Err(turn))) => Err(turn),
        }
    }

    /// From the client to the instance. Whether anything has moved.
    fn poll_there(&mut self, cx: &mut Context<'_>) -> Result<bool, Turn> {
        let Self { link, inlet, client, tracker, holds, .. } = self;
        let Some(link) = link else { return Err(Turn::Lost) };
        let mut moved = !link.outlet.is_empty();
        match link.outlet.poll_flush(cx, &mut link.stream) {
            Poll::Ready(Ok(())) => {}
            // It may have said why before it went: that is read first.
            Poll::Ready(Err(_)) => {
                link.outlet.clear();
                return Ok(false);
            }
            Poll::Pending => return Ok(false),
        }
        let out = link.outlet.bytes();
        if !inlet.kept.is_empty() {
            let done = inlet.scan(|scanner, bytes| there(scanner, bytes, out, tracker, *holds))?;
            moved |= done > 0;
        }
        let stopped = *holds && !inlet.scanner.is_within() && !tracker.wants_more();
        if stopped || !out.is_empty() {
            return Ok(moved);
        }
        let read = inlet
            .poll_read(cx, client, |scanner, bytes| there(scanner, bytes, out, tracker, *holds));
        match read {
            Poll::Pending => Ok(moved),
            Poll::Ready(Ok(Ok(0)) | Err(_)) => Err(Turn::Done),
            Poll::Ready(Ok(Ok(_))) => Ok(true),
            Poll::Ready(Ok(Err(turn))) => Err(turn),
        }
    }
}

/// Appends to `out` what a client says, up to where nothing new is to be taken.
fn there(
    scanner: &mut Scanner,
    bytes: &[u8],
    out: &mut Vec<u8>,
    tracker: &mut Tracker,
    holds: bool,
) -> Result<usize, Turn> {
    let mut at = 0;
    while !holds || scanner.is_within() || tracker.wants_more() {
        let step = scanner.step(&bytes[at..], of_client);
        let step = step.map_err(|Malformed(what)| Turn::Fatal(code::PROTOCOL, what.to_owned()))?;
        let size = step.size();
        match step {
            Step::More => break,
            Step::Whole { kind: b'X', .. } => {
                out.extend_from_slice(&bytes[..at + size]);
                return Err(Turn::Done);
            }
            Step::Whole { kind, bytes } => tracker.ask(kind, bytes, true),
            Step::Begun { kind, bytes } => tracker.ask(kind, bytes, false),
            Step::Rest(_) => {}
        }
        at += size;
    }
    out.extend_from_slice(&bytes[..at]);
    Ok(at)
}

/// Appends to `out` what an instance says, up to what `look` does not let through.
fn back(
    scanner: &mut Scanner,
    bytes: &[u8],
    out: &mut Vec<u8>,
    mut look: impl FnMut(u8, &[u8]) -> Result<(), Turn>,
) -> Result<usize, Turn> {
    let mut at = 0;
    loop {
        let step = scanner.step(&bytes[at..], of_instance);
        let step = step.map_err(|_| Turn::Lost)?;
        let size = step.size();
        match step {
            Step::More => break,
            Step::Whole { kind, bytes: message } if of_instance(kind) != Some(0) => {
                if let Err(turn) = look(kind, message) {
                    out.extend_from_slice(&bytes[..at]);
                    return Err(turn);
                }
            }
            Step::Whole { .. } | Step::Begun { .. } | Step::Rest(_) => {}
        }
        at += size;
    }
    out.extend_from_slice(&bytes[..at]);
    Ok(at)
}
