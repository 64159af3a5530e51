//! Keeps certificates as they are in their files, and the last good one where a file is broken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use kiln_model::certificate::{CertificatePair, Key};

use crate::control::{CertificateStatus, Keys};
use crate::tls::LOOK;
use crate::tls::keypair::{Keypair, Texts};
use crate::tls::source::{Mark, Source, Unread};

/// A certificate that is in use.
#[derive(Debug)]
pub(crate) struct Kept {
    source: Source,
    /// None while the first one is awaited.
    pair: ArcSwapOption<Keypair>,
    read: Mutex<Read>,
}

/// What was last read.
#[derive(Debug)]
struct Read {
    texts: Option<Texts>,
    marks: Option<Vec<Mark>>,
    /// Why what is there now is not used.
    trouble: Option<Unread>,
}

impl Kept {
    pub(super) fn pair(&self) -> Option<Arc<Keypair>> {
        self.pair.load_full()
    }

    /// Whether it will be for this host, and is not there yet.
    pub(super) fn is_awaited_for(&self, host: &str) -> bool {
        let Source::Issued { name, .. } = &self.source else { return false };
        name == host && self.pair.load().is_none()
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Whether proofs for a certificate authority may be asked for here.
    pub(crate) fn is_issued(&self) -> bool {
        matches!(self.source, Source::Issued { .. })
    }

    /// The texts in use.
    pub(crate) fn texts(&self) -> Option<Texts> {
        self.last_read().texts.clone()
    }

    /// How it is.
    pub(crate) fn status(&self) -> CertificateStatus {
        let (pair, read) = (self.pair.load(), self.last_read());
        CertificateStatus {
            title: self.source.title().to_owned(),
            not_after: pair.as_ref().map(|pair| pair.validity.not_after),
            awaited: pair.is_none(),
            trouble: read.trouble.as_ref().map(ToString::to_string),
        }
    }

    fn last_read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is there now if it has changed and is good.
    fn look(&self) {
        let marks = self.source.marks();
        let mut last = self.last_read();
        if marks.is_ok() && marks.as_ref().ok() == last.marks.as_ref() {
            return;
        }
        let secret = last.texts.as_ref().map(|texts| texts.key.clone());
        let read = marks.and_then(|marks| Ok((marks, self.source.read(secret.as_deref())?)));
        let parsed = match &read {
            Ok((_, texts)) if last.texts.as_ref() == Some(texts) => {
                last.marks = read.ok().map(|(marks, _)| marks);
                last.trouble = None;
                return;
            }
            Ok((_, texts)) => Keypair::parse(texts).map_err(Unread::Broken),
            Err(error) => Err(error.clone()),
        };
        last.marks = read.as_ref().ok().map(|(marks, _)| marks.clone());
        match (parsed, read) {
            (Ok(pair), Ok((_, texts))) => {
                self.pair.store(Some(Arc::new(pair)));
                last.texts = Some(texts);
                last.trouble = None;
                eprintln!("kiln gateway: took the new certificate {}", self.source.title());
            }
            (Err(trouble), _) | (_, Err(trouble)) => {
                // Once, and not each time that it is looked at.
                if last.trouble.as_ref() != Some(&trouble) {
                    eprintln!(
                        "kiln gateway: the certificate {} cannot be renewed, the one before \
                         stays in use: {trouble}",
                        self.source.title()
                    );
                }
                last.trouble = Some(trouble);
            }
        }
    }
}

/// All certificates that some table names.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    kept: Arc<Mutex<BTreeMap<Source, Weak<Kept>>>>,
    watched: bool,
}

impl Keeper {
    /// The certificate of this source: the one that is kept, else read now. One that is to be
    /// issued may be awaited.
    pub(crate) fn get(&mut self, source: &Source, keys: &Keys) -> Result<Arc<Kept>, String> {
        if let Some(kept) = self.list().get(source).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        let secret = match source {
            Source::Pair(CertificatePair { key: Key::Secret(key), .. }) => keys.of(key),
            _ => None,
        };
        let read = source.marks().and_then(|marks| Ok((source.read(secret)?, marks)));
        match read {
            Ok((texts, marks)) => self.put(source, texts, Some(marks)),
            Err(Unread::Awaited) => {
                eprintln!(
                    "kiln gateway: there is no certificate for {} yet; clients that ask for it \
                     are refused until it is issued",
                    source.title()
                );
                let read = Read { texts: None, marks: None, trouble: Some(Unread::Awaited) };
                Ok(self.keep(source, None, read))
            }
            Err(Unread::Broken(trouble)) => Err(trouble),
        }
    }

    /// Keeps a certificate that another process had in use.
    pub(crate) fn adopt(&mut self, source: &Source, texts: Texts) -> Result<Arc<Kept>, String> {
        self.put(source, texts, None)
    }

    fn put(
        &mut self,
        source: &Source,
        texts: Texts,
        marks: Option<Vec<Mark>>,
    ) -> Result<Arc<Kept>, String> {
        let pair = Keypair::parse(&texts)?;
        let read = Read { texts: Some(texts), marks, trouble: None };
        Ok(self.keep(source, Some(pair), read))
    }

    fn keep(&mut self, source: &Source, pair: Option<Keypair>, read: Read) -> Arc<Kept> {
        let pair = ArcSwapOption::from(pair.map(Arc::new));
        let kept = Arc::new(Kept { source: source.clone(), pair, read: Mutex::new(read) });
        self.list().insert(source.clone(), Arc::downgrade(&kept));
        self.watch();
        kept
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<Source, Weak<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to look at the files, on a thread: a file may be slow.
    fn watch(&mut self) {
        if self.watched {
            return;
        }
        let kept = Arc::clone(&self.kept);
        let started =
            std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
                loop {
                    std::thread::sleep(LOOK);
                    let present: Vec<Arc<Kept>> = {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.retain(|_, kept| kept.strong_count() > 0);
                        kept.values().filter_map(Weak::upgrade).collect()
                    };
                    for kept in &present {
                        kept.look();
                    }
                }
            });
        match started {
            Ok(_) => self.watched = true,
            Err(error) => eprintln!("kiln gateway: certificates are not renewed: {error}"),
        }
    }
}
