//! What the card says unasked, told in the agent's log: a port that goes down, a device that is gone. READs
//! find out by themselves; this tells people why.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::sys::event::Bell;
use crate::sys::poll;
use crate::verbs::{AsyncEvent, Context};

/// The thread that listens.
#[derive(Debug)]
pub struct CardEvents {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl CardEvents {
    /// Listens to `context` until this is dropped.
    ///
    /// # Errors
    /// No descriptor or no thread is left.
    pub fn listen(context: Arc<Context>) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::new()?);
        let own = bell.clone();
        let thread = std::thread::Builder::new().name("card-events".to_owned());
        let thread = thread.spawn(move || run(&context, &own))?;
        Ok(CardEvents { bell, thread: Some(thread) })
    }
}

impl Drop for CardEvents {
    fn drop(&mut self) {
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(context: &Context, bell: &Bell) {
    let fds = [context.event_fd(), bell.as_raw_fd()];
    loop {
        match context.next_event() {
            Ok(Some(event)) => tell(context.name(), event),
            Ok(None) => {
                if poll::is_readable(bell.as_raw_fd()).unwrap_or(true) {
                    return;
                }
                if poll::readable(&fds, None).is_err() {
                    return;
                }
            }
            // As a device that is gone says it, for good.
            Err(error) => return tracing::warn!("{error}"),
        }
    }
}

fn tell(device: &str, event: AsyncEvent) {
    match event {
        AsyncEvent::AddressesChanged(_) | AsyncEvent::Other(_) => {
            tracing::debug!("{device}: {event}");
        }
        _ => tracing::warn!("{device}: {event}"),
    }
}
