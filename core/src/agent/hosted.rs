//! A seed as it lives on this host: its template, its image, and what keeps the seed.
//!
//! ```text
//!  Hosted --dropped--> template ends --> image serves whom children have forked --> the owner is told
//! ```

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::failure::fail;
use super::holding::Lease;
use super::listeners::SeedListeners;
use super::seeds::Hold;
use crate::describe::inherited::Inherited;
use crate::descriptor::{CallSite, Clocks, Descriptor, SeedRange, StubPlace};
use crate::id::{ChildId, ForkKey, SeedId};
use crate::image::{Image, PageLost};
use crate::keeper;
use crate::resume::{
    ChildSpec, Entering, Enters, NewProcess, Placement, ResumeError, SharedHere, Template,
    TemplateSpec, Vdso,
};
use crate::sys::clock;
use crate::wire::id_map::IdMap;
use crate::wire::local::{Failure, FailureKind};

const NEW_UTS: u64 = libc::CLONE_NEWUTS.cast_unsigned() as u64;

/// A seed as it lives on this host.
#[derive(Debug)]
pub struct Hosted {
    /// Its id.
    pub seed: SeedId,
    /// Bytes of its descriptor.
    pub descriptor_bytes: u64,
    /// Pages that it has in all.
    pub pages_total: u64,
    /// How long no child is cloned ahead after a start.
    pub(super) rest: Duration,
    /// Its push is not over: who touches these pages now has them cross twice.
    pub(super) is_pushing: Arc<AtomicBool>,
    /// Forks between its children and the first process.
    pub generation: u64,
    /// Where its children's stub lies, and the call sites that lead there: for seeds made of them.
    pub stub: (StubPlace, Vec<CallSite>),
    /// Where in its children lies what is beneath written pages of files.
    pub beneath: Option<SeedRange>,
    /// Sockets of the seed that its children may be told to listen by.
    pub(super) listeners: SeedListeners,
    /// The key that the first resume showed; a later one must show the same.
    pub(super) key: ForkKey,
    /// Ends with its last child, without lingering.
    pub(super) ends_with_children: AtomicBool,
    /// Set by the owner: no more children.
    pub dropping: AtomicBool,
    /// Its template is gone: the next resume makes another one.
    pub is_broken: AtomicBool,
    /// Its lease is lost, and perhaps on its way back: until then a resume asks the owner and makes another one.
    pub is_adrift: AtomicBool,
    /// `None` while it is taken apart.
    pub(super) parts: Option<Parts>,
}

/// What goes with a hosted seed. First nothing can be cloned any more; then the image serves for as long as
/// anybody maps it, and only then is the owner told.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) template: Template,
    pub(super) blueprint: Blueprint,
    pub(super) image: Image,
    pub(super) stay: Stay,
}

/// What templates of a seed are made of here, beside its image.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub(super) descriptor: Descriptor,
    pub(super) shared_files: Vec<SharedHere>,
    pub(super) placement: Placement,
    pub(super) trampolines: Vec<(u64, Vec<u8>)>,
    pub(super) stub_table: Vec<u8>,
    pub(super) vdso: Vdso,
}

impl Blueprint {
    /// A template whose clocks are so far ahead of this host's.
    pub(super) fn template(
        &self,
        keeper: &keeper::Client,
        image: &Image,
        clock_offset: Clocks,
    ) -> Result<Template, ResumeError> {
        let offset_of = |addr| image.layout().offset_of(addr);
        let template = Template::start(
            keeper,
            &TemplateSpec {
                descriptor: &self.descriptor,
                placement: &self.placement,
                offset_of: &offset_of,
                image: image.file(),
                local_files: image.local_files(),
                shared_files: &self.shared_files,
                trampolines: &self.trampolines,
                stub_table: &self.stub_table,
                vdso: &self.vdso,
                clock_offset,
            },
        )?;
        if let Some(why) = template.clock_refused() {
            let seed = self.descriptor.seed;
            tracing::warn!(
                %seed,
                why,
                "no time namespace is to be had: children have this host's CLOCK_MONOTONIC, and are told by how much \
                 it jumps"
            );
        }
        Ok(template)
    }
}

/// What keeps the seed meanwhile.
#[derive(Debug)]
pub(super) enum Stay {
    /// It is another host's.
    Lease(Arc<Lease>),
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
            let Parts { template, image, stay, .. } = parts;
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
    /// Its working directory, if not the seed's.
    pub cwd: Option<&'a str>,
    /// Its host's name, if not this one's.
    pub hostname: Option<&'a str>,
    /// What /proc/self/cmdline has in it; empty: what it has in the seed.
    pub argv: &'a [u8],
    /// Of the user namespace that it enters.
    pub id_map: &'a [IdMap],
    /// What it enters.
    pub enters: Enters<'a>,
}

impl Hosted {
    /// The files in its image, for seeds made of its children.
    pub(super) fn inherited(&self) -> Option<Inherited> {
        let Parts { image, blueprint, .. } = self.parts.as_ref()?;
        let (major, minor, inode) = image.dev_inode();
        let offset_of = |addr| image.layout().offset_of(addr);
        let file = (libc::makedev(major, minor), inode);
        Some(Inherited::of(&blueprint.descriptor, file, &offset_of))
    }

    /// Its image's file; `None`: no descriptor is left for one more.
    pub(super) fn image_file(&self) -> Option<File> {
        let image = &self.parts.as_ref()?.image;
        image.file().try_clone_to_owned().ok().map(File::from)
    }

    /// Starts one child as told.
    ///
    /// # Errors
    /// The template's.
    pub fn start(&self, start: &Start<'_>) -> Result<NewProcess, Failure> {
        self.start_from(&self.parts().template, start)
    }

    /// Starts one child by a template of its own batch.
    ///
    /// # Errors
    /// The template's.
    pub fn start_from(
        &self,
        template: &Template,
        start: &Start<'_>,
    ) -> Result<NewProcess, Failure> {
        let spec = ChildSpec {
            role: start.role,
            index: start.index,
            generation: self.generation,
            seed: self.seed,
            child: start.child,
            payload: start.payload,
            environment: start.environment,
            stdio: start.stdio,
            listeners: start.listeners,
            extra_clone_flags: if start.hostname.is_some() { NEW_UTS } else { 0 },
            new_ids: start.new_ids,
            cwd: start.cwd,
            hostname: start.hostname,
            argv: start.argv,
            id_map: start.id_map,
            enters: start.enters,
        };
        self.child(template, &spec)
    }

    /// A template whose clocks go on from where they stood when the seed froze.
    ///
    /// # Errors
    /// The seed's parent has not told, or the keeper's.
    pub fn frozen_template(&self, keeper: &keeper::Client) -> Result<Template, Failure> {
        let Parts { blueprint, image, .. } = self.parts();
        let frozen_at = blueprint.descriptor.state.frozen_at;
        if frozen_at == Clocks::default() {
            let text = format!(
                "seed {} does not tell when it froze: prepare it anew, or resume it with the clock 'live'",
                self.seed
            );
            return Err(fail(FailureKind::HostUnfit, text));
        }
        let offset = frozen_at.ahead_of(clock::now());
        blueprint.template(keeper, image, offset).map_err(|error| {
            let text = format!("seed {} cannot be resumed here: {error}", self.seed);
            fail(FailureKind::HostUnfit, text)
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
    fn child(&self, template: &Template, spec: &ChildSpec<'_>) -> Result<NewProcess, Failure> {
        template.child(spec).map_err(|error| {
            let is_gone =
                matches!(error, ResumeError::TemplateGone { .. } | ResumeError::Timeout { .. });
            // That of a batch is the batch's alone.
            if is_gone && std::ptr::eq(template, &self.parts().template) {
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
        let over = self.dropping.load(Ordering::Acquire) || self.is_of_no_use();
        !over && !self.ends_with_children.load(Ordering::Acquire)
    }

    /// Whether whoever wants a child makes another one of it.
    pub fn is_of_no_use(&self) -> bool {
        self.is_broken.load(Ordering::Acquire) || self.is_adrift.load(Ordering::Acquire)
    }

    /// What holds the seed on another host.
    pub(super) fn lease(&self) -> Option<&Arc<Lease>> {
        match &self.parts().stay {
            Stay::Lease(lease) => Some(lease),
            Stay::Hold(_) | Stay::Rehearsal => None,
        }
    }

    /// Why a child ended before its first instruction, if it did.
    pub fn why_failed(&self, child: ChildId, entering: Entering) -> Option<String> {
        self.parts().template.why_failed(child, entering)
    }

    /// Whether its children are in a root directory of their own.
    pub fn has_own_root(&self) -> bool {
        self.parts().blueprint.descriptor.root.is_some()
    }

    /// Whether its children map files of this host shared.
    pub fn maps_shared_files(&self) -> bool {
        !self.parts().blueprint.shared_files.is_empty()
    }

    /// Whether the seed is one of this host's own.
    pub fn is_local(&self) -> bool {
        !matches!(self.parts().stay, Stay::Lease(_))
    }

    /// What it is a child's of.
    pub fn descriptor(&self) -> &Descriptor {
        &self.parts().blueprint.descriptor
    }

    /// Its image, for counters and traces.
    pub fn image(&self) -> &Image {
        &self.parts().image
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("it is whole until it is dropped")
    }
}
