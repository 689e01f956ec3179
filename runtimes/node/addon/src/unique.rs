//! What makes two children of one seed differ: new state for OpenSSL's and V8's generators.
//!
//! OpenSSL notices a fork by the process id alone, which is the same in all children. V8 never notices one:
//! `Math.random` hands out 64 numbers that it has drawn ahead, from a state of 128 bits in each context,
//! which a generator of the isolate has seeded. A worker may be called before it hears that it is in a child: V8
//! interrupts it first.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;
use std::sync::LazyLock;

use mitosis::sys::openssl::OpenSsl;
use mitosis::wire::local::FailureKind;

use crate::failure::Failure;
use crate::js::{Env, MAX_ARGS, Raised, Value};

/// `MathRandom::ResetContext`: V8 of Node 20 and earlier hands a `Context`, of Node 22 a `Tagged<Context>`. Both are
/// one tagged word.
const RESET_CONTEXT: [&CStr; 2] = [
    c"_ZN2v88internal10MathRandom12ResetContextENS0_7ContextE",
    c"_ZN2v88internal10MathRandom12ResetContextENS0_6TaggedINS0_7ContextEEE",
];

type Bytes = extern "C" fn(*mut u8, c_int) -> c_int;
type Current = extern "C" fn() -> *mut c_void;
type Of = extern "C" fn(*mut c_void) -> *mut c_void;
type SetSeed = extern "C" fn(*mut c_void, i64);
type Reset = extern "C" fn(usize);
type Interrupt = extern "C" fn(*mut c_void, *mut c_void);
type Request = extern "C" fn(*mut c_void, Interrupt, *mut c_void);

/// What node exports of OpenSSL and V8.
struct Exports {
    openssl: Option<OpenSsl>,
    bytes: Option<Bytes>,
    isolate: Option<Current>,
    random: Option<MathRandom>,
    request: Option<Request>,
}

/// What resets `Math.random`: the isolate's context, its generator, the seeding of that, a context's reset.
#[derive(Clone, Copy)]
struct MathRandom {
    isolate: Current,
    context: Of,
    generator: Of,
    set_seed: SetSeed,
    reset: Reset,
}

/// Looked up once, when node loads this library: in a child that is the first to do so it takes some 0.1 ms.
static EXPORTS: LazyLock<Exports> = LazyLock::new(|| {
    // SAFETY: the names say the types (Itanium C++ ABI: `this` first, a class of one word as that word, a Local<T>
    // likewise: the address of a tagged pointer); RAND_bytes(3):
    // `unsigned char *buf, int num`.
    unsafe {
        let current = |name| symbol(name).map(|at| transmute::<*mut c_void, Current>(at));
        let of = |name| symbol(name).map(|at| transmute::<*mut c_void, Of>(at));
        let set_seed = symbol(c"_ZN2v84base21RandomNumberGenerator7SetSeedEl");
        let reset = RESET_CONTEXT.iter().find_map(|name| symbol(name));
        let request = symbol(c"_ZN2v87Isolate16RequestInterruptEPFvPS0_PvES2_");
        let isolate = current(c"_ZN2v87Isolate10GetCurrentEv");
        let random = || {
            Some(MathRandom {
                isolate: isolate?,
                context: of(c"_ZN2v87Isolate17GetCurrentContextEv")?,
                generator: of(c"_ZN2v88internal7Isolate23random_number_generatorEv")?,
                set_seed: transmute::<*mut c_void, SetSeed>(set_seed?),
                reset: transmute::<*mut c_void, Reset>(reset?),
            })
        };
        Exports {
            openssl: OpenSsl::find(),
            bytes: symbol(c"RAND_bytes").map(|at| transmute::<*mut c_void, Bytes>(at)),
            isolate,
            random: random(),
            request: request.map(|at| transmute::<*mut c_void, Request>(at)),
        }
    }
});

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

fn openssl() -> Result<(), Failure> {
    let Some(openssl) = EXPORTS.openssl else {
        let message = "this build of node does not export OpenSSL (RAND_add), so that its children would draw \
                       the same random bytes: run node of nodejs.org or of your distribution";
        return Err(Failure::of(FailureKind::NotForkable, message));
    };
    openssl.renew().map_err(no_entropy)
}

/// Whether this build of node says how to reset `Math.random`.
pub(crate) fn resets_math_random() -> bool {
    EXPORTS.random.is_some()
}

/// The caller is in a call from JavaScript, or in an interrupt of one, so there are an isolate and a context.
fn math_random() -> Result<bool, Failure> {
    let Some(MathRandom { isolate, context, generator, set_seed, reset }) = EXPORTS.random else {
        return Ok(false);
    };
    let seed = i64::from_ne_bytes(entropy()?);
    let isolate = isolate();
    if isolate.is_null() {
        return Ok(false);
    }
    set_seed(generator(isolate), seed);
    let context = context(isolate).cast::<usize>();
    if context.is_null() {
        return Ok(false);
    }
    // SAFETY: a Local<Context> that is not empty.
    reset(unsafe { *context });
    Ok(true)
}

/// (bytes): fills them by OpenSSL, as node does, without what JavaScript in between costs a child that runs it for the
/// first time.
pub(crate) fn fill<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    args[0].change_bytes(env, |bytes| {
        let filled = EXPORTS.bytes.zip(c_int::try_from(bytes.len()).ok());
        match filled.map(|(fill, len)| fill(bytes.as_mut_ptr(), len)) {
            Some(1) => Ok(()),
            _ => entropy_of(bytes),
        }
    })?;
    env.undefined()
}

/// A worker's V8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Isolate(*mut c_void);

// SAFETY: all that other threads do with it is `reset_soon`, which any may.
unsafe impl Send for Isolate {}

impl Isolate {
    /// The one that calls; `None` where this build of node does not say.
    pub(crate) fn current() -> Option<Self> {
        let isolate = EXPORTS.isolate?();
        (!isolate.is_null()).then_some(Isolate(isolate))
    }

    /// New state for its `Math.random` before it calls its next function, whatever wakes it.
    ///
    /// # Safety
    /// It lives.
    pub(crate) unsafe fn reset_soon(self) {
        if let Some(request) = EXPORTS.request {
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
    entropy_of(&mut bytes)?;
    Ok(bytes)
}

fn entropy_of(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(no_entropy)
}

fn no_entropy(error: getrandom::Error) -> Failure {
    let message = format!("the kernel's random generator does not answer: {error}");
    Failure::of(FailureKind::Missing, message)
}
