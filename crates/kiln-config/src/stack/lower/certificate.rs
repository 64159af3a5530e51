//! Certificates of an endpoint: `tls`.

use kiln_model::certificate::{Acme, Certificate, CertificatePair, Key, SecretKey, is_pem};
use kiln_model::text::{Part, Text};

use super::endpoint::{host, is_wild};
use super::paths::is_canonical;
use crate::stack::decode::{Field, Settings};

/// Certificates of one endpoint.
const MOST_CERTIFICATES: usize = 10_000;
/// Names of one certificate authority at one endpoint.
const MOST_NAMES: usize = 1_000;
/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The longest URL of a directory.
const LONGEST_URL: usize = 2_048;

/// One certificate, or a list of them.
pub(super) fn tls(field: &Field<'_>) -> Option<Vec<Certificate>> {
    if field.value().as_elements().is_none() {
        return certificate(field).map(|one| vec![one]);
    }
    let elements = field.elements()?;
    if elements.is_empty() || elements.len() > MOST_CERTIFICATES {
        return field.refuse("at least one certificate, such as { certificate = …, key = … }");
    }
    // Not lazily: each wrong one is to be reported.
    let read: Vec<_> = elements.iter().map(certificate).collect();
    read.into_iter().collect()
}

fn certificate(field: &Field<'_>) -> Option<Certificate> {
    const EXPECTED: &str =
        "{ certificate = \"/path.pem\", key = \"/path.key\" } or { acme = { … } }";
    let settings = field.settings(&["certificate", "key", "acme"])?;
    match ["certificate", "key", "acme"].map(|name| settings.get(name)) {
        [None, None, Some(field)] => Some(Certificate::Acme { acme: acme(field)? }),
        [Some(certificate), Some(private), None] => {
            let (certificate, key) = (text_or_path(certificate), key(private));
            Some(CertificatePair { certificate: certificate?, key: key? }.into())
        }
        _ => field.refuse(EXPECTED),
    }
}

/// The certificate itself, or the file that it is in.
fn text_or_path(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    if is_pem(&text) { Some(text) } else { path(field) }
}

/// The path of a key, or a secret and nothing around it.
fn key(field: &Field<'_>) -> Option<Key> {
    if field.value().first_secret().is_none() {
        if field.string().is_some_and(|text| is_pem(&text)) {
            let refusal = field.refusal("the path of a file, or a secret");
            field.report(refusal.with_help(
                "a key is never written in the configuration: `secret \"shop_key\" { file = … }`, \
                 and here `key = secret.shop_key`",
            ));
            return None;
        }
        return path(field).map(Key::File);
    }
    if let Some(Text::Template(parts)) = field.text()
        && let [Part::Secret(secret)] = parts.as_slice()
    {
        return Some(Key::Secret(SecretKey { secret: secret.id.clone(), version: None }));
    }
    field.refuse("a secret and nothing besides, such as secret.shop_key")
}

/// A file that the gateway reads, wherever the stack's directory is.
fn path(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    if is_canonical(&text) && text != "/" {
        return Some(text);
    }
    field.refuse("an absolute path of this machine without `.`, `..` or a final `/`")
}

fn acme(field: &Field<'_>) -> Option<Acme> {
    let settings = field.settings(&["names", "agree", "email", "directory", "roots"])?;
    let names = match settings.get("names") {
        Some(field) => names(field),
        None => field.refuse("an object with `names`, such as { names = [\"shop.example\"], … }"),
    };
    let agreed = agreed(field, &settings);
    let email = settings.read_or("email", None, |field| email(field).map(Some));
    let directory = settings.read_or("directory", LETS_ENCRYPT.to_owned(), directory);
    let roots = settings.read_or("roots", None, |field| path(field).map(Some));
    agreed?;
    Some(Acme { directory: directory?, names: names?, email: email?, roots: roots? })
}

/// Accounts are made only for who agrees to the authority's terms (RFC 8555, section 7.3).
fn agreed(field: &Field<'_>, settings: &Settings<'_>) -> Option<()> {
    let agreed = settings.read_or("agree", false, |field| field.boolean())?;
    if agreed {
        return Some(());
    }
    let place = settings.get("agree").unwrap_or(field);
    let refusal = place.refusal("told `agree = true`");
    place.report(refusal.with_help(
        "an account with the certificate authority is made only for who agrees to its terms of \
         service: read them, and say so",
    ));
    None
}

/// Host names, in lower case and each once.
fn names(field: &Field<'_>) -> Option<Vec<String>> {
    let elements = field.elements()?;
    if elements.is_empty() || elements.len() > MOST_NAMES {
        return field.refuse("at least one host name, such as [\"shop.example\"]");
    }
    let read: Vec<_> = elements.iter().map(name).collect();
    let mut names = Vec::with_capacity(read.len());
    for name in read.into_iter().collect::<Option<Vec<_>>>()? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

fn name(field: &Field<'_>) -> Option<String> {
    let name = host(field)?;
    if is_wild(&name) {
        let refusal = field.refusal("a host name without `*`");
        field.report(refusal.with_help(
            "wildcards are proved through the DNS (dns-01), which Kiln does not speak: let an \
             ACME client write `certificate` and `key`, which are read anew when they change",
        ));
        return None;
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        return field.refuse("a host name, not an address");
    }
    Some(name)
}

fn email(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let plain = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_graphic() && !b"<>,;:\"@?&".contains(&b))
    };
    match text.split_once('@') {
        Some((local, domain)) if text.len() <= 254 && plain(local) && plain(domain) => Some(text),
        _ => field.refuse("an address such as \"admin@shop.example\""),
    }
}

/// The URL of a directory. ACME is spoken through TLS only (RFC 8555, section 6.1).
fn directory(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#@".contains(&b);
    if !rest.is_empty()
        && !rest.starts_with('/')
        && text.len() <= LONGEST_URL
        && text.bytes().all(plain)
    {
        return Some(text);
    }
    field.refuse("the URL of an ACME directory, such as \"https://ca.example/directory\"")
}
