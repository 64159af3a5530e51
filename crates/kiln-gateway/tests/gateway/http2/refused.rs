//! What has to be refused, and how: with an error of the connection, or of the stream alone. A
//! malformed request may be answered 400 as well (RFC 9113, section 8.1.1).

use super::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITISED,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, Seen, WINDOW_UPDATE, field, fields, frame, get,
    post, setting, talk,
};
use super::{
    COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
    STREAM_CLOSED, begun, served,
};

/// A case: its section and name, what is sent, and the codes one of which must come.
type Case = (&'static str, Vec<u8>, &'static [u32]);

const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
/// The library below tells some sizes by the more general code.
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
/// A block that cannot be decoded ends the connection; the library below says so by the more
/// general code.
const CODING: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
const FLOW: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

/// What ends the connection.
#[expect(clippy::too_many_lines, reason = "a table")]
fn of_the_connection() -> Vec<Case> {
    let large = vec![b'x'; (1 << 14) + 1];
    let open = frame(HEADERS, END_STREAM, 1, &fields("GET", &[]));
    let ping = frame(PING, 0, 0, b"12345678");
    let window = |stream, bytes: u32| frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    let rest = frame(CONTINUATION, END_HEADERS, 1, &field("x-a", "1"));
    let with = |frames: &[&[u8]]| frames.concat();
    let set = |id, value| frame(SETTINGS, 0, 0, &setting(id, value));
    let head = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    let coded = |value: &[u8]| {
        let start = [&fields("GET", &[])[..], &[0, 1, b'x']].concat();
        head(&[&start[..], &[0x80 | u8::try_from(value.len()).unwrap()], value].concat())
    };
    vec![
        (
            "4.2 headers too large",
            with(&[&frame(HEADERS, END_STREAM | END_HEADERS, 1, &large)]),
            SIZE,
        ),
        ("4.2 data too large", with(&[&post(1, &[]), &frame(DATA, END_STREAM, 1, &large)]), SIZE),
        ("4.3 block that cannot be decoded", head(&[0x40]), CODING),
        (
            "4.3 priority within a block",
            with(&[&open, &frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]),
            PROTOCOL,
        ),
        ("4.3 another stream within a block", with(&[&open, &get(3)]), PROTOCOL),
        ("5.1 idle: data", frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
        ("5.1 idle: reset", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), PROTOCOL),
        ("5.1 idle: window", window(1, 9), PROTOCOL),
        ("5.1 idle: continuation", rest.clone(), PROTOCOL),
        ("5.1.1 even stream", get(2), PROTOCOL),
        ("5.1.1 lower stream", with(&[&get(5), &get(3)]), CLOSED),
        ("5.5 extension within a block", with(&[&open, &frame(0xfa, 0, 1, b"x")]), PROTOCOL),
        ("6.1 data of no stream", frame(DATA, 0, 0, b"x"), PROTOCOL),
        (
            "6.1 padding beyond the end",
            with(&[&post(1, &[]), &frame(DATA, END_STREAM | PADDED, 1, b"\x06abc")]),
            PROTOCOL,
        ),
        (
            "6.2 headers of no stream",
            frame(HEADERS, END_STREAM | END_HEADERS, 0, &fields("GET", &[])),
            PROTOCOL,
        ),
        (
            "6.2 padding beyond the end",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\x06\x82\x86"),
            PROTOCOL,
        ),
        ("6.3 priority of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), PROTOCOL),
        ("6.4 reset of no stream", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), PROTOCOL),
        (
            "6.4 reset of 3 bytes",
            with(&[&post(1, &[]), &frame(RST_STREAM, 0, 1, &[0, 0, 8])]),
            SIZE,
        ),
        ("6.5 answer with a payload", frame(SETTINGS, ACK, 0, &setting(4, 9)), SIZE),
        ("6.5 settings of a stream", frame(SETTINGS, 0, 1, &setting(4, 9)), PROTOCOL),
        ("6.5 settings of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), SIZE),
        ("6.5.2 push neither on nor off", set(2, 2), PROTOCOL),
        ("6.5.2 window too large", set(4, 1 << 31), FLOW),
        ("6.5.2 frames too small", set(5, (1 << 14) - 1), PROTOCOL),
        ("6.5.2 frames too large", set(5, 1 << 24), PROTOCOL),
        (
            "6.6 a push by a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &fields("GET", &[])].concat()),
            PROTOCOL,
        ),
        ("6.7 ping of a stream", frame(PING, 0, 1, b"12345678"), PROTOCOL),
        ("6.7 ping of 6 bytes", frame(PING, 0, 0, b"123456"), SIZE),
        ("6.8 farewell of a stream", frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL),
        ("6.9 window by nothing", window(0, 0), PROTOCOL),
        ("6.9 window of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), SIZE),
        (
            "6.9.1 window beyond 2^31 - 1",
            with(&[&window(0, 0x7fff_ffff), &window(0, 0x7fff_ffff)]),
            &[FLOW_CONTROL_ERROR],
        ),
        ("6.10 ping within a block", with(&[&open, &ping]), PROTOCOL),
        (
            "6.10 continuation of no stream",
            with(&[&open, &frame(CONTINUATION, END_HEADERS, 0, &[0x82])]),
            PROTOCOL,
        ),
        ("6.10 continuation after the end", with(&[&post(1, &[]), &rest]), PROTOCOL),
        (
            "6.10 continuation after data",
            with(&[&post(1, &[]), &frame(DATA, 0, 1, b"x"), &rest]),
            PROTOCOL,
        ),
        ("HPACK 2.3.3 index that is not there", head(&[0x82, 0x86, 0x84, 0xc6]), CODING),
        (
            "HPACK 2.3.3 name that is not there",
            head(&[0x82, 0x86, 0x84, 0x7f, 0x41, 1, b'x']),
            CODING,
        ),
        ("HPACK 4.2 size at the end", head(&[&fields("GET", &[])[..], &[0x21]].concat()), CODING),
        ("HPACK 5.2 padding of 8 bits", coded(b"\x1f\xff\xff"), CODING),
        ("HPACK 5.2 padding of zeros", coded(b"\x18"), CODING),
        ("HPACK 5.2 end of string within", coded(b"\xff\xff\xff\xff"), CODING),
        ("HPACK 6.1 index 0", head(&[0x80]), CODING),
        (
            "HPACK 6.3 size beyond what was allowed",
            head(&[0x3f, 0xe2, 0x1f, 0x82, 0x86, 0x84]),
            CODING,
        ),
    ]
}

/// What ends the stream, and may end the connection.
fn of_the_stream() -> Vec<Case> {
    let window = |bytes: u32| frame(WINDOW_UPDATE, 0, 1, &bytes.to_be_bytes());
    let head = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    let of = |pairs: &[(&str, &str)]| {
        head(&pairs.iter().flat_map(|(name, value)| field(name, value)).collect::<Vec<_>>())
    };
    let with = |others: &[(&str, &str)]| head(&fields("GET", others));
    let itself = [&[0, 0, 0, 1, 9][..], &fields("GET", &[])].concat();
    let body = |length: &str, pieces: &[&[u8]]| {
        let mut frames = post(1, &[("content-length", length)]);
        for (index, piece) in pieces.iter().enumerate() {
            let last = if index + 1 == pieces.len() { END_STREAM } else { 0 };
            frames.extend(frame(DATA, last, 1, piece));
        }
        frames
    };
    vec![
        ("5.1 half closed: data", [get(1), frame(DATA, END_STREAM, 1, b"x")].concat(), CLOSED),
        ("5.1 half closed: headers", [get(1), get(1)].concat(), CLOSED),
        (
            "5.1 closed: data",
            [
                post(1, &[]),
                frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
            CLOSED,
        ),
        (
            "5.3.1 depends on itself",
            frame(HEADERS, END_STREAM | END_HEADERS | PRIORITISED, 1, &itself),
            PROTOCOL,
        ),
        ("6.9 window by nothing", [post(1, &[]), window(0)].concat(), PROTOCOL),
        (
            "6.9.1 window beyond 2^31 - 1",
            [post(1, &[]), window(0x7fff_ffff), window(0x7fff_ffff)].concat(),
            &[FLOW_CONTROL_ERROR],
        ),
        ("8.1.1 longer than its length", body("1", &[b"abc"]), PROTOCOL),
        ("8.1.1 shorter than its length", body("9", &[b"abc", b"def"]), PROTOCOL),
        ("8.1.1 no body for its length", with(&[("content-length", "3")]), PROTOCOL),
        ("8.2.1 upper case", with(&[("X-a", "1")]), PROTOCOL),
        ("8.2.1 line feed in a value", with(&[("x-a", "1\nb: 2")]), PROTOCOL),
        ("8.2.1 zero byte in a value", with(&[("x-a", "1\0")]), PROTOCOL),
        ("8.2.1 colon in a name", with(&[("x:a", "1")]), PROTOCOL),
        ("8.2.2 connection", with(&[("connection", "keep-alive")]), PROTOCOL),
        ("8.2.2 transfer-encoding", with(&[("transfer-encoding", "chunked")]), PROTOCOL),
        ("8.2.2 keep-alive", with(&[("keep-alive", "1")]), PROTOCOL),
        ("8.2.2 proxy-connection", with(&[("proxy-connection", "close")]), PROTOCOL),
        ("8.2.2 upgrade", with(&[("upgrade", "websocket")]), PROTOCOL),
        ("8.2.2 te", with(&[("te", "trailers, deflate")]), PROTOCOL),
        ("8.3 unknown pseudo field", with(&[(":x", "1")]), PROTOCOL),
        ("8.3 pseudo field of a response", with(&[(":status", "200")]), PROTOCOL),
        (
            "8.3 pseudo field behind others",
            of(&[("x-a", "1"), (":method", "GET"), (":scheme", "http"), (":path", "/")]),
            PROTOCOL,
        ),
        (
            "8.3.1 no path",
            of(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
            PROTOCOL,
        ),
        (
            "8.3.1 empty path",
            of(&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")]),
            PROTOCOL,
        ),
        (
            "8.3.1 no method",
            of(&[(":scheme", "http"), (":path", "/"), (":authority", "a")]),
            PROTOCOL,
        ),
        (
            "8.3.1 no scheme",
            of(&[(":method", "GET"), (":path", "/"), (":authority", "a")]),
            PROTOCOL,
        ),
        ("8.3.1 two methods", with(&[(":method", "POST")]), PROTOCOL),
        ("8.3.1 two paths", with(&[(":path", "/b")]), PROTOCOL),
        ("8.3.1 another host", with(&[("host", "b")]), PROTOCOL),
        ("8.3.1 two hosts", with(&[("host", "a"), ("host", "b")]), PROTOCOL),
    ]
}

fn is_refused(name: &str, seen: &Seen, codes: &[u32]) -> bool {
    let reset = seen.resets.iter().any(|(_, code)| codes.contains(code));
    let ended = seen.goaway.is_some_and(|code| codes.contains(&code));
    assert!(!seen.answers.contains(&(1, 200)) || name.starts_with("5.1"), "{name}: {seen:?}");
    reset || ended || seen.answers.contains(&(1, 400))
}

#[test]
fn errors_of_the_connection_end_it_with_their_code() {
    let Some((_world, _network, _backend, address)) = served("errors_of_the_connection") else {
        return;
    };
    let mut wrong = Vec::new();
    for (name, frames, codes) in of_the_connection() {
        let seen = talk(address, &begun(&[&frames]));
        let told = seen.goaway.is_some_and(|code| codes.contains(&code));
        if !told || !seen.closed {
            wrong.push(format!("{name}: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let seen = talk(address, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n0123456789");
    assert!(seen.closed && seen.answers.is_empty(), "3.4 another preface: {seen:?}");
}

#[test]
fn errors_of_a_stream_end_it_with_their_code() {
    let Some((_world, _network, _backend, address)) = served("errors_of_a_stream") else { return };
    for (name, frames, codes) in of_the_stream() {
        let seen = talk(address, &begun(&[&frames]));
        assert!(is_refused(name, &seen, codes), "{name}: {seen:?}");
    }
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let Some((_world, _network, _backend, address)) = served("more_streams") else { return };
    let requests: Vec<u8> = (0..300).flat_map(|n| post(2 * n + 1, &[])).collect();
    let seen = talk(address, &begun(&[&requests]));
    let refused = seen.resets.iter().filter(|(_, code)| *code == REFUSED_STREAM).count();
    assert_eq!(refused, 300 - 256, "5.1.2: {seen:?}");
    assert!(seen.alive, "5.1.2: {seen:?}");
}

/// Pseudo fields in trailers are not refused but dropped, which comes to the same for instances.
#[test]
fn pseudo_fields_in_trailers_do_not_reach_instances() {
    let Some((_world, _network, _backend, address)) = served("pseudo_fields_in_trailers") else {
        return;
    };
    let pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/trailers"),
        (":authority", "a"),
        ("trailer", "x-checked"),
    ];
    let block: Vec<u8> = pairs.iter().flat_map(|(name, value)| field(name, value)).collect();
    let trailers = [field(":method", "GET"), field("x-checked", "yes")].concat();
    let frames = [
        frame(HEADERS, END_HEADERS, 1, &block),
        frame(DATA, 0, 1, b"abc"),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &trailers),
    ];
    let seen = talk(address, &begun(&[&frames.concat()]));
    // The instance answers with the one field that it was sent.
    assert_eq!((seen.answers, seen.body), (vec![(1, 200)], "yes".len()));
}
