//! The HTTP client: retries, resumption and bounds around single requests.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

use super::cache::Partial;
use super::resolver::OnceResolver;
use super::{Cache, Download, FetchError, Patience, local};
use crate::checksum;
use crate::debian::date::parse_date;

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Fetches files. A proxy named by `http_proxy`, `https_proxy` or `all_proxy` is used.
#[derive(Debug)]
pub struct Fetcher {
    agent: OnceLock<Agent>,
    cache: Cache,
    patience: Patience,
}

/// What became of one attempt.
enum Outcome {
    Done,
    /// It can help to try again.
    Again(Box<dyn std::error::Error + Send + Sync>),
    /// The server failed; it can help to try again, after the time that it asks for.
    Failing {
        status: u16,
        wait: Option<Duration>,
    },
    Failed(FetchError),
}

impl Fetcher {
    /// A client that keeps what it fetches in `cache`.
    pub fn new(cache: Cache, patience: Patience) -> Self {
        Self { agent: OnceLock::new(), cache, patience }
    }

    /// The connections, made ready at the first request: reading the system's certificates takes
    /// some milliseconds, which a build that fetches nothing need not spend.
    fn agent(&self) -> &Agent {
        self.agent.get_or_init(|| {
            // Only what the system trusts is trusted; where it has no certificates, http works.
            let found = rustls_native_certs::load_native_certs().certs;
            let found: Vec<Certificate<'static>> =
                found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&found)).build();
            let config = Agent::config_builder()
                .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
                .http_status_as_error(false)
                .tls_config(tls)
                .timeout_connect(Some(self.patience.connect))
                .timeout_recv_response(Some(self.patience.stall))
                .timeout_per_read(Some(self.patience.stall))
                .timeout_global(Some(self.patience.whole))
                .build();
            Agent::with_parts(config, DefaultConnector::default(), OnceResolver::default())
        })
    }

    /// Fetches a file that is known only by its address, up to `limit_bytes`.
    pub fn fetch(&self, url: &str, limit_bytes: u64) -> Result<Vec<u8>, FetchError> {
        if let Some(path) = local::path_of(url) {
            return local::read(url, &path, limit_bytes);
        }
        let mut bytes = Vec::new();
        self.retry(url, || {
            bytes.clear();
            let response = match self.request(url, None) {
                Ok(response) => response,
                Err(outcome) => return outcome,
            };
            let reader = response.into_body().into_reader();
            match reader.take(limit_bytes + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > limit_bytes => {
                    Outcome::Failed(FetchError::TooLong { url: url.to_owned(), limit_bytes })
                }
                Ok(_) => Outcome::Done,
                Err(error) => Outcome::Again(error.into()),
            }
        })?;
        Ok(bytes)
    }

    /// Fetches a file into the cache unless it is there, and gives its path. `arrived` is told of
    /// each piece's length in bytes; a negative one takes back what has to come again.
    pub fn download(
        &self,
        download: &Download,
        arrived: &dyn Fn(i64),
    ) -> Result<PathBuf, FetchError> {
        let size = i64::try_from(download.size_bytes).unwrap_or(i64::MAX);
        if let Some(path) = self.cache.verified(&download.sha256)? {
            arrived(size);
            return Ok(path);
        }
        let mut partial = self.cache.partial(&download.sha256, self.patience.whole)?;
        // Whoever held it before may have finished it.
        if let Some(path) = self.cache.verified(&download.sha256)? {
            arrived(size);
            return Ok(path);
        }
        // The first address that has it; of the failures, one that says more than that it is
        // not there.
        let mut failure: Option<FetchError> = None;
        for url in &download.urls {
            match self.fill(url, download, &mut partial, arrived) {
                Ok(()) => return self.cache.publish(&partial, &download.sha256),
                Err(error @ FetchError::Cache { .. }) => return Err(error),
                Err(error) => {
                    let says_more = matches!(failure, None | Some(FetchError::Absent { .. }))
                        && !matches!((&failure, &error), (Some(_), FetchError::Absent { .. }));
                    if says_more {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| FetchError::Absent {
            url: download.sha256.to_string(),
            status: 404,
        }))
    }

    /// Completes a partial file from one address and checks it.
    fn fill(
        &self,
        url: &str,
        download: &Download,
        partial: &mut Partial,
        arrived: &dyn Fn(i64),
    ) -> Result<(), FetchError> {
        let path = partial.path.clone();
        let failed = |source| FetchError::Cache { path: path.clone(), source };
        let mut resumed = length_of(partial).map_err(failed)? > 0;
        if resumed {
            arrived(signed(length_of(partial).map_err(failed)?));
        }
        loop {
            match local::path_of(url) {
                Some(source) => local::copy(url, &source, download.size_bytes, partial, arrived)?,
                None => {
                    self.retry(url, || self.append(url, download.size_bytes, partial, arrived))?;
                }
            }
            let file = std::fs::File::open(&path).map_err(failed)?;
            let (found, length) = checksum::of_reader(file).map_err(failed)?;
            if found == download.sha256 {
                return Ok(());
            }
            partial.file.set_len(0).map_err(failed)?;
            arrived(-signed(length));
            // What an earlier run had left may have been damaged: once more, from the start.
            if !std::mem::take(&mut resumed) {
                let expected = download.sha256;
                return Err(FetchError::Checksum { url: url.to_owned(), expected, found });
            }
        }
    }

    /// One request that continues a partial file.
    fn append(
        &self,
        url: &str,
        size_bytes: u64,
        partial: &mut Partial,
        arrived: &dyn Fn(i64),
    ) -> Outcome {
        let path = partial.path.clone();
        let broken = |source| Outcome::Failed(FetchError::Cache { path: path.clone(), source });
        let mut have = match length_of(partial) {
            Ok(have) => have,
            Err(error) => return broken(error),
        };
        if have == size_bytes {
            return Outcome::Done;
        }
        let response = match self.request(url, (have > 0 && have < size_bytes).then_some(have)) {
            Ok(response) => response,
            Err(Outcome::Failed(FetchError::Status { status: 416, .. })) => {
                // What is there reaches beyond the server's file: once more, from the start.
                arrived(-signed(have));
                return match partial.file.set_len(0) {
                    Ok(()) => Outcome::Again("the server's file is shorter than expected".into()),
                    Err(error) => broken(error),
                };
            }
            Err(outcome) => return outcome,
        };
        if have > 0 && response.status().as_u16() != 206 {
            // The server starts over, or what is there is too long.
            if let Err(error) = partial.file.set_len(0) {
                return broken(error);
            }
            arrived(-signed(have));
            have = 0;
        }
        if let Some(found_bytes) = response.body().content_length().map(|more| have + more)
            && found_bytes != size_bytes
        {
            let (url, expected_bytes) = (url.to_owned(), size_bytes);
            return Outcome::Failed(FetchError::Length { url, expected_bytes, found_bytes });
        }
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) if have == size_bytes => return Outcome::Done,
                Ok(0) => {
                    return Outcome::Again(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Ok(count) => count,
                Err(error) => return Outcome::Again(error.into()),
            };
            have += count as u64;
            if have > size_bytes {
                let url = url.to_owned();
                return Outcome::Failed(FetchError::TooLong { url, limit_bytes: size_bytes });
            }
            if let Err(error) = partial.file.write_all(&buffer[..count]) {
                return broken(error);
            }
            arrived(signed(count as u64));
        }
    }

    /// Sends one request; what is not a success is an outcome already.
    fn request(&self, url: &str, from: Option<u64>) -> Result<Response<ureq::Body>, Outcome> {
        let mut request = self.agent().get(url);
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| Outcome::Again(Box::new(error)))?;
        match response.status().as_u16() {
            200 => Ok(response),
            206 if from.is_some() => Ok(response),
            status @ (404 | 410) => {
                Err(Outcome::Failed(FetchError::Absent { url: url.to_owned(), status }))
            }
            status if status >= 500 || status == 429 || status == 408 => {
                let wait = response.headers().get("retry-after");
                let wait = wait.and_then(|wait| wait.to_str().ok()).and_then(read_wait);
                Err(Outcome::Failing { status, wait })
            }
            status @ (401 | 403 | 407) => {
                Err(Outcome::Failed(FetchError::Refused { url: url.to_owned(), status }))
            }
            status => Err(Outcome::Failed(FetchError::Status { url: url.to_owned(), status })),
        }
    }

    /// Tries until it is done, fails for good, or patience ends.
    fn retry(&self, url: &str, mut attempt: impl FnMut() -> Outcome) -> Result<(), FetchError> {
        let deadline = Instant::now() + self.patience.whole;
        let mut pause = self.patience.first_pause;
        for attempts in 1.. {
            let last = attempts >= self.patience.attempts || Instant::now() + pause > deadline;
            let mut asked = None;
            match attempt() {
                Outcome::Done => break,
                Outcome::Failed(error) => return Err(error),
                Outcome::Failing { status, wait: Some(wait) }
                    if wait > self.patience.longest_pause || Instant::now() + wait > deadline =>
                {
                    let (url, wait_seconds) = (url.to_owned(), wait.as_secs());
                    return Err(FetchError::Later { url, status, wait_seconds });
                }
                Outcome::Failing { status, .. } if last => {
                    return Err(FetchError::Status { url: url.to_owned(), status });
                }
                Outcome::Again(source) if last => {
                    return Err(FetchError::Unreachable { url: url.to_owned(), attempts, source });
                }
                Outcome::Failing { wait, .. } => asked = wait,
                Outcome::Again(_) => {}
            }
            std::thread::sleep(asked.map_or(pause, |asked| asked.max(pause)));
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Ok(())
    }
}

/// How long a `Retry-After` header asks to wait: seconds, or a date (RFC 9110, section 10.2.3).
fn read_wait(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = u64::try_from(parse_date(value)?).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(date).saturating_sub(now))
}

fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn length_of(partial: &Partial) -> io::Result<u64> {
    partial.file.metadata().map(|metadata| metadata.len())
}
