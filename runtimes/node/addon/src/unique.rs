//! What makes two children of one seed differ: new state for OpenSSL's and V8's generators.
//!
//! OpenSSL notices a fork by the process id alone, which is the same in all children. V8 never notices one:
//! `Math.random` hands out 64 numbers that it has drawn ahead, from a state of 128 bits in each context,
//! which a generator of the isolate has seeded. A worker may be called before it hears that it is in a child: V8
//! interrupts it first.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_double, c_int, c_void};
use std::mem::transmute;

use mitosis::wire::local::FailureKind;

use crate::failure::Failure;
use crate::js::{Env, MAX_ARGS, Raised, Value};

/// Enough for every state that is made of it.
const SEED_BYTES: usize = 64;

/// `MathRandom::ResetContext`: V8 of Node 20 and earlier hands a `Context`, of Node 22 a `Tagged<Context>`. Both are
/// one tagged word.
const RESET_CONTEXT: [&CStr; 2] = [
    c"_ZN2v88internal10MathRandom12ResetContextENS0_7ContextE",
    c"_ZN2v88internal10MathRandom12ResetContextENS0_6TaggedINS0_7ContextEEE",
];
const ISOLATE: &CStr = c"_ZN2v87Isolate10GetCurrentEv";
const CONTEXT: &CStr = c"_ZN2v87Isolate17GetCurrentContextEv";
const GENERATOR: &CStr = c"_ZN2v88internal7Isolate23random_number_generatorEv";
const REQUEST_INTERRUPT: &CStr = c"_ZN2v87Isolate16RequestInterruptEPFvPS0_PvES2_";
const SET_SEED: &CStr = c"_ZN2v84base21RandomNumberGenerator7SetSeedEl";

/// (): new state for all generators of this thread; whether `Math.random` was among them, which it is not
/// where this build of node does not say how.
pub(crate) fn reseed<'s>(env: Env<'s>, _: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    openssl()?;
    env.boolean(math_random()?)
}

/// As [`reseed`], in a child.
pub(crate) fn renew(_: Env<'_>) -> Result<(), Failure> {
    openssl()?;
    math_random().map(drop)
}

/// Mixes new bytes into OpenSSL's first generator; the others, one of each thread, notice that it was seeded
/// and seed themselves before they answer again.
fn openssl() -> Result<(), Failure> {
    let Some(add) = symbol(c"RAND_add") else {
        let message = "this build of node does not export OpenSSL (RAND_add), so that its children would draw \
                       the same random bytes: run node of nodejs.org or of your distribution";
        return Err(Failure::of(FailureKind::NotForkable, message));
    };
    let bytes = entropy::<SEED_BYTES>()?;
    // SAFETY: RAND_add(3): `const void *buf, int num, double entropy`.
    unsafe {
        let add = transmute::<*mut c_void, extern "C" fn(*const c_void, c_int, c_double)>(add);
        add(bytes.as_ptr().cast(), 64, 0.0);
    }
    Ok(())
}

/// Whether this build of node says how to reset `Math.random`.
pub(crate) fn resets_math_random() -> bool {
    v8().is_some()
}

/// V8's functions: the isolate, its context, its generator, its seeding, a context's reset.
fn v8() -> Option<[*mut c_void; 5]> {
    let reset = RESET_CONTEXT.iter().find_map(|name| symbol(name))?;
    Some([symbol(ISOLATE)?, symbol(CONTEXT)?, symbol(GENERATOR)?, symbol(SET_SEED)?, reset])
}

fn math_random() -> Result<bool, Failure> {
    let Some([isolate, context, generator, set_seed, reset]) = v8() else { return Ok(false) };
    let seed = i64::from_ne_bytes(entropy()?);
    // SAFETY: the names say the types (Itanium C++ ABI: `this` first, a class of one word as that word, a
    // Local<T> likewise: the address of a tagged pointer). The caller is in a call from JavaScript, or in an
    // interrupt of one, so there are an isolate and a context.
    unsafe {
        type Getter = extern "C" fn(*mut c_void) -> *mut c_void;
        let isolate = transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(isolate)();
        if isolate.is_null() {
            return Ok(false);
        }
        let generator = transmute::<*mut c_void, Getter>(generator)(isolate);
        transmute::<*mut c_void, extern "C" fn(*mut c_void, i64)>(set_seed)(generator, seed);
        let context = transmute::<*mut c_void, Getter>(context)(isolate).cast::<usize>();
        if context.is_null() {
            return Ok(false);
        }
        transmute::<*mut c_void, extern "C" fn(usize)>(reset)(*context);
    }
    Ok(true)
}

/// A worker's V8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Isolate(*mut c_void);

// SAFETY: all that other threads do with it is `reset_soon`, which any may.
unsafe impl Send for Isolate {}

impl Isolate {
    /// The one that calls; `None` where this build of node does not say.
    pub(crate) fn current() -> Option<Self> {
        let current = symbol(ISOLATE)?;
        // SAFETY: the name says the type.
        let isolate =
            unsafe { transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(current)() };
        (!isolate.is_null()).then_some(Isolate(isolate))
    }

    /// New state for its `Math.random` before it calls its next function, whatever wakes it.
    ///
    /// # Safety
    /// It lives.
    pub(crate) unsafe fn reset_soon(self) {
        let Some(request) = symbol(REQUEST_INTERRUPT) else { return };
        type Interrupt = extern "C" fn(*mut c_void, *mut c_void);
        // SAFETY: the caller's; the name says the type, and any thread may ask.
        unsafe {
            let request = transmute::<
                *mut c_void,
                extern "C" fn(*mut c_void, Interrupt, *mut c_void),
            >(request);
            request(self.0, interrupted, std::ptr::null_mut());
        }
    }
}

/// On the worker's thread, between two of its functions, where nothing may be run or allocated.
extern "C" fn interrupted(_: *mut c_void, _: *mut c_void) {
    // Without entropy it goes on as it was; its own callback raises that.
    let _ = math_random();
}

/// A function that node, or a preloaded library, exports.
pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string; nothing is called.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

fn entropy<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("the kernel's random generator does not answer: {error}");
        Failure::of(FailureKind::Missing, message)
    })?;
    Ok(bytes)
}
