//! What is asked of the agent: an address, children, lists, counters. Addresses are paths of unix sockets.

use std::fmt::Display;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

use mitosis::client::{self, AgentAddress, IdMap, Listen, Namespace, ResumeOptions};
use mitosis::id::Handle;
use mitosis::wire::local::{Listing, Stats};

use crate::child::{self, Child};
use crate::failure::Failure;
use crate::js::{Env, MAX_ARGS, Raised, Value, exact};
use crate::work;

/// Where an agent listens or would listen; this process's own counts.
pub(crate) fn find_agent<'s>(env: Env<'s>, _: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    env.string(&text(&client::find_agent()))
}

/// (carried or null): a promise of the address of an agent that runs; one of this process's own is started if
/// there is none.
pub(crate) fn ensure_agent<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let carried = match args[0].given(env)? {
        true => Some(PathBuf::from(args[0].to_text(env)?)),
        false => None,
    };
    let work = move || Ok(client::ensure_agent_of(carried.as_deref())?);
    work::promise(env, work, |env, address| env.string(&text(&address)))
}

/// (host): throws if it cannot be the name of a host.
pub(crate) fn check_host<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    client::check_host(&args[0].to_text(env)?)?;
    env.undefined()
}

/// (text): `[agent or null, seed, text without the key]`.
pub(crate) fn parse_handle<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let handle: Handle = args[0].to_text(env)?.parse()?;
    let parts = env.array()?;
    parts.push(env, handle.agent.as_deref().map_or(env.null(), |agent| env.string(agent))?)?;
    parts.push(env, env.string(&handle.seed.to_string())?)?;
    parts.push(env, env.string(&handle.to_string())?)?;
    Ok(parts)
}

/// (agent, handle, host or null, count, payload, environment, stdio or null, seed ends with children, listen,
/// new ids, clock, cwd or null, hostname or null, cgroup or null, namespaces, argv, id map): a promise of as many children.
pub(crate) fn resume<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let [agent, handle, host, count, payload, environment, stdio, ends, listen, new_ids, ..] =
        *args;
    let [.., clock, cwd, hostname, cgroup, namespaces, argv, id_map] = *args;
    let agent = AgentAddress(agent.to_text(env)?.into());
    let host = optional(env, host)?;
    let options = ResumeOptions {
        host,
        count: whole(count.to_f64(env)?),
        payload: payload.to_bytes(env)?,
        environment: changes(env, environment)?,
        stdio: descriptors(env, stdio)?,
        seed_ends_with_children: ends.to_bool(env)?,
        listen: parsed::<Listen>(env, listen)?,
        new_ids: new_ids.to_bool(env)?,
        clock: one(env, clock)?,
        cwd: optional(env, cwd)?,
        hostname: optional(env, hostname)?,
        cgroup: optional(env, cgroup)?,
        namespaces: parsed::<Namespace>(env, namespaces)?,
        argv: parsed::<String>(env, argv)?,
        id_map: parsed::<IdMap>(env, id_map)?,
        ..ResumeOptions::new(handle.to_text(env)?.parse()?)
    };
    let work = move || {
        let children = client::resume(&agent, options)?;
        Ok(children.into_iter().map(Child::new).collect::<Vec<_>>())
    };
    work::promise(env, work, |env, children| {
        let started = env.array()?;
        for child in children {
            started.push(env, child::told(env, child)?)?;
        }
        Ok(started)
    })
}

/// What JavaScript has checked to be a whole number of u32, or the nearest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and the core refuses what is too many"
)]
fn whole(number: f64) -> u32 {
    number as u32
}

/// Pairs of name and value, null to unset.
fn changes<'s>(env: Env<'s>, pairs: Value<'s>) -> Result<Vec<(String, Option<String>)>, Raised> {
    let mut changes = Vec::new();
    for pair in pairs.items(env)? {
        let [name, value] = pair.items(env)?[..] else {
            return Err(Failure::argument("an environment change is a pair").into());
        };
        changes.push((name.to_text(env)?, optional(env, value)?));
    }
    Ok(changes)
}

fn optional<'s>(env: Env<'s>, text: Value<'s>) -> Result<Option<String>, Raised> {
    if text.given(env)? { text.to_text(env).map(Some) } else { Ok(None) }
}

/// Texts as the command line takes them.
fn parsed<'s, T: FromStr<Err: Display>>(env: Env<'s>, texts: Value<'s>) -> Result<Vec<T>, Raised> {
    texts.items(env)?.into_iter().map(|text| one(env, text)).collect()
}

fn one<'s, T: FromStr<Err: Display>>(env: Env<'s>, text: Value<'s>) -> Result<T, Raised> {
    let parsed: Result<T, _> = text.to_text(env)?.parse();
    Ok(parsed.map_err(|error| Failure::argument(error.to_string()))?)
}

/// Three numbers of open descriptors, each for /dev/null if negative.
#[expect(clippy::cast_possible_truncation, reason = "JavaScript has checked them")]
fn descriptors<'s>(env: Env<'s>, stdio: Value<'s>) -> Result<Option<[OwnedFd; 3]>, Raised> {
    if !stdio.given(env)? {
        return Ok(None);
    }
    let mut taken = Vec::new();
    for number in stdio.items(env)? {
        taken.push(descriptor(number.to_f64(env)? as i32)?);
    }
    let three = <[OwnedFd; 3]>::try_from(taken);
    Ok(Some(three.map_err(|_| Failure::argument("stdio names three descriptors"))?))
}

#[allow(unsafe_code)]
fn descriptor(number: i32) -> Result<OwnedFd, Failure> {
    let copied = if number < 0 {
        std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
    } else {
        // SAFETY: it is borrowed for the time of one dup(2), which finds out whether it is open.
        unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
    };
    copied.map_err(|error| {
        Failure::argument(format!("descriptor {number} cannot be a child's stdio: {error}"))
    })
}

/// (agent): a promise of seeds and children of this host: two arrays of objects.
pub(crate) fn list_all<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let agent = AgentAddress(args[0].to_text(env)?.into());
    work::promise(env, move || Ok(client::list(&agent)?), listed)
}

fn listed(env: Env<'_>, listing: Listing) -> Result<Value<'_>, Raised> {
    let (seeds, children) = (env.array()?, env.array()?);
    for line in &listing.seeds {
        let object = env.object()?;
        object.set(env, "seed", env.string(&line.seed.to_string())?)?;
        object.set(env, "pid", env.number(f64::from(line.pid))?)?;
        object.set(env, "parentPid", env.number(f64::from(line.parent_pid))?)?;
        object.set(env, "exe", env.string(&line.exe)?)?;
        object.set(env, "generation", env.number(exact(line.generation))?)?;
        object.set(env, "pages", env.number(exact(line.pages))?)?;
        object.set(env, "state", env.string(&line.state)?)?;
        object.set(env, "holders", env.number(f64::from(line.holders))?)?;
        object.set(env, "ageSeconds", env.number(exact(line.age_s))?)?;
        seeds.push(env, object)?;
    }
    for line in &listing.children {
        let object = env.object()?;
        object.set(env, "child", env.string(&line.child.to_string())?)?;
        object.set(env, "pid", env.number(f64::from(line.pid))?)?;
        object.set(env, "seed", env.string(&line.seed.to_string())?)?;
        object.set(env, "ageSeconds", env.number(exact(line.age_s))?)?;
        children.push(env, object)?;
    }
    let listing = env.object()?;
    listing.set(env, "seeds", seeds)?;
    listing.set(env, "children", children)?;
    Ok(listing)
}

/// (agent): a promise of the agent's counters by name.
pub(crate) fn stats<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let agent = AgentAddress(args[0].to_text(env)?.into());
    work::promise(env, move || Ok(client::stats(&agent)?), counted)
}

fn counted(env: Env<'_>, stats: Stats) -> Result<Value<'_>, Raised> {
    let counters = env.object()?;
    for (name, value) in stats.by_name() {
        counters.set(env, name, env.number(exact(value))?)?;
    }
    Ok(counters)
}

fn text(address: &AgentAddress) -> String {
    address.0.to_string_lossy().into_owned()
}
