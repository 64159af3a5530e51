//! Logging in: basic, or by a token that another server gives.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::PoisonError;

use serde::Deserialize;
use ureq::Body;
use ureq::http::Response;

use super::credentials::Login;
use super::request::Scope;
use super::retry::Trouble;
use super::{Registry, RegistryError};
use crate::oci::reference::Reference;

/// The longest answer of a server that gives tokens, in bytes.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// How a registry wants to be told who asks.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer(BTreeMap<String, String>),
}

impl Registry {
    /// Gets what the next request of the scope is to bring along.
    pub(super) fn authenticate(
        &self,
        scope: &Scope<'_>,
        refusal: &Response<Body>,
    ) -> Result<(), Trouble> {
        let login = self.credentials.login(scope.host, scope.repository);
        let login = login.map_err(RegistryError::from)?;
        let headers = refusal.headers().get_all("www-authenticate").iter();
        let challenges: Vec<Challenge> =
            headers.filter_map(|header| parse(header.to_str().ok()?)).collect();
        // A token says less than a password, and is preferred where both would do.
        let bearer = challenges.iter().find(|challenge| **challenge != Challenge::Basic);
        let authorization = match (bearer.or(challenges.first()), login) {
            (Some(Challenge::Bearer(fields)), login) => {
                self.token(scope, fields, login.as_ref())?
            }
            (Some(Challenge::Basic), Some(login)) => login.basic(),
            _ => return Err(unauthorized(scope, "is not known").into()),
        };
        let key = (scope.host.to_owned(), scope.names().join(" "));
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, authorization);
        Ok(())
    }

    /// Asks for a token for the scope.
    fn token(
        &self,
        scope: &Scope<'_>,
        fields: &BTreeMap<String, String>,
        login: Option<&Login>,
    ) -> Result<String, Trouble> {
        let answer = |what| RegistryError::Answer { url: scope.host.to_owned(), what };
        let realm = fields.get("realm").ok_or_else(|| answer("the address that gives tokens"))?;
        if !realm.starts_with("https://") && !is_near(realm) {
            return Err(answer("an encrypted address that gives tokens").into());
        }
        let mut url = realm.clone();
        let mut add = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.extend([name, "=", &escape(value)]);
        };
        if let Some(service) = fields.get("service") {
            add("service", service);
        }
        for name in scope.names() {
            add("scope", &name);
        }
        let mut request = ureq::http::Request::builder().method("GET").uri(&url);
        if let Some(login) = login {
            request = request.header("Authorization", login.basic());
        }
        let request = request.body(()).map_err(|error| Trouble::Again(Box::new(error)))?;
        let response = self.agent(&url).run(request);
        let response = response.map_err(|error| Trouble::Again(Box::new(error)))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => {
                let known = if login.is_some() { "is refused" } else { "is not known" };
                return Err(unauthorized(scope, known).into());
            }
            status @ (408 | 429 | 500..) => return Err(Trouble::Busy { status, after: None }),
            _ => return Err(super::request::unexpected(&url, response).into()),
        }
        let mut text = Vec::new();
        let read = response.into_body().into_reader().take(MAX_TOKEN_BYTES).read_to_end(&mut text);
        read.map_err(|error| Trouble::Again(error.into()))?;
        let token: Token = serde_json::from_slice(&text).map_err(|source| {
            RegistryError::Document { url: realm.clone(), what: "token", source }
        })?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        Ok(format!("Bearer {token}"))
    }
}

fn unauthorized(scope: &Scope<'_>, known: &'static str) -> RegistryError {
    let (host, repository) = (scope.host.to_owned(), scope.repository.to_owned());
    RegistryError::Unauthorized { host, repository, known }
}

/// Whether an address is one of this machine.
fn is_near(url: &str) -> bool {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let reference = host.and_then(|host| format!("{host}/x").parse::<Reference>().ok());
    reference.is_some_and(|reference| reference.root().starts_with("http://"))
}

/// Reads `SCHEME name="value",…` (RFC 9110, section 11.6.1).
fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut fields = BTreeMap::new();
    let mut rest = rest.trim_start();
    while let Some((name, value)) = rest.split_once('=') {
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        fields.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = behind.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer(fields))
}

/// A value in the query of an address.
fn escape(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/,".contains(&b);
    let escaped = value
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header =
            r#"Bearer realm="https://a.example/token",service="r",scope="repository:a:pull,push""#;
        let Some(Challenge::Bearer(fields)) = parse(header) else { panic!("{header}") };
        assert_eq!(fields["realm"], "https://a.example/token");
        assert_eq!(fields["scope"], "repository:a:pull,push");
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate"), None);
        assert_eq!(escape("a b&c"), "a%20b%26c");
        assert!(is_near("http://127.0.0.1:1/token") && !is_near("http://a.example/token"));
    }
}
