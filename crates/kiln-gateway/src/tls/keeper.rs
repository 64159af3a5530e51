//! Keeps certificates as they are in their files, and the last good one where a file is broken.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{fs, io};

use arc_swap::ArcSwap;
use kiln_model::handling::CertificateFiles;

use crate::tls::LOOK;
use crate::tls::keypair::{Keypair, LARGEST, Mark, Texts};

/// A certificate that is in use.
#[derive(Debug)]
pub(crate) struct Kept {
    files: CertificateFiles,
    pair: ArcSwap<Keypair>,
    source: Mutex<Source>,
}

/// Where the pair came from.
#[derive(Debug)]
struct Source {
    texts: Texts,
    marks: Option<[Mark; 2]>,
    /// Why what is in the files now is not used.
    trouble: Option<String>,
}

impl Kept {
    pub(super) fn pair(&self) -> arc_swap::Guard<Arc<Keypair>> {
        self.pair.load()
    }

    pub(crate) fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// The texts in use.
    pub(crate) fn texts(&self) -> Texts {
        self.source().texts.clone()
    }

    /// Why what is in the files now is not used; `None` where it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.source().trouble.clone()
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is in the files if it has changed and is good.
    fn look(&self) {
        let marks = marks(&self.files);
        let mut source = self.source();
        if marks.is_ok() && marks.as_ref().ok() == source.marks.as_ref() {
            return;
        }
        let read = marks.and_then(|marks| Ok((marks, read(&self.files)?)));
        let parsed = match &read {
            Ok((_, texts)) if *texts == source.texts => {
                source.marks = read.ok().map(|(marks, _)| marks);
                source.trouble = None;
                return;
            }
            Ok((_, texts)) => Keypair::parse(texts),
            Err(error) => Err(error.clone()),
        };
        source.marks = read.as_ref().ok().map(|(marks, _)| *marks);
        match (parsed, read) {
            (Ok(pair), Ok((_, texts))) => {
                self.pair.store(Arc::new(pair));
                source.texts = texts;
                source.trouble = None;
                eprintln!("kiln gateway: took the new certificate {}", self.files.certificate);
            }
            (Err(trouble), _) | (_, Err(trouble)) => {
                // Once, and not each time that it is looked at.
                if source.trouble.as_ref() != Some(&trouble) {
                    eprintln!(
                        "kiln gateway: the certificate {} cannot be renewed, the one before \
                         stays in use: {trouble}",
                        self.files.certificate
                    );
                }
                source.trouble = Some(trouble);
            }
        }
    }
}

/// All certificates that some table names.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    kept: Arc<Mutex<BTreeMap<CertificateFiles, Weak<Kept>>>>,
    watched: bool,
}

impl Keeper {
    /// The certificate of these files: the one that is kept, else read now.
    pub(crate) fn get(&mut self, files: &CertificateFiles) -> Result<Arc<Kept>, String> {
        if let Some(kept) = self.list().get(files).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        let marks = marks(files)?;
        let texts = read(files)?;
        self.put(files, texts, Some(marks))
    }

    /// Keeps a certificate that another process had in use.
    pub(crate) fn adopt(
        &mut self,
        files: &CertificateFiles,
        texts: Texts,
    ) -> Result<Arc<Kept>, String> {
        self.put(files, texts, None)
    }

    fn put(
        &mut self,
        files: &CertificateFiles,
        texts: Texts,
        marks: Option<[Mark; 2]>,
    ) -> Result<Arc<Kept>, String> {
        let pair = ArcSwap::from_pointee(Keypair::parse(&texts)?);
        let source = Mutex::new(Source { texts, marks, trouble: None });
        let kept = Arc::new(Kept { files: files.clone(), pair, source });
        self.list().insert(files.clone(), Arc::downgrade(&kept));
        self.watch();
        Ok(kept)
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<CertificateFiles, Weak<Kept>>> {
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

fn marks(files: &CertificateFiles) -> Result<[Mark; 2], String> {
    Ok([mark(&files.certificate)?, mark(&files.key)?])
}

fn mark(path: &str) -> Result<Mark, String> {
    let file = fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    let modified = file.modified().map_err(|error| format!("{path}: {error}"))?;
    Ok((file.dev(), file.ino(), file.len(), modified))
}

fn read(files: &CertificateFiles) -> Result<Texts, String> {
    Ok(Texts { certificate: read_text(&files.certificate)?, key: read_text(&files.key)? })
}

fn read_text(path: &str) -> Result<String, String> {
    let text = || -> io::Result<String> {
        let file = fs::File::open(path)?;
        let mut text = String::new();
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if file.take(LARGEST + 1).read_to_string(&mut text)? as u64 > LARGEST {
            return Err(io::Error::other("larger than a certificate can be"));
        }
        Ok(text)
    };
    text().map_err(|error| format!("{path}: {error}"))
}
