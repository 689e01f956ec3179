//! The native half of the npm package `mitosis-fork`: the process's own prepare, and the local agent's
//! client.
//!
//! Thin on purpose: what a JavaScript programmer sees (types, hooks, the order of things in a child) is in
//! `../lib`. Whatever waits for the agent does so on libuv's thread pool (`work`); what freezes the process
//! runs on the thread that asked. Node's own symbols (Node-API, libuv, OpenSSL, V8) are resolved when node
//! loads this library, or looked up where another build of node may lack them.
#![deny(unsafe_code)]

mod agent;
mod child;
mod failure;
mod fork;
mod js;
mod owned;
mod unique;
mod uv;
mod wake;
mod work;

use js::{Env, Raised, Value};
use mitosis::prepare::Refuse;

/// What `require()` of this library returns.
fn exports<'s>(env: Env<'s>, exports: Value<'s>) -> Result<(), Raised> {
    let functions: [(&str, js::Callee); 26] = [
        ("findAgent", agent::find_agent),
        ("ensureAgent", agent::ensure_agent),
        ("checkHost", agent::check_host),
        ("resume", agent::resume),
        ("list", agent::list_all),
        ("stats", agent::stats),
        ("parseHandle", agent::parse_handle),
        ("generation", fork::generation),
        ("realtimeNs", fork::realtime_ns),
        ("likeAChild", fork::like_a_child),
        ("lookAhead", fork::look_ahead),
        ("forgetAhead", fork::forget_ahead),
        ("prepare", fork::prepare),
        ("endRehearsal", fork::end_rehearsal),
        ("seedHandle", fork::seed_handle),
        ("seedDrop", fork::seed_drop),
        ("seedDiscard", fork::seed_discard),
        ("childEnd", child::end),
        ("childKill", child::kill),
        ("childWatch", child::watch),
        ("reseed", unique::reseed),
        ("fill", unique::fill),
        ("onWake", wake::on_wake),
        ("onOutside", wake::on_outside),
        ("outside", wake::outside),
        ("wakeWorkers", wake::wake_workers),
    ];
    for (name, callee) in functions {
        exports.set(env, name, env.function(name, callee)?)?;
    }
    exports.set(env, "resetsMathRandom", env.boolean(unique::resets_math_random())?)?;
    exports.set(env, "version", env.string(env!("CARGO_PKG_VERSION"))?)?;
    exports.set(env, "lossKinds", fork::loss_kinds(env, Refuse::all())?)?;
    exports.set(env, "lossesRefusedUnlessTold", fork::loss_kinds(env, Refuse::UNLESS_TOLD)?)?;
    let limit = mitosis::prepare::SHARED_COPY_LIMIT_BYTES;
    exports.set(env, "SHARED_COPY_LIMIT_BYTES", env.number(js::exact(limit))?)
}
