//! Signals that ask this program to end, while things run that must not be left behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kiln_image::trial::Stop;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CommandError;

/// Attends to signals until it is dropped. The first one lets what must not be left behind come to
/// an end; where there is nothing of that sort, and at the second one, the program ends at once.
pub(crate) struct Signals {
    stop: Stop,
    attended: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to attend.
    pub(crate) fn attend() -> Result<Self, CommandError> {
        let (runtime, [interrupt, terminate]) = receive()
            .map_err(|e| CommandError::failed("signals cannot be received").caused_by(&e))?;
        let signals = Self { stop: Stop::default(), attended: Arc::new(AtomicBool::new(true)) };
        let (stop, attended) = (signals.stop.clone(), signals.attended.clone());
        thread::spawn(move || runtime.block_on(wait(interrupt, terminate, &stop, &attended)));
        Ok(signals)
    }

    /// What is set by the first signal.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.attended.store(false, Ordering::SeqCst);
    }
}

fn receive() -> io::Result<(Runtime, [Signal; 2])> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    Ok((runtime, signals))
}

async fn wait(mut interrupt: Signal, mut terminate: Signal, stop: &Stop, attended: &AtomicBool) {
    loop {
        let status = tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        };
        // Whoever comes after attends to interrupts in another way.
        if !attended.load(Ordering::SeqCst) {
            if status == 143 {
                std::process::exit(status);
            }
            continue;
        }
        if stop.is_set() || !stop.is_held() {
            std::process::exit(status);
        }
        stop.set();
    }
}
