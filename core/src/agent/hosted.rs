//! A seed as it lives on this host: its template, its image, and what keeps the seed.
//!
//! ```text
//!  Hosted --dropped--> template ends --> image serves whom children have forked --> the owner is told
//! ```

use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::fail;
use super::listeners::SeedListeners;
use super::seeds::Hold;
use crate::descriptor::{CallSite, StubPlace};
use crate::id::{ChildId, ForkKey, SeedId};
use crate::image::{Image, PageLost};
use crate::resume::{ChildSpec, NewProcess, ResumeError, Template};
use crate::wire::local::{Failure, FailureKind};

/// A seed as it lives on this host.
#[derive(Debug)]
pub struct Hosted {
    /// Its id.
    pub seed: SeedId,
    /// Bytes of its descriptor.
    pub descriptor_bytes: u64,
    /// Pages that it has in all.
    pub pages_total: u64,
    /// Pages that a child touches first, which one that is cloned ahead is given.
    pub(super) warm_pages: u64,
    /// Forks between its children and the first process.
    pub generation: u64,
    /// Where its children's stub lies, and the call sites that lead there: for seeds made of them.
    pub stub: (StubPlace, Vec<CallSite>),
    /// Sockets of the seed that its children may be told to listen by.
    pub(super) listeners: SeedListeners,
    /// The key that the first resume showed; a later one must show the same.
    pub(super) key: ForkKey,
    /// Ends with its last child, without lingering.
    pub(super) ends_with_children: AtomicBool,
    /// Set by the owner: no more children.
    pub dropping: AtomicBool,
    /// Its template or its lease is gone: the next resume asks the owner and makes another one.
    pub is_broken: AtomicBool,
    /// `None` while it is taken apart.
    pub(super) parts: Option<Parts>,
}

/// What goes with a hosted seed. First nothing can be cloned any more; then the image serves for as long as
/// anybody maps it, and only then is the owner told.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) template: Template,
    pub(super) image: Image,
    pub(super) stay: Stay,
}

/// What keeps the seed meanwhile.
#[derive(Debug)]
pub(super) enum Stay {
    /// It is another host's.
    Lease(#[expect(dead_code, reason = "dropped, it lets go")] Lease),
    /// It is this host's own.
    Hold(#[expect(dead_code, reason = "dropped, it lets go")] Hold),
    /// It is being rehearsed: whoever rehearses it keeps it.
    Rehearsal,
}

impl Drop for Hosted {
    /// Processes that a child has forked outlive it, and live on its image. Nobody waits for them here.
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        let outlast = move || {
            let Parts { template, image, stay } = parts;
            drop(template);
            image.outlast();
            drop(stay);
        };
        if let Err(error) =
            std::thread::Builder::new().name("last-mapping".to_owned()).spawn(outlast)
        {
            tracing::error!(seed = %self.seed, %error, "processes that children have forked lose their memory");
        }
    }
}

/// What tells another host that this one still needs its seed: a connection to its agent; closing it lets
/// go.
#[derive(Debug)]
pub(super) struct Lease(pub(super) TcpStream);

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// What a child is started with.
pub struct Start<'a> {
    /// ResumeInfo role.
    pub role: u32,
    /// Which of how many.
    pub index: u32,
    /// Its name.
    pub child: ChildId,
    /// For `Resumed::payload`.
    pub payload: &'a [u8],
    /// `NAME=VALUE\0...`.
    pub environment: &'a [u8],
    /// 0, 1, 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// A whole process gets new ids instead of those that it had.
    pub new_ids: bool,
    /// Sockets that listen, by the records of carried files whose place they take.
    pub listeners: &'a [(u32, BorrowedFd<'a>)],
}

impl Hosted {
    /// Starts one child as told.
    ///
    /// # Errors
    /// The template's.
    pub fn start(&self, start: &Start<'_>) -> Result<NewProcess, Failure> {
        self.child(&ChildSpec {
            role: start.role,
            index: start.index,
            generation: self.generation,
            seed: self.seed,
            child: start.child,
            payload: start.payload,
            environment: start.environment,
            stdio: start.stdio,
            listeners: start.listeners,
            extra_clone_flags: 0,
            new_ids: start.new_ids,
        })
    }
}

/// A lost page, in the words that its child's standard error and its waiter get.
pub fn lost_page_text(lost: &PageLost) -> String {
    format!(
        "mitosis: page lost: seed {} on host {}, address {}: {}",
        lost.seed, lost.owner_host, lost.addr, lost.reason
    )
}

impl Hosted {
    /// Starts one child.
    ///
    /// # Errors
    /// The template's.
    pub fn child(&self, spec: &ChildSpec<'_>) -> Result<NewProcess, Failure> {
        self.parts().template.child(spec).map_err(|error| {
            if matches!(error, ResumeError::TemplateGone { .. } | ResumeError::Timeout { .. }) {
                self.is_broken.store(true, Ordering::Release);
            }
            fail(
                FailureKind::HostUnfit,
                format!("a child of seed {} could not be started: {error}", self.seed),
            )
        })
    }

    /// Has `count` children wait to be started.
    ///
    /// # Errors
    /// The template's.
    pub fn clone_ahead(&self, count: usize) -> Result<(), ResumeError> {
        self.parts().template.clone_ahead(count)
    }

    /// Whether there can be another child.
    pub fn may_have_more(&self) -> bool {
        let over = self.dropping.load(Ordering::Acquire) || self.is_broken.load(Ordering::Acquire);
        !over && !self.ends_with_children.load(Ordering::Acquire)
    }

    /// Why a child ended before its first instruction, if it did.
    pub fn why_failed(&self, child: ChildId) -> Option<String> {
        self.parts().template.why_failed(child)
    }

    /// Whether the seed is one of this host's own.
    pub fn is_local(&self) -> bool {
        !matches!(self.parts().stay, Stay::Lease(_))
    }

    /// Its image, for counters and traces.
    pub fn image(&self) -> &Image {
        &self.parts().image
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("it is whole until it is dropped")
    }
}
