//! What children on this host say to a caller on another: their output and their ends, in an order that
//! the caller can rely on: all that a child wrote before it ended arrives before its end.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsRawFd, RawFd};

use crossbeam_channel::Receiver;

use super::children::ChildEvent;
use crate::sys::event::Bell;
use crate::sys::poll;
use crate::wire::control::{ChannelSender, ControlReply};
use crate::wire::frame::{self, FrameError};

/// Bytes of output carried by one event.
const OUTPUT_BYTES: usize = 64 << 10;

/// Whom the children's caller is told by: nobody, once that has failed.
struct Caller<'a> {
    sender: &'a mut ChannelSender,
    gone: Option<FrameError>,
}

impl Caller<'_> {
    fn tell(&mut self, reply: &ControlReply) {
        if self.gone.is_none() {
            self.gone = frame::write(self.sender, reply).err();
        }
    }
}

/// Relays until all children have ended and their output has been sent. `bell` is rung behind each event.
///
/// If the caller's host goes away, or its agent is restarted, children go on: what they write then is taken, and lost,
/// for a pipe that nobody reads would end them.
///
/// Children that outlive the pipes' readers (grandchildren that keep them open) are not waited for.
///
/// # Errors
/// The caller's host was gone.
pub fn relay(
    to: &mut ChannelSender,
    output: &mut [(u8, PipeReader)],
    events: &Receiver<ChildEvent>,
    bell: &Bell,
    children: usize,
) -> Result<(), FrameError> {
    let mut buffer = vec![0u8; OUTPUT_BYTES];
    let mut open: Vec<bool> = output.iter().map(|_| true).collect();
    let mut left = children;
    let mut caller = Caller { sender: to, gone: None };
    while left > 0 {
        let mut fds: Vec<RawFd> = vec![bell.as_raw_fd()];
        let streams = output.iter().zip(&open).filter(|(_, open)| **open);
        fds.extend(streams.map(|((_, pipe), _)| pipe.as_raw_fd()));
        poll::readable(&fds, None)?;
        // Ends are taken first, output after, as much as is there then: so no byte written before an end is
        // left behind it, and nobody's end waits for one who goes on writing.
        bell.hush();
        let ended: Vec<ChildEvent> = events.try_iter().collect();
        drain(&mut caller, output, &mut open, &mut buffer)?;
        for event in ended {
            left -= 1;
            caller.tell(&ControlReply::Exited { child: event.child, end: event.end });
        }
    }
    caller.gone.map_or(Ok(()), Err)
}

/// Sends what is in the pipes now, and not what comes meanwhile.
fn drain(
    caller: &mut Caller<'_>,
    output: &mut [(u8, PipeReader)],
    open: &mut [bool],
    buffer: &mut [u8],
) -> Result<(), FrameError> {
    for ((stream, pipe), open) in output.iter_mut().zip(open) {
        if !*open || !poll::is_readable(pipe.as_raw_fd())? {
            continue;
        }
        let mut left = poll::bytes_in(pipe.as_raw_fd())?;
        // Readable and empty: its writers are gone.
        *open = left > 0;
        while left > 0 {
            let most = left.min(buffer.len());
            let got = pipe.read(&mut buffer[..most])?;
            left -= got;
            let bytes = buffer[..got].to_vec();
            caller.tell(&ControlReply::Output { stream: *stream, bytes });
        }
    }
    Ok(())
}

/// The pipes of one resume: what its children write, and the ends they write to.
#[derive(Debug)]
pub struct Pipes {
    /// (1, stdout), (2, stderr).
    pub output: Vec<(u8, PipeReader)>,
    /// What the children get as 1 and 2.
    pub children: [io::PipeWriter; 2],
}

impl Pipes {
    /// Two pipes.
    ///
    /// # Errors
    /// pipe(2)'s.
    pub fn new() -> io::Result<Self> {
        let (out, out_writer) = io::pipe()?;
        let (err, err_writer) = io::pipe()?;
        Ok(Pipes { output: vec![(1, out), (2, err)], children: [out_writer, err_writer] })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;
    use crate::id::ChildId;
    use crate::wire::control::{Channel, ClusterSecret};
    use crate::wire::local::ChildEnd;

    /// One that writes without a pause for as long as it is read, and one that has ended.
    #[test]
    fn an_end_does_not_wait_for_others_output() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secret = || ClusterSecret([1; 32]);
        let caller = thread::spawn(move || {
            Channel::accept(listener.accept().unwrap().0, &[secret()]).unwrap()
        });
        let host = Channel::connect(TcpStream::connect(address).unwrap(), &secret()).unwrap();
        let mut caller = caller.join().unwrap();
        let Pipes { mut output, children: [mut chatty, quiet] } = Pipes::new().unwrap();
        drop(quiet);
        let written = Arc::new(AtomicU64::new(0));
        let counts = written.clone();
        let writing = thread::spawn(move || {
            while chatty.write_all(&[b'x'; 4096]).is_ok() {
                counts.fetch_add(4096, Ordering::Relaxed);
            }
        });
        let (sender, events) = crossbeam_channel::unbounded();
        let bell = Arc::new(Bell::new().unwrap());
        let heard = bell.clone();
        let relaying = thread::spawn(move || {
            let (mut to, _receiver) = host.split();
            relay(&mut to, &mut output, &events, &heard, 2)
        });
        // The chatty one is being heard.
        assert!(matches!(frame::read(&mut caller).unwrap(), ControlReply::Output { .. }));
        sender.send(ChildEvent { child: ChildId(7), end: ChildEnd::Exited(3) }).unwrap();
        bell.ring();
        let mut bytes_before = 0;
        loop {
            match frame::read(&mut caller).unwrap() {
                ControlReply::Output { bytes, .. } => bytes_before += bytes.len(),
                ControlReply::Exited { child, .. } => break assert_eq!(child, ChildId(7)),
                other => panic!("{other:?}"),
            }
            assert!(bytes_before < 64 << 20, "the end does not come");
        }
        // Its caller's host is gone: it goes on, and is heard by nobody.
        drop(caller);
        let before = written.load(Ordering::Relaxed);
        while written.load(Ordering::Relaxed) < before + (16 << 20) {
            assert!(!writing.is_finished(), "it was ended");
            thread::yield_now();
        }
        sender.send(ChildEvent { child: ChildId(8), end: ChildEnd::Exited(0) }).unwrap();
        bell.ring();
        assert!(relaying.join().unwrap().is_err());
        writing.join().unwrap();
    }
}
