//! Descriptor -> restore program -> template -> child.
//!
//! ```text
//!  Descriptor + Placement --compile--> Program --keeper forks, blob runs it--> Template (stopped)
//!                                                                                  | clone3 + tail
//!                                                                                  v
//!                                                                                child
//! ```

#[path = "../../restorer/abi.rs"]
pub mod abi;
mod ahead;
pub mod blob;
mod calls;
pub mod child;
mod clock;
pub mod compile;
pub mod credentials;
mod entering;
mod file_calls;
pub(crate) mod files;
mod host;
mod pieces;
pub mod placement;
pub mod program;
mod shared;
pub mod sites;
mod stand_in;
mod state;
pub mod stub;
pub mod template;
pub mod threads;
pub mod vdso;

use std::io;
use std::time::Duration;

use crate::descriptor::SeedAddr;
use crate::keeper::KeeperError;

pub use ahead::warming;
pub use child::{ChildSpec, Own, TailFacts, TailPlace};
pub use compile::{CompileError, HostFacts, SharedView, TemplateFds, compile};
pub use credentials::CredentialsError;
pub use entering::{Entering, Enters};
pub use placement::{Beneath, Placement};
pub use shared::SharedHere;
pub use template::{NewProcess, Template, TemplateSpec};
pub use threads::FurtherThreads;
pub use vdso::{HostVdso, Vdso, VdsoError};

/// Why there is no template or child.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The seed's address space is too full.
    #[error("the seed leaves no room for the restorer{}: it cannot be resumed",
        near.map(|addr| format!(" near {addr}")).unwrap_or_default())]
    NoRoom {
        /// The call sites that a trampoline was wanted for; `None` for the restorer itself.
        near: Option<SeedAddr>,
    },
    /// The descriptor cannot be restored here.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The keeper did not do its part.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// What the keeper has mapped could not be read.
    #[error("cannot read {what} of the keeper: {source}")]
    Facts {
        /// A file below /proc.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The region's memfd could not be made.
    #[error("cannot make the restorer's memory: {0}")]
    Region(io::Error),
    /// The command socket could not be made.
    #[error("cannot make a template's socket: {0}")]
    Socket(io::Error),
    /// What takes the place of the seed's descriptors cannot be opened.
    #[error("cannot open /dev/null: {0}")]
    Nothing(io::Error),
    /// The program has too many steps.
    #[error("the restore program has {bytes} bytes, too many: the seed has too many mappings")]
    ProgramTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The stub's table is too large.
    #[error("the stub's table has {bytes} bytes, too many: the seed maps too much memory")]
    StubTableTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The table of further threads is too large.
    #[error("the table of threads has {bytes} bytes, too many: the seed has too many threads")]
    ThreadTableTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The keeper's child did not get into the restorer.
    #[error("a template could not begin: {what} ({source})")]
    Setup {
        /// What went wrong.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A step of the program failed.
    #[error("step {step} of the restore program, {text}: {why}")]
    Step {
        /// Its number.
        step: u32,
        /// The step.
        text: String,
        /// What it answered.
        why: String,
    },
    /// The template ended.
    #[error("template {pid} is gone: it was killed, or memory of its seed could not be had")]
    TemplateGone {
        /// Its pid.
        pid: u32,
    },
    /// The template hangs.
    #[error("template {pid} did not {what} within {timeout:?}: is its seed's host reachable?")]
    Timeout {
        /// Its pid.
        pid: u32,
        /// What it was to do.
        what: &'static str,
        /// Its time.
        timeout: Duration,
    },
    /// The kernel does not clone.
    #[error("a child cannot be cloned: {source} (limits on processes or memory?)")]
    Clone {
        /// Why.
        source: io::Error,
    },
    /// Payload and environment are too large.
    #[error(
        "payload and environment have {bytes} bytes, {} are the limit",
        crate::prepare::MAX_MAIL_BYTES
    )]
    MailTooLarge {
        /// Their size.
        bytes: usize,
    },
    /// An id map leaves out whom the child is.
    #[error(
        "its process has the {what} id {id}, which the id map leaves out: give a part that has it inside"
    )]
    NotInIdMap {
        /// A user or a group.
        what: &'static str,
        /// Which.
        id: u32,
    },
    /// An id map, and several threads.
    #[error(
        "its process has {0} threads, and the kernel lets none with others enter a user namespace: leave out the id map"
    )]
    IdMapOfThreads(u64),
    /// The template says what makes no sense.
    #[error("the template broke its protocol: this is a defect of mitosis")]
    Protocol,
}
