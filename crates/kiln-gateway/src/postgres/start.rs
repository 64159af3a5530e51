//! From a client's first byte to a session: TLS, the startup message, the password.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::login::Login;
use super::scram::{Exchange, Failure};
use super::wire::{self, CancelKey, code};
use crate::client::{Secured, Stream};
use crate::tls::{self, Agreed};

/// The longest startup message: PostgreSQL's own bound.
const LONGEST_STARTUP: usize = 10_000;

/// The longest message in the course of a login.
const LONGEST_ANSWER: usize = 2_000;

/// What TLS begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// The one mechanism.
const MECHANISM: &[u8] = b"SCRAM-SHA-256";

/// What a client wants.
#[derive(Debug)]
pub(super) enum Begun {
    /// A session.
    Session(Stream, Startup),
    /// To cancel what another connection has asked.
    Cancel(CancelKey),
    /// Nothing more.
    Nothing,
}

/// A startup message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Startup {
    pub(super) user: Vec<u8>,
    pub(super) database: Vec<u8>,
    /// All others.
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether a newer version or an extension of the protocol was asked for, and which.
    newer: Option<Vec<Vec<u8>>>,
}

/// Why a client gets no session: a code and a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str, pub(super) String);

impl Startup {
    /// Reads the body that follows the version.
    fn read(version: i32, mut body: &[u8]) -> Result<Self, Refused> {
        if version >> 16 != wire::VERSION >> 16 {
            let (major, minor) = (version >> 16, version & 0xffff);
            let message = format!("unsupported frontend protocol {major}.{minor}: 3.0 is spoken");
            return Err(Refused(code::UNSUPPORTED, message));
        }
        let malformed = || Refused(code::PROTOCOL, "invalid startup packet layout".to_owned());
        let (mut startup, mut extensions) = (Self::default(), Vec::new());
        loop {
            let (name, rest) = wire::split_text(body).ok_or_else(malformed)?;
            if name.is_empty() {
                if !rest.is_empty() {
                    return Err(malformed());
                }
                break;
            }
            let (value, rest) = wire::split_text(rest).ok_or_else(malformed)?;
            let value = value.to_vec();
            match name {
                b"user" => startup.user = value,
                b"database" => startup.database = value,
                b"replication" if !matches!(&*value, b"false" | b"off" | b"no" | b"0") => {
                    let message = "replication does not go through the gate";
                    return Err(Refused(code::UNSUPPORTED, message.to_owned()));
                }
                b"replication" => {}
                _ if name.starts_with(b"_pq_.") => extensions.push(name.to_vec()),
                _ => startup.parameters.push((name.to_vec(), value)),
            }
            body = rest;
        }
        if startup.user.is_empty() {
            let message = "no PostgreSQL user name specified in startup packet";
            return Err(Refused(code::NOT_ALLOWED, message.to_owned()));
        }
        if startup.database.is_empty() {
            startup.database.clone_from(&startup.user);
        }
        if version != wire::VERSION || !extensions.is_empty() {
            startup.newer = Some(extensions);
        }
        Ok(startup)
    }

    /// The message by which an instance is asked for the same.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut body = wire::VERSION.to_be_bytes().to_vec();
        let named = [(&b"user"[..], &self.user), (b"database", &self.database)];
        let others = self.parameters.iter().map(|(name, value)| (&**name, value));
        for (name, value) in named.into_iter().chain(others) {
            wire::text(&mut body, name);
            wire::text(&mut body, value);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or_default();
        [&length.to_be_bytes()[..], &body].concat()
    }
}

/// Reads up to the startup message. What a client may not do is told to it here.
pub(super) async fn begin(
    stream: TcpStream,
    side: Option<tls::Side>,
    proofs: &tls::Proofs,
) -> io::Result<Begun> {
    let wants_tls = side.is_some();
    let mut first = [0];
    let direct = wants_tls && stream.peek(&mut first).await? == 1 && first[0] == HANDSHAKE;
    let mut stream = match side.clone() {
        Some(side) if direct => match secure(side, proofs, stream).await? {
            Some(secured) => secured,
            None => return Ok(Begun::Nothing),
        },
        _ => Stream::Plain(stream),
    };
    // Encryption of each kind may be asked for once, as PostgreSQL has it.
    for _ in 0..3 {
        let Some((version, body)) = first_message(&mut stream).await? else {
            return Ok(Begun::Nothing);
        };
        match (version, stream) {
            (wire::CANCEL, _) => {
                return Ok(CancelKey::read(&body).map_or(Begun::Nothing, Begun::Cancel));
            }
            (wire::TLS, Stream::Plain(mut plain)) => {
                stream = if let Some(side) = side.clone() {
                    plain.write_all(b"S").await?;
                    match secure(side, proofs, plain).await? {
                        Some(secured) => secured,
                        None => return Ok(Begun::Nothing),
                    }
                } else {
                    plain.write_all(b"N").await?;
                    Stream::Plain(plain)
                };
            }
            (wire::TLS | wire::GSS, mut same) => {
                same.write_all(b"N").await?;
                same.flush().await?;
                stream = same;
            }
            (_, Stream::Plain(plain)) if wants_tls => {
                let message = "this endpoint takes connections by TLS only: use sslmode=require";
                let refused = Refused(code::NOT_ALLOWED, message.to_owned());
                refuse(&mut Stream::Plain(plain), &refused).await;
                return Ok(Begun::Nothing);
            }
            (version, mut same) => {
                return Ok(match Startup::read(version, &body) {
                    Ok(startup) => Begun::Session(same, startup),
                    Err(refused) => {
                        refuse(&mut same, &refused).await;
                        Begun::Nothing
                    }
                });
            }
        }
    }
    Ok(Begun::Nothing)
}

/// The handshake of TLS; nothing where it was a question of a certificate authority.
async fn secure(
    side: tls::Side,
    proofs: &tls::Proofs,
    stream: TcpStream,
) -> io::Result<Option<Stream>> {
    let (mut stream, agreed) = tls::accept(side, proofs, stream).await?;
    if agreed == Agreed::Proof {
        stream.shutdown().await?;
        return Ok(None);
    }
    Ok(Some(Stream::Tls(Box::new(Secured::new(stream)))))
}

/// A message without a kind, and the number that it begins with.
async fn first_message(stream: &mut Stream) -> io::Result<Option<(i32, Vec<u8>)>> {
    let mut head = [0; 8];
    // A client that only looks whether somebody listens says nothing.
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let [a, b, c, d, version @ ..] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(8..=LONGEST_STARTUP).contains(&length) {
        let message = "invalid length of startup packet".to_owned();
        refuse(stream, &Refused(code::PROTOCOL, message)).await;
        return Ok(None);
    }
    let mut body = vec![0; length - 8];
    stream.read_exact(&mut body).await?;
    Ok(Some((i32::from_be_bytes(version), body)))
}

/// Has a client prove who it is. The answer says why not; `Err` means that the client is gone.
pub(super) async fn authenticate(
    stream: &mut Stream,
    startup: &Startup,
    login: &Login,
) -> io::Result<Result<(), Refused>> {
    let mut out = Vec::new();
    if let Some(extensions) = &startup.newer {
        wire::put(&mut out, b'v', |out| {
            out.extend(wire::VERSION.to_be_bytes());
            out.extend(u32::try_from(extensions.len()).unwrap_or_default().to_be_bytes());
            extensions.iter().for_each(|name| wire::text(out, name));
        });
    }
    authentication(&mut out, 10, |out| {
        wire::text(out, MECHANISM);
        out.push(0);
    });
    send(stream, &out).await?;
    let first = match answer(stream).await? {
        Ok(first) => first,
        Err(refused) => return Ok(Err(refused)),
    };
    let malformed = |what: &str| Ok(Err(Refused(code::PROTOCOL, format!("SCRAM: {what}"))));
    let Some((MECHANISM, rest)) = wire::split_text(&first) else {
        return malformed("another mechanism than SCRAM-SHA-256 was chosen");
    };
    let first = rest.split_first_chunk().filter(|(length, data)| {
        usize::try_from(i32::from_be_bytes(**length)).is_ok_and(|length| length == data.len())
    });
    let Some((_, first)) = first else { return malformed("the first message is cut short") };
    let (exchange, challenge) = match Exchange::begin(first, login.salt) {
        Ok(begun) => begun,
        Err(Failure::Malformed(what)) => return malformed(what),
        Err(Failure::Password) => return Ok(Err(wrong_password(startup))),
    };
    out.clear();
    authentication(&mut out, 11, |out| out.extend(challenge.as_bytes()));
    send(stream, &out).await?;
    let last = match answer(stream).await? {
        Ok(last) => last,
        Err(refused) => return Ok(Err(refused)),
    };
    let proved = exchange.end(&last, &login.verifiers());
    let proof = match proved {
        Ok(proof) if startup.user == login.user.as_bytes() => proof,
        Ok(_) | Err(Failure::Password) => return Ok(Err(wrong_password(startup))),
        Err(Failure::Malformed(what)) => return malformed(what),
    };
    if startup.database != login.database.as_bytes() {
        let name = String::from_utf8_lossy(&startup.database);
        let message = format!("database \"{name}\" does not exist");
        return Ok(Err(Refused(code::NO_DATABASE, message)));
    }
    out.clear();
    authentication(&mut out, 12, |out| out.extend(proof.as_bytes()));
    authentication(&mut out, 0, |_| {});
    send(stream, &out).await?;
    Ok(Ok(()))
}

fn wrong_password(startup: &Startup) -> Refused {
    let user = String::from_utf8_lossy(&startup.user);
    Refused(code::PASSWORD, format!("password authentication failed for user \"{user}\""))
}

fn authentication(out: &mut Vec<u8>, what: i32, more: impl FnOnce(&mut Vec<u8>)) {
    wire::put(out, b'R', |out| {
        out.extend(what.to_be_bytes());
        more(out);
    });
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// The body of the client's next message, which has to be one of a login.
async fn answer(stream: &mut Stream) -> io::Result<Result<Vec<u8>, Refused>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let [kind, a, b, c, d] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if kind != b'p' || !(4..=LONGEST_ANSWER).contains(&length) {
        let message = "expected SASL response, got another message".to_owned();
        return Ok(Err(Refused(code::PROTOCOL, message)));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(Ok(body))
}

/// Tells a client why it gets no session.
pub(super) async fn refuse(stream: &mut Stream, Refused(code, message): &Refused) {
    let mut out = Vec::new();
    wire::fatal(&mut out, code, message);
    // One that is gone needs no reason.
    if send(stream, &out).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn startup_messages_are_read_and_written() {
        let body = b"user\0u\0application_name\0psql\0_pq_.x\0y\0\0";
        let startup = Startup::read(wire::VERSION, body).unwrap();
        assert_eq!((&*startup.user, &*startup.database), (&b"u"[..], &b"u"[..]));
        assert_eq!(startup.newer, Some(vec![b"_pq_.x".to_vec()]));
        let message = startup.message();
        assert_eq!(message[..4], u32::try_from(message.len()).unwrap().to_be_bytes());
        let again = Startup::read(wire::VERSION, &message[8..]).unwrap();
        assert_eq!(again, Startup { newer: None, ..startup });
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_code() {
        let code = |version, body: &[u8]| Startup::read(version, body).map_err(|r| r.0);
        assert_eq!(code(2 << 16, b"user\0u\0\0"), Err("0A000"));
        assert_eq!(code(wire::VERSION, b"\0"), Err("28000"));
        assert_eq!(code(wire::VERSION, b"user\0u\0"), Err("08P01"));
        assert_eq!(code(wire::VERSION, b"user\0u\0\0x"), Err("08P01"));
        assert_eq!(code(wire::VERSION, b"user\0u\0replication\0true\0\0"), Err("0A000"));
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Startup::read(wire::VERSION, &body);
        }
    }
}
