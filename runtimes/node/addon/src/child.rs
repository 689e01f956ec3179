//! A child, as the process that started it holds it. Waiting is JavaScript's, over [`watch`].

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use mitosis::client::{self, OfProcess};
use mitosis::wire::local::ChildEnd;

use crate::js::{Env, MAX_ARGS, Raised, Value, exact};
use crate::owned::own;
use crate::{uv, work};

const WHAT: &str = "child";

/// A started child; work on other threads may hold it, too.
#[derive(Clone, Debug)]
pub(crate) struct Child(Arc<OfProcess<client::Child>>);

impl Child {
    /// Takes over what the core has started.
    pub(crate) fn new(child: client::Child) -> Self {
        Child(Arc::new(OfProcess::new(child)))
    }
}

/// The child and what is told of it once and for all.
pub(crate) fn told(env: Env<'_>, child: Child) -> Result<Value<'_>, Raised> {
    let own = own(&child.0, WHAT)?;
    let report = own.report();
    let told = env.object()?;
    told.set(env, "id", env.string(&own.id().to_string())?)?;
    told.set(env, "host", env.string(own.host())?)?;
    told.set(env, "pid", env.number(f64::from(own.pid()))?)?;
    let start = env.object()?;
    start.set(env, "requestedAtNs", env.big(report.requested_at_ns)?)?;
    start.set(env, "startedAtNs", env.big(report.started_at_ns)?)?;
    start.set(env, "descriptorBytes", env.number(exact(report.descriptor_bytes))?)?;
    start.set(env, "pagesTotal", env.number(exact(report.pages_total))?)?;
    start.set(env, "newTemplate", env.boolean(report.new_template)?)?;
    told.set(env, "report", start)?;
    told.set(env, "native", env.held(child)?)?;
    Ok(told)
}

/// (child): `[how, number, why]` of "exited", "signalled", "page_lost" and "host_lost"; null while it runs.
pub(crate) fn end<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let child = args[0].held::<Child>(env)?;
    let Some(end) = own(&child.0, WHAT)?.try_wait() else { return env.null() };
    let (how, number, why) = match end {
        ChildEnd::Exited(status) => ("exited", status, String::new()),
        ChildEnd::Signalled(signal) => ("signalled", signal, String::new()),
        ChildEnd::PageLost(why) => ("page_lost", 0, why),
        ChildEnd::HostLost(why) => ("host_lost", 0, why),
    };
    let end = env.array()?;
    end.push(env, env.string(how)?)?;
    end.push(env, env.number(f64::from(number))?)?;
    end.push(env, env.string(&why)?)?;
    Ok(end)
}

/// (child, signal): a promise that it has been sent.
#[expect(clippy::cast_possible_truncation, reason = "JavaScript has checked the signal")]
pub(crate) fn kill<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let child = args[0].held::<Child>(env)?.clone();
    let signal = args[1].to_f64(env)? as i32;
    let work = move || Ok(own(&child.0, WHAT)?.kill(signal)?);
    work::promise(env, work, |env, ()| env.undefined())
}

/// (child, callback): calls back when it may have ended, until the callback returns true.
pub(crate) fn watch<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let child = args[0].held::<Child>(env)?;
    let fd = own(&child.0, WHAT)?.as_fd().as_raw_fd();
    uv::readable(env, fd, args[0], args[1])?;
    env.undefined()
}
