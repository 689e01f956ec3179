//! `prepare`: once in, once out in the caller, once out in each child.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mitosis::client::{self, AgentAddress, ClientError, OfProcess};
use mitosis::id::{ChildId, SeedId};
use mitosis::prepare::{self as core, LossKind, PrepareOptions, Prepared, Refuse, Threads};
use mitosis::wire::local::{DropMode, FailureKind};

use crate::failure::Failure;
use crate::js::{Env, MAX_ARGS, Raised, Value, exact};
use crate::owned::own;
use crate::{unique, wake, work};

const WHAT: &str = "seed";

/// A seed, as the process that prepared it holds it; work on other threads may hold it, too.
#[derive(Clone, Debug)]
struct Seed(Arc<OfProcess<Mutex<Option<client::Seed>>>>);

impl Seed {
    /// `None` once it is dropped. A fork of this process does not touch the lock, which one of its threads may hold.
    fn own(&self) -> Result<MutexGuard<'_, Option<client::Seed>>, Failure> {
        Ok(own(&self.0, WHAT)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Forks between this process and the first one.
pub(crate) fn generation<'s>(env: Env<'s>, _: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    env.number(exact(wake::generation()))
}

/// CLOCK_REALTIME in ns, as reports of agents tell times; JavaScript's own tells ms.
pub(crate) fn realtime_ns<'s>(
    env: Env<'s>,
    _: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    env.big(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Ends a rehearsal that stands where prepare() would return.
pub(crate) fn end_rehearsal<'s>(
    _: Env<'s>,
    _: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    core::end_rehearsal()
}

/// What a prepare does before it stops anybody, until that uses it.
#[derive(Debug)]
struct Ahead(Mutex<Option<core::Ahead>>);

/// (agent, shared copy limit, stop threads ms, kinds to refuse, whether hooks run before it is used): a promise of what
/// `prepare` does before it stops anybody, done by another thread; of null where hooks could change what is not seen.
pub(crate) fn look_ahead<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let (options, hooks_follow) = (options(env, args)?, args[4].to_bool(env)?);
    let work = move || {
        let ahead = core::look_ahead(&options)?;
        // What JavaScript maps is seen; code of others may mark or lock what is mapped already.
        let sees_all = !hooks_follow || ahead.has_only_code_of(is_of_node).unwrap_or(false);
        Ok(sees_all.then_some(ahead))
    };
    work::promise(env, work, |env, ahead| match ahead {
        Some(ahead) => env.held(Ahead(Mutex::new(Some(ahead)))),
        None => env.null(),
    })
}

/// Libraries that a node brings with it: what they mark they mark when they map it, and they lock nothing. The beginnings of
/// their names.
const NODES_LIBRARIES: &[&str] = &[
    // glibc's and the compiler's.
    "ld-linux-",
    "libc.so.",
    "libdl.so.",
    "libgcc_s.so.",
    "libm.so.",
    "libnss_",
    "libpthread.so.",
    "libresolv.so.",
    "librt.so.",
    "libstdc++.so.",
    // Of distributions, that link node to libraries of their own.
    "libbrotli",
    "libcares.so.",
    "libcrypto.so.",
    "libicu",
    "libnghttp2.so.",
    "libnode.so.",
    "libssl.so.",
    "libuv.so.",
    "libz.so.",
    // This one, and what brings it from outside.
    "mitosis_node.node",
    "libmitosis_preload.so",
];

fn is_of_node(file: &Path) -> bool {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    NODES_LIBRARIES.iter().any(|library| name.starts_with(library))
}

/// (what `look_ahead` gave): gives back what no prepare has used, now and not when it is collected: a page of it is
/// shared memory, which seeds made meanwhile would have, too.
pub(crate) fn forget_ahead<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    drop(taken(args[0].held::<Ahead>(env)?));
    env.undefined()
}

fn taken(ahead: &Ahead) -> Option<core::Ahead> {
    ahead.0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// (agent, shared copy limit, stop threads ms, kinds to refuse, what `look_ahead` gave for the same, or null): freezes a
/// copy of this process, with all threads. Returns
/// `{seed, pid}` here and `{child, ...}` in each child, whose other threads run already: what is done there
/// first takes locks of OpenSSL and of the allocator, which they may hold.
pub(crate) fn prepare<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let options = options(env, args)?;
    let ahead = match args[4].given(env)? {
        true => taken(args[4].held::<Ahead>(env)?),
        false => None,
    };
    match core::prepare_after(&options, ahead)? {
        Prepared::Parent(seed) => {
            let prepared = env.object()?;
            prepared.set(env, "pid", env.number(f64::from(seed.pid()))?)?;
            let seed = Seed(Arc::new(OfProcess::new(Mutex::new(Some(seed)))));
            prepared.set(env, "seed", env.held(seed)?)?;
            Ok(prepared)
        }
        Prepared::Child(resumed) => {
            wake::reset_workers();
            unique::renew(env)?;
            woken(env, &resumed)
        }
    }
}

fn options<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<PrepareOptions, Raised> {
    Ok(PrepareOptions {
        agent: Some(AgentAddress(args[0].to_text(env)?.into())),
        shared_copy_limit: whole(args[1].to_f64(env)?),
        threads: Threads::All,
        stop_threads: Duration::from_millis(whole(args[2].to_f64(env)?)),
        refuse: refused(env, args[3])?,
        rehearsal_returns: true,
        ..PrepareOptions::default()
    })
}

/// Kinds of what cannot cross, by their names; JavaScript has checked them.
fn refused<'s>(env: Env<'s>, names: Value<'s>) -> Result<Refuse, Raised> {
    let mut refuse = Refuse::NONE;
    for name in names.items(env)? {
        refuse = LossKind::named(&name.to_text(env)?).map_or(refuse, |kind| refuse.and(kind));
    }
    Ok(refuse)
}

/// Names of the kinds of what cannot cross: all, or those that are refused where nobody has said a word.
pub(crate) fn loss_kinds(env: Env<'_>, among: Refuse) -> Result<Value<'_>, Raised> {
    let kinds = env.array()?;
    for kind in LossKind::ALL.into_iter().filter(|kind| among.has(*kind)) {
        kinds.push(env, env.string(kind.name())?)?;
    }
    Ok(kinds)
}

/// (): what `prepare` returns in a child, as if this process were one: V8 makes its shapes once, here, instead of in
/// each child.
pub(crate) fn like_a_child<'s>(
    env: Env<'s>,
    _: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let resumed = core::Resumed {
        seed: SeedId(0),
        child: ChildId(0),
        index: 0,
        generation: core::generation(),
        payload: vec![0],
        rehearsal: false,
        environment: Vec::new(),
        lost: Vec::new(),
        clock_delta_ns: 0,
    };
    woken(env, &resumed)
}

/// What JavaScript has checked to be a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn whole(number: f64) -> u64 {
    number as u64
}

fn woken<'s>(env: Env<'s>, resumed: &core::Resumed) -> Result<Value<'s>, Raised> {
    let object = env.object()?;
    object.set(env, "seed", env.string(&resumed.seed.to_string())?)?;
    object.set(env, "child", env.string(&resumed.child.to_string())?)?;
    object.set(env, "index", env.number(f64::from(resumed.index))?)?;
    object.set(env, "generation", env.number(exact(wake::generation()))?)?;
    object.set(env, "payload", env.buffer(&resumed.payload)?)?;
    object.set(env, "rehearsal", env.boolean(resumed.rehearsal)?)?;
    // Of several changes the last one stands.
    let zone = resumed.environment.iter().rfind(|(name, _)| name == "TZ");
    let zone = match zone {
        Some((_, Some(zone))) => env.string(zone)?,
        Some((_, None)) => env.null()?,
        None => env.undefined()?,
    };
    object.set(env, "timeZone", zone)?;
    object.set(env, "lost", lost(env, &resumed.lost)?)?;
    object.set(env, "clockDeltaNs", env.big_difference(resumed.clock_delta_ns)?)?;
    wake::place(env, object)?;
    Ok(object)
}

fn lost<'s>(env: Env<'s>, losses: &[core::Loss]) -> Result<Value<'s>, Raised> {
    let lost = env.array()?;
    for loss in losses {
        let one = env.object()?;
        one.set(env, "kind", env.string(loss.kind.name())?)?;
        let fds = env.array()?;
        for fd in &loss.fds {
            fds.push(env, env.number(f64::from(*fd))?)?;
        }
        one.set(env, "fds", fds)?;
        one.set(env, "was", env.string(&loss.was)?)?;
        lost.push(env, one)?;
    }
    Ok(lost)
}

/// (seed): a promise of the handle's text, when the agent has published the seed.
pub(crate) fn seed_handle<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let seed = args[0].held::<Seed>(env)?.clone();
    let work = move || match seed.own()?.as_ref() {
        Some(seed) => Ok(seed.handle()?.reveal()),
        None => {
            let message = "this seed has been dropped: take its handle before";
            Err(Failure::of(FailureKind::SeedGone, message))
        }
    };
    work::promise(env, work, |env, handle| env.string(&handle))
}

/// (seed, revoke): a promise that it ends; of false if that has been done, or is another process's to do. After a
/// failure other than SEED_GONE it can be dropped again.
pub(crate) fn seed_drop<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let seed = args[0].held::<Seed>(env)?.clone();
    let how = if args[1].to_bool(env)? { DropMode::Revoke } else { DropMode::AfterChildren };
    let work = move || {
        let Ok(mut own) = seed.own() else { return Ok(false) };
        let Some(seed) = own.as_ref() else { return Ok(false) };
        let dropped = seed.drop_seed(how);
        let is_gone = |error: &ClientError| error.kind() == FailureKind::SeedGone;
        if dropped.as_ref().err().is_none_or(is_gone) {
            *own = None;
        }
        dropped?;
        Ok(true)
    };
    work::promise(env, work, |env, done| env.boolean(done))
}

/// (seed): a promise that a seed ends of which nobody has the handle, even if its agent is gone; of false if it has
/// been dropped, or is another process's.
pub(crate) fn seed_discard<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let seed = args[0].held::<Seed>(env)?.clone();
    let work = move || {
        let seed = seed.own().ok().and_then(|mut own| own.take());
        let is_there = seed.is_some();
        if let Some(seed) = seed {
            seed.discard();
        }
        Ok(is_there)
    };
    work::promise(env, work, |env, done| env.boolean(done))
}
