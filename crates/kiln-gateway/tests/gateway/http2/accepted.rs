//! What has to be accepted.

use super::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITISED,
    PRIORITY, RST_STREAM, SETTINGS, Seen, WINDOW_UPDATE, field, fields, frame, get, post, setting,
    talk,
};
use super::{begun, served};

/// What is answered to a request on stream 1.
fn is_answered(name: &str, seen: &Seen) {
    assert!(seen.answers.contains(&(1, 200)), "{name}: {seen:?}");
    assert!(seen.goaway.is_none() && seen.resets.is_empty() && seen.alive, "{name}: {seen:?}");
}

/// A request's fields, cut into a HEADERS frame and others that go on with them.
fn cut(pieces: usize) -> Vec<u8> {
    let block = fields("GET", &[("x-a", "1"), ("x-b", "2")]);
    let size = block.len().div_ceil(pieces);
    let mut frames = Vec::new();
    for (index, piece) in block.chunks(size).enumerate() {
        let last = if (index + 1) * size >= block.len() { END_HEADERS } else { 0 };
        frames.extend(match index {
            0 => frame(HEADERS, END_STREAM | last, 1, piece),
            _ => frame(CONTINUATION, last, 1, piece),
        });
    }
    frames
}

/// Requests that have to be answered with 200 on stream 1, by section.
fn answered() -> Vec<(&'static str, Vec<u8>)> {
    let mut indexed = vec![0x82, 0x86, 0x84];
    // Literals: indexed, not indexed, never indexed; with Huffman's code (RFC 7541, appendix C).
    indexed.extend([0x41, 0x8c]);
    indexed.extend(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
    indexed.extend([&[0x10, 3][..], b"x-a", &[1], b"1"].concat());
    indexed.extend([&[0x40, 3][..], b"x-b", &[1], b"2"].concat());
    let resized = [vec![0x20, 0x3f, 0xe1, 0x1f], fields("GET", &[])].concat();
    let plain = fields("GET", &[]);
    let padded = [&[3][..], &plain, &[0; 3]].concat();
    let weighed = [&[0, 0, 0, 0, 15][..], &plain].concat();
    let large = vec![b'x'; 1 << 14];
    let whole = |flags, block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS | flags, 1, block);
    vec![
        ("3.4 a request", get(1)),
        ("4.1 unknown type", [frame(0x16, 0, 0, b"12345678"), get(1)].concat()),
        ("4.1 unknown flag", [frame(PING, 0x16, 0, b"12345678"), get(1)].concat()),
        ("4.1 reserved bit", [frame(PING, 0, 1 << 31, b"12345678"), get(1)].concat()),
        ("4.2 2^14 bytes of data", [post(1, &[]), frame(DATA, END_STREAM, 1, &large)].concat()),
        (
            "5.1 priority of an idle stream",
            [frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 9]), get(1)].concat(),
        ),
        (
            "5.1 window of a half closed stream",
            [get(1), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9])].concat(),
        ),
        ("5.5 extension", [frame(0xfa, 0, 1, b"x"), get(1)].concat()),
        (
            "6.1 data",
            [post(1, &[]), frame(DATA, 0, 1, b"ab"), frame(DATA, END_STREAM, 1, b"c")].concat(),
        ),
        (
            "6.1 padded data",
            [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, b"\x03abc\0\0\0")].concat(),
        ),
        ("6.2 padded headers", whole(PADDED, &padded)),
        ("6.2 headers with priority", whole(PRIORITISED, &weighed)),
        ("6.3 priority", [frame(PRIORITY, 0, 3, &[0x80, 0, 0, 1, 255]), get(1)].concat()),
        ("6.5.2 unknown setting", [frame(SETTINGS, 0, 0, &setting(0xff, 1)), get(1)].concat()),
        ("6.7 answers nobody asked for", [frame(PING, ACK, 0, b"12345678"), get(1)].concat()),
        ("6.9 window", [frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]), get(1)].concat()),
        ("6.10 continuation", cut(2)),
        ("6.10 continuations", cut(7)),
        (
            "7 unknown error of a stream",
            [get(3), frame(RST_STREAM, 0, 3, &[0, 0, 0, 0xff]), get(5)].concat(),
        ),
        (
            "8.1 trailers",
            [
                post(1, &[("te", "trailers")]),
                frame(DATA, 0, 1, b"abc"),
                frame(HEADERS, END_STREAM | END_HEADERS, 1, &field("x-checked", "1")),
            ]
            .concat(),
        ),
        (
            "8.1.1 length",
            [post(1, &[("content-length", "3")]), frame(DATA, END_STREAM, 1, b"abc")].concat(),
        ),
        ("8.2.3 cookies", whole(0, &fields("GET", &[("cookie", "a=1"), ("cookie", "b=2")]))),
        ("HPACK 6 representations", whole(0, &indexed)),
        ("HPACK 6.3 sizes", whole(0, &resized)),
    ]
}

#[test]
fn good_requests_are_answered() {
    let Some((_world, _network, _backend, address)) = served("good_requests") else { return };
    for (name, frames) in answered() {
        let seen = talk(address, &begun(&[&frames]));
        if name.starts_with("7 ") {
            assert!(seen.answers.contains(&(5, 200)) && seen.alive, "{name}: {seen:?}");
        } else {
            is_answered(name, &seen);
        }
    }
}

#[test]
fn frames_about_the_connection_are_answered() {
    let Some((_world, _network, _backend, address)) = served("frames_about") else { return };
    let seen = talk(address, &begun(&[&frame(PING, 0, 0, b"12345678")]));
    assert_eq!((seen.pings, seen.settings_taken), (vec![*b"12345678"], 1));
    let again = frame(SETTINGS, 0, 0, &setting(4, 100));
    assert_eq!(talk(address, &begun(&[&again])).settings_taken, 2);
    let farewell = [vec![0; 4], 0xff_u32.to_be_bytes().to_vec()].concat();
    let seen = talk(address, &begun(&[&get(1), &frame(GOAWAY, 0, 0, &farewell)]));
    assert!(seen.answers.contains(&(1, 200)), "6.8, 7: {seen:?}");
}

#[test]
fn no_more_is_sent_than_the_client_has_room_for() {
    let Some((_world, _network, _backend, address)) = served("no_more_is_sent") else { return };
    let small = frame(SETTINGS, 0, 0, &setting(4, 1));
    let seen = talk(address, &begun(&[&small, &get(1)]));
    assert_eq!((seen.body, seen.answers.len()), (1, 1), "6.9.1: {seen:?}");
    // Several values count in their order; room that is given later is used, and room below none
    // is waited out.
    let twice = frame(SETTINGS, 0, 0, &[setting(4, 100), setting(4, 1)].concat());
    assert_eq!(talk(address, &begun(&[&twice, &get(1)])).body, 1, "6.5.3");
    let more = frame(SETTINGS, 0, 0, &setting(4, 3));
    assert_eq!(talk(address, &begun(&[&small, &get(1), &more])).body, 3, "6.9.2");
    let window = |bytes: u32| frame(WINDOW_UPDATE, 0, 1, &bytes.to_be_bytes());
    let frames: [&[u8]; 4] = [&small, &get(1), &frame(SETTINGS, 0, 0, &setting(4, 0)), &window(2)];
    let body = talk(address, &begun(&frames)).body;
    assert!((1..=3).contains(&body), "6.9.2, below none: {body}");
}
