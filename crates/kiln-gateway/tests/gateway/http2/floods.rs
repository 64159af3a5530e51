//! Floods: what costs a client nothing and must not cost the gateway much either.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{
    CONTINUATION, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, connect, field, fields, frame,
    get, setting, talk,
};
use super::{ENHANCE_YOUR_CALM, begun, served};
use crate::client;
use crate::world::World;

/// How much memory a flood may cost, bytes: the buffers of one connection and their slack.
const COST: u64 = 24 << 20;

/// Frames of one flood.
const FRAMES: usize = 50_000;

/// Sends as long as it is taken, and reads nothing; meanwhile others are served.
fn flood(world: &World, address: SocketAddr, frames: &[u8], times: usize) {
    let before = world.memory();
    let mut stream = connect(address);
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, begun_at) = (stream.write_all(&begun(&[])), Instant::now());
    let mut asked = 0;
    for _ in 0..times / 100 {
        if sent.is_ok() && begun_at.elapsed() < Duration::from_secs(10) {
            sent = stream.write_all(&frames.repeat(100));
        }
        if asked < 20 {
            let begun_at = Instant::now();
            assert_eq!(client::get(address, "/").unwrap().status, 200);
            assert!(begun_at.elapsed() < Duration::from_secs(5), "others wait");
            asked += 1;
        }
    }
    let cost = world.memory().saturating_sub(before);
    assert!(cost < COST, "{cost} bytes");
    drop(stream);
    assert_eq!(client::get(address, "/").unwrap().status, 200);
}

#[test]
fn floods_of_pings_and_settings_cost_little() {
    let Some((world, _network, _backend, address)) = served("floods_of_pings") else { return };
    flood(&world, address, &frame(PING, 0, 0, b"12345678"), FRAMES);
    flood(&world, address, &frame(SETTINGS, 0, 0, &setting(4, 65_535)), FRAMES);
}

#[test]
fn requests_that_are_taken_back_at_once_cost_little() {
    let Some((world, _network, _backend, address)) = served("requests_taken_back") else { return };
    let before = world.memory();
    let calls: Vec<u8> = (0..5_000)
        .flat_map(|n| [get(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
        .collect();
    for _ in 0..4 {
        let seen = talk(address, &begun(&[&calls]));
        assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
        assert_eq!(client::get(address, "/").unwrap().status, 200);
    }
    let cost = world.memory().saturating_sub(before);
    assert!(cost < COST, "{cost} bytes");
}

#[test]
fn heads_without_an_end_are_cut_off() {
    let Some((world, _network, _backend, address)) = served("heads_without_an_end") else { return };
    let before = world.memory();
    // Small pieces, and large ones that say much.
    let large: Vec<u8> = (0..200).flat_map(|n| field(&format!("x-{n}"), &"y".repeat(60))).collect();
    for piece in [field("x-a", "1"), large] {
        let start = frame(HEADERS, END_STREAM, 1, &fields("GET", &[]));
        let endless = frame(CONTINUATION, 0, 1, &piece).repeat(5_000);
        let seen = talk(address, &begun(&[&start, &endless]));
        assert!(seen.closed && seen.answers.iter().all(|(_, status)| *status != 200), "{seen:?}");
        assert_eq!(client::get(address, "/").unwrap().status, 200);
    }
    let cost = world.memory().saturating_sub(before);
    assert!(cost < COST, "{cost} bytes");
}

#[test]
fn a_head_that_is_too_large_is_answered_so() {
    let Some((_world, _network, _backend, address)) = served("a_head_too_large") else { return };
    let start = frame(HEADERS, END_STREAM, 1, &fields("GET", &[]));
    let piece: Vec<u8> =
        (0..120).flat_map(|n| field(&format!("x-{n}"), &"y".repeat(120))).collect();
    let (more, last) = (frame(CONTINUATION, 0, 1, &piece), frame(CONTINUATION, 4, 1, &piece));
    let seen = talk(address, &begun(&[&start, &more.repeat(4), &last]));
    assert!(seen.answers.iter().all(|(_, status)| *status != 200), "{seen:?}");
    assert!(seen.closed || !seen.resets.is_empty() || !seen.answers.is_empty(), "{seen:?}");
}
