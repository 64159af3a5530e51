//! What a question gets: a decision without side effects.

use kiln_model::route::Client;

use crate::resolver::message::{Code, Parsed, Record, TYPE_A, parse};

/// How long a client may keep an address, seconds. The addresses are stable, so this only
/// bounds how long a removed name lives on.
const TTL_S: u32 = 2;

/// The domain of all names that Kiln gives.
const DOMAIN: &str = "kiln";

/// What is to be done about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask the host's resolvers `query`; if they do not answer, send `failed`.
    Forward { query: Vec<u8>, failed: Vec<u8> },
    /// Send nothing.
    Nothing,
}

/// Answers a packet of `client` (`None`: of somebody unknown, who is refused).
///
/// A client's own names have an address and nothing else. A name without a dot or under
/// `kiln` is never asked elsewhere. Other names are forwarded where that is allowed, and do
/// not exist otherwise.
pub(crate) fn answer(client: Option<&Client>, forward: bool, packet: &[u8]) -> Answer {
    let query = match parse(packet) {
        Parsed::Query(query) => query,
        Parsed::Bad(reply) => return Answer::Reply(reply),
        Parsed::Nothing => return Answer::Nothing,
    };
    let Some(client) = client else { return Answer::Reply(query.reply(Code::Refused, None)) };
    if !query.is_internet() {
        return Answer::Reply(query.reply(Code::NotImplemented, None));
    }
    if let Some(address) = client.names.get(&query.name) {
        let record = Record { address: *address, ttl_s: TTL_S };
        let record = (query.kind == TYPE_A).then_some(record);
        return Answer::Reply(query.reply(Code::NoError, record));
    }
    if forward && !is_local(&query.name) {
        let failed = query.reply(Code::ServerFailure, None);
        return Answer::Forward { query: packet.to_vec(), failed };
    }
    Answer::Reply(query.reply(Code::NameError, None))
}

fn is_local(name: &str) -> bool {
    name.rsplit('.').next() == Some(DOMAIN) || !name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client() -> Client {
        let names = [("api", [10, 0, 0, 9]), ("api.server.kiln", [10, 0, 0, 9])];
        Client { names: names.map(|(n, a)| (n.to_owned(), a.into())).into() }
    }

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    fn replied(client: Option<&Client>, packet: &[u8]) -> (u8, Option<[u8; 4]>) {
        let Answer::Reply(reply) = answer(client, false, packet) else { panic!("no reply") };
        assert_eq!(reply[..2], packet[..2]);
        let address = (reply[7] == 1).then(|| reply[reply.len() - 4..].try_into().unwrap());
        (reply[3] & 0x0f, address)
    }

    #[test]
    fn a_client_gets_its_own_names_in_any_case() {
        let client = client();
        for name in ["api", "API", "Api.Server.KILN", "api."] {
            assert_eq!(replied(Some(&client), &query(name, 1)), (0, Some([10, 0, 0, 9])));
        }
        assert_eq!(replied(Some(&client), &query("api", 28)), (0, None));
        assert_eq!(replied(Some(&client), &query("web", 1)), (3, None));
        assert_eq!(replied(Some(&client), &query("example.org", 1)), (3, None));
        assert_eq!(replied(None, &query("api", 1)), (5, None));
    }

    #[test]
    fn only_foreign_names_are_forwarded() {
        let client = client();
        let forwarded =
            |name| matches!(answer(Some(&client), true, &query(name, 1)), Answer::Forward { .. });
        assert!(forwarded("example.org"));
        assert!(!forwarded("web.server.kiln"));
        assert!(!forwarded("kiln"));
        assert!(!forwarded("web"));
        assert!(!forwarded("api"));
        assert!(matches!(answer(None, true, &query("example.org", 1)), Answer::Reply(_)));
    }

    #[test]
    fn responses_are_not_answered_and_odd_queries_are_told_so() {
        let mut packet = query("api", 1);
        packet[2] |= 0x80;
        assert_eq!(answer(Some(&client()), true, &packet), Answer::Nothing);
        let mut packet = query("api", 1);
        packet[5] = 2;
        assert_eq!(replied(Some(&client()), &packet), (1, None));
        let mut packet = query("api", 1);
        packet[2] = 0x28;
        assert_eq!(replied(Some(&client()), &packet), (4, None));
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
            let client = client();
            match answer(Some(&client), true, &packet) {
                Answer::Reply(reply) => prop_assert!(reply.len() <= packet.len() + 16),
                Answer::Forward { query, .. } => prop_assert_eq!(query, packet),
                Answer::Nothing => {}
            }
        }

        #[test]
        fn every_name_is_read_as_it_was_written(
            labels in proptest::collection::vec("[a-z0-9_-]{1,30}", 1..5),
        ) {
            let name = labels.join(".");
            let names = [(name.clone(), [10, 1, 2, 3].into())].into();
            let client = Client { names };
            let reply = replied(Some(&client), &query(&name.to_uppercase(), 1));
            prop_assert_eq!(reply, (0, Some([10, 1, 2, 3])));
        }
    }
}
