//! Gzip, by all processors, with the same bytes whatever their number.
//!
//! The stream is cut into chunks of a fixed length; each becomes a member of its own (RFC 1952,
//! section 2.2), and readers see their concatenation. The bytes depend on the version of the
//! compressor only, which a test pins.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// The length of a chunk in bytes: long enough that the compressor's window is full most of the
/// time, short enough that a small image keeps several processors busy.
const CHUNK_BYTES: usize = 1 << 20;
/// Of 1 to 9: what is gained beyond costs more time than it saves on the wire.
const LEVEL: u32 = 6;

type Job = (u64, Vec<u8>);
type Done = (u64, io::Result<Vec<u8>>);

/// Compresses what is written to it, and passes it on in order.
pub struct Gzip<W: Write> {
    sink: W,
    chunk: Vec<u8>,
    /// None once everything is handed over.
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    /// Chunks that came before those ahead of them.
    early: BTreeMap<u64, Vec<u8>>,
    handed_over: u64,
    passed_on: u64,
    most_ahead: u64,
    workers: Vec<JoinHandle<()>>,
}

impl<W: Write> Gzip<W> {
    /// A compressor by `workers` threads.
    pub fn new(sink: W, workers: usize) -> Self {
        let workers = workers.max(1);
        let (jobs, queue) = sync_channel::<Job>(workers);
        let queue = Arc::new(Mutex::new(queue));
        let (give, done) = channel();
        let spawn = |_| {
            let (queue, give) = (Arc::clone(&queue), give.clone());
            std::thread::spawn(move || work(&queue, &give))
        };
        Self {
            sink,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            jobs: Some(jobs),
            done,
            early: BTreeMap::new(),
            handed_over: 0,
            passed_on: 0,
            most_ahead: 3 * workers as u64,
            workers: (0..workers).map(spawn).collect(),
        }
    }

    /// Writes what is left and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        // An empty stream is one member with nothing in it.
        if !self.chunk.is_empty() || self.handed_over == 0 {
            self.hand_over()?;
        }
        drop(self.jobs.take());
        while self.passed_on < self.handed_over {
            self.pass_on()?;
        }
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| io::Error::other("a thread that compresses has failed"))?;
        }
        Ok(self.sink)
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let gone = || io::Error::other("the threads that compress have ended");
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send((self.handed_over, chunk)).map_err(|_| gone())?;
        self.handed_over += 1;
        while self.handed_over - self.passed_on > self.most_ahead {
            self.pass_on()?;
        }
        Ok(())
    }

    /// Waits for one chunk and passes on all that are next.
    fn pass_on(&mut self) -> io::Result<()> {
        let gone = |_| io::Error::other("the threads that compress have ended");
        let (number, packed) = self.done.recv().map_err(gone)?;
        self.early.insert(number, packed?);
        while let Some(packed) = self.early.remove(&self.passed_on) {
            self.sink.write_all(&packed)?;
            self.passed_on += 1;
        }
        Ok(())
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK_BYTES {
            self.hand_over()?;
        }
        Ok(count)
    }

    /// Does nothing: where members begin must not depend on when somebody flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>, give: &Sender<Done>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, chunk)) = next else { return };
        if give.send((number, member(&chunk))).is_err() {
            return;
        }
    }
}

/// One member: header, deflated bytes, checksum and length (RFC 1952, section 2.3).
fn member(chunk: &[u8]) -> io::Result<Vec<u8>> {
    // No name, no time, no operating system.
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    // What can't be made smaller grows by a few bytes for each 16 KiB; all of it has room, so that
    // the compressor is called once.
    let mut packed = Vec::with_capacity(chunk.len() + chunk.len() / 1000 + 1024);
    packed.extend(HEADER);
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    let status = compress.compress_vec(chunk, &mut packed, FlushCompress::Finish)?;
    if status != Status::StreamEnd {
        return Err(io::Error::other("a chunk did not fit into the room made for it"));
    }
    let mut crc = Crc::new();
    crc.update(chunk);
    packed.extend(crc.sum().to_le_bytes());
    packed.extend(crc.amount().to_le_bytes());
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use kiln_model::digest::Digest;

    use super::*;

    /// Bytes that compress about as well as programs do.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = state.to_be_bytes()[0];
            if byte.is_multiple_of(4) { byte } else { byte & 0x0f }
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn packed(bytes: &[u8], workers: usize, piece: usize) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new(), workers);
        bytes.chunks(piece).for_each(|piece| gzip.write_all(piece).unwrap());
        gzip.finish().unwrap()
    }

    #[test]
    fn the_bytes_follow_from_the_content_alone() {
        let bytes = sample(5 * CHUNK_BYTES / 2);
        let once = packed(&bytes, 1, 700);
        for (workers, piece) in [(2, bytes.len()), (7, 512), (3, CHUNK_BYTES)] {
            assert_eq!(packed(&bytes, workers, piece), once);
        }
        let mut back = Vec::new();
        flate2::read::MultiGzDecoder::new(&once[..]).read_to_end(&mut back).unwrap();
        assert!(back == bytes);
        assert_eq!(packed(&[], 2, 1).len(), 20);
    }

    #[test]
    fn incompressible_bytes_have_room() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES as u64 / 32)
            .flat_map(|n| *Digest::of(&n.to_le_bytes()).as_bytes())
            .collect();
        assert!(packed(&bytes, 1, bytes.len()).len() > bytes.len());
    }

    /// Another version of the compressor may give other bytes. Where this fails after an update,
    /// raise `BUILDER` in `build/mod.rs` with the digest here.
    #[test]
    fn the_compressor_gives_the_bytes_that_it_gave() {
        let digest = Digest::of(&packed(&sample(CHUNK_BYTES + 1000), 2, 4096));
        assert_eq!(
            digest.to_string(),
            "sha256:e030de802ef60c971d8a741849adc0ee31ad2f9378db02a5e065516efcb99181"
        );
    }
}
