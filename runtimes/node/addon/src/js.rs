//! Node-API, as much of it as is used here, behind types that cannot be misused.
//!
//! An [`Env`] and a [`Value`] live as long as the handle scope of the call that they were got in. Every
//! entry from node goes through [`enter`], which opens that scope where node has none open, and stops panics.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use napi_sys as sys;

use crate::failure::Failure;

/// A call into JavaScript's engine that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Env<'s>(sys::napi_env, PhantomData<&'s ()>);

/// A JavaScript value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'s>(sys::napi_value, PhantomData<&'s ()>);

/// A function that JavaScript can call; `args` are as many as it names, `undefined` where none was given.
pub(crate) type Callee = for<'s> fn(Env<'s>, &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised>;

/// Arguments of the longest call.
pub(crate) const MAX_ARGS: usize = 17;

/// Why a call returns by an exception.
#[derive(Debug)]
pub(crate) enum Raised {
    /// It stands in the engine already.
    Pending,
    /// It is to be made.
    New(Failure),
}

impl<T: Into<Failure>> From<T> for Raised {
    fn from(failure: T) -> Self {
        Raised::New(failure.into())
    }
}

/// A whole number of JavaScript's: exact up to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "counts and times below 2^53")]
pub(crate) fn exact(number: u64) -> f64 {
    number as f64
}

fn check(status: sys::napi_status) -> Result<(), Raised> {
    match status {
        sys::Status::napi_ok => Ok(()),
        sys::Status::napi_pending_exception => Err(Raised::Pending),
        status => Err(Failure {
            code: "ERR_MITOSIS",
            message: format!(
                "Node-API answered {status}: an argument of a private function has the wrong type, or node \
                 is ending"
            ),
        }
        .into()),
    }
}

/// Calls a function of Node-API whose last argument is the result.
macro_rules! call {
    ($result:ty, $function:ident, $($argument:expr),*) => {{
        let mut result = std::mem::MaybeUninit::<$result>::zeroed();
        // SAFETY: node is inside of a call of ours, so that `env` and all values live; pointers are to
        // memory that lives through the call, and the result is written before it is read.
        check(unsafe { sys::$function($($argument,)* result.as_mut_ptr()) })
            // SAFETY: napi_ok says that it was written; all of these types have an all-zero value.
            .map(|()| unsafe { result.assume_init() })
    }};
}

impl<'s> Env<'s> {
    /// The environment itself, for modules that deal with other parts of node.
    pub(crate) fn raw(self) -> sys::napi_env {
        self.0
    }

    pub(crate) fn undefined(self) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_get_undefined, self.0).map(Value::of)
    }

    pub(crate) fn null(self) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_get_null, self.0).map(Value::of)
    }

    pub(crate) fn boolean(self, value: bool) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_get_boolean, self.0, value).map(Value::of)
    }

    pub(crate) fn number(self, value: f64) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_create_double, self.0, value).map(Value::of)
    }

    /// A BigInt, for nanoseconds since 1970.
    pub(crate) fn big(self, value: u64) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_create_bigint_uint64, self.0, value).map(Value::of)
    }

    /// A BigInt, for differences of such.
    pub(crate) fn big_difference(self, value: i64) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_create_bigint_int64, self.0, value).map(Value::of)
    }

    pub(crate) fn string(self, text: &str) -> Result<Value<'s>, Raised> {
        let (bytes, length) = (text.as_ptr().cast::<c_char>(), length(text.len()));
        call!(sys::napi_value, napi_create_string_utf8, self.0, bytes, length).map(Value::of)
    }

    pub(crate) fn object(self) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_create_object, self.0).map(Value::of)
    }

    pub(crate) fn array(self) -> Result<Value<'s>, Raised> {
        call!(sys::napi_value, napi_create_array, self.0).map(Value::of)
    }

    /// A Buffer with a copy of `bytes`.
    pub(crate) fn buffer(self, bytes: &[u8]) -> Result<Value<'s>, Raised> {
        let (data, none) = (bytes.as_ptr().cast::<c_void>(), ptr::null_mut());
        call!(sys::napi_value, napi_create_buffer_copy, self.0, bytes.len(), data, none)
            .map(Value::of)
    }

    /// A function of JavaScript's that calls `callee`.
    pub(crate) fn function(self, name: &str, callee: Callee) -> Result<Value<'s>, Raised> {
        let (bytes, length) = (name.as_ptr().cast::<c_char>(), length(name.len()));
        let data = callee as *mut c_void;
        call!(sys::napi_value, napi_create_function, self.0, bytes, length, Some(called), data)
            .map(Value::of)
    }

    /// A value that only this library can look into; it is dropped when the collector finds it unused.
    pub(crate) fn held<T: Any>(self, value: T) -> Result<Value<'s>, Raised> {
        let value: Box<Box<dyn Any>> = Box::new(Box::new(value));
        let data = Box::into_raw(value).cast::<c_void>();
        let made = call!(
            sys::napi_value,
            napi_create_external,
            self.0,
            data,
            Some(collected),
            ptr::null_mut()
        );
        if made.is_err() {
            // SAFETY: node has not taken it over.
            drop(unsafe { Box::from_raw(data.cast::<Box<dyn Any>>()) });
        }
        made.map(Value::of)
    }

    /// An Error with a code.
    pub(crate) fn error(self, failure: &Failure) -> Result<Value<'s>, Raised> {
        let (code, message) = (self.string(failure.code)?, self.string(&failure.message)?);
        call!(sys::napi_value, napi_create_error, self.0, code.0, message.0).map(Value::of)
    }

    /// A promise, and what settles it.
    pub(crate) fn promise(self) -> Result<(Deferred, Value<'s>), Raised> {
        let mut deferred = ptr::null_mut();
        let promise = call!(sys::napi_value, napi_create_promise, self.0, &raw mut deferred)?;
        Ok((Deferred(deferred), Value::of(promise)))
    }

    fn throw(self, raised: Raised) {
        if let Raised::New(failure) = raised
            && let Ok(error) = self.error(&failure)
        {
            // SAFETY: env and value live; a failure leaves no exception, and the caller sees undefined.
            unsafe { sys::napi_throw(self.0, error.0) };
        }
    }
}

impl<'s> Value<'s> {
    fn of(raw: sys::napi_value) -> Self {
        Value(raw, PhantomData)
    }

    pub(crate) fn raw(self) -> sys::napi_value {
        self.0
    }

    /// Neither undefined nor null.
    pub(crate) fn given(self, env: Env<'s>) -> Result<bool, Raised> {
        let kind = call!(sys::napi_valuetype, napi_typeof, env.0, self.0)?;
        Ok(kind != sys::ValueType::napi_undefined && kind != sys::ValueType::napi_null)
    }

    pub(crate) fn to_f64(self, env: Env<'s>) -> Result<f64, Raised> {
        call!(f64, napi_get_value_double, env.0, self.0)
    }

    pub(crate) fn to_bool(self, env: Env<'s>) -> Result<bool, Raised> {
        call!(bool, napi_get_value_bool, env.0, self.0)
    }

    pub(crate) fn to_text(self, env: Env<'s>) -> Result<String, Raised> {
        let none = ptr::null_mut();
        let bytes = call!(usize, napi_get_value_string_utf8, env.0, self.0, none, 0)?;
        // Node writes a zero behind it.
        let mut text = vec![0u8; bytes + 1];
        let (data, room) = (text.as_mut_ptr().cast::<c_char>(), text.len());
        let got = call!(usize, napi_get_value_string_utf8, env.0, self.0, data, room)?;
        text.truncate(got);
        String::from_utf8(text).map_err(|_| Failure::argument("a text is not Unicode").into())
    }

    /// A copy of a Buffer's bytes.
    pub(crate) fn to_bytes(self, env: Env<'s>) -> Result<Vec<u8>, Raised> {
        let mut data = ptr::null_mut();
        let bytes = call!(usize, napi_get_buffer_info, env.0, self.0, &raw mut data)?;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: node names the buffer's memory, which no JavaScript runs to change meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) }.to_vec())
    }

    /// Changes the bytes of a typed array.
    pub(crate) fn change_bytes<E: Into<Raised>>(
        self,
        env: Env<'s>,
        change: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), Raised> {
        let mut data = ptr::null_mut();
        let bytes = call!(usize, napi_get_buffer_info, env.0, self.0, &raw mut data)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: node names the array's memory, which no JavaScript of this thread runs to use meanwhile.
        change(unsafe { std::slice::from_raw_parts_mut(data.cast::<u8>(), bytes) })
            .map_err(Into::into)
    }

    pub(crate) fn items(self, env: Env<'s>) -> Result<Vec<Value<'s>>, Raised> {
        let count = call!(u32, napi_get_array_length, env.0, self.0)?;
        let item = |i| call!(sys::napi_value, napi_get_element, env.0, self.0, i).map(Value::of);
        (0..count).map(item).collect()
    }

    pub(crate) fn set(self, env: Env<'s>, name: &str, value: Value<'s>) -> Result<(), Raised> {
        let name = env.string(name)?;
        // SAFETY: env and values live.
        check(unsafe { sys::napi_set_property(env.0, self.0, name.0, value.0) })
    }

    pub(crate) fn push(self, env: Env<'s>, value: Value<'s>) -> Result<(), Raised> {
        let count = call!(u32, napi_get_array_length, env.0, self.0)?;
        // SAFETY: env and values live.
        check(unsafe { sys::napi_set_element(env.0, self.0, count, value.0) })
    }

    /// What [`Env::held`] holds.
    pub(crate) fn held<T: Any>(self, env: Env<'s>) -> Result<&'s T, Raised> {
        let data = call!(*mut c_void, napi_get_value_external, env.0, self.0)?;
        // SAFETY: an external that reaches this library's private functions was made by `Env::held`; it
        // lives at least as long as the value, which the scope keeps.
        let value = unsafe { &*data.cast::<Box<dyn Any>>() };
        let other = || Failure::argument("a private function was given another's object").into();
        value.downcast_ref::<T>().ok_or_else(other)
    }
}

/// What settles a promise, once.
#[derive(Debug)]
pub(crate) struct Deferred(sys::napi_deferred);

impl Deferred {
    /// Settles it; an exception that is pending becomes the rejection.
    pub(crate) fn settle<'s>(self, env: Env<'s>, outcome: Result<Value<'s>, Raised>) {
        let rejection = match outcome {
            Ok(value) => {
                // SAFETY: env and value live; the deferred is used up.
                unsafe { sys::napi_resolve_deferred(env.0, self.0, value.0) };
                return;
            }
            Err(Raised::New(failure)) => env.error(&failure),
            Err(Raised::Pending) => {
                call!(sys::napi_value, napi_get_and_clear_last_exception, env.0).map(Value::of)
            }
        };
        if let Ok(rejection) = rejection {
            // SAFETY: as above.
            unsafe { sys::napi_reject_deferred(env.0, self.0, rejection.0) };
        }
    }
}

/// Runs `inside` with a handle scope of its own, for callbacks to which node gives none.
///
/// # Safety
/// `env` is node's, on its own thread.
pub(crate) unsafe fn enter(env: sys::napi_env, inside: impl for<'s> FnOnce(Env<'s>)) {
    let mut scope = ptr::null_mut();
    // SAFETY: the caller's; the scope is closed below, as panics end here.
    if unsafe { sys::napi_open_handle_scope(env, &raw mut scope) } != sys::Status::napi_ok {
        return;
    }
    if catch_unwind(AssertUnwindSafe(|| inside(Env(env, PhantomData)))).is_err() {
        // The panic's own message stands on stderr; nobody can be told otherwise.
        eprintln!("mitosis: a callback from node failed");
    }
    // SAFETY: opened above.
    unsafe { sys::napi_close_handle_scope(env, scope) };
}

/// What node calls for every [`Callee`].
extern "C" fn called(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let env = Env(env, PhantomData);
    let called = catch_unwind(AssertUnwindSafe(|| {
        let (mut args, mut count) = ([ptr::null_mut(); MAX_ARGS], MAX_ARGS);
        let (args_at, this) = (args.as_mut_ptr(), ptr::null_mut());
        let data =
            call!(*mut c_void, napi_get_cb_info, env.0, info, &raw mut count, args_at, this)?;
        // SAFETY: `Env::function` put a `Callee` there.
        let callee = unsafe { std::mem::transmute::<*mut c_void, Callee>(data) };
        callee(env, &args.map(Value::of))
    }));
    let raised = match called {
        Ok(Ok(value)) => return value.0,
        Ok(Err(raised)) => raised,
        Err(_) => Failure {
            code: "ERR_MITOSIS",
            message: "mitosis failed inside (a bug: its message stands on stderr)".to_owned(),
        }
        .into(),
    };
    env.throw(raised);
    ptr::null_mut()
}

extern "C" fn collected(_: sys::napi_env, data: *mut c_void, _: *mut c_void) {
    // SAFETY: `Env::held` made it; node calls this once.
    let value = unsafe { Box::from_raw(data.cast::<Box<dyn Any>>()) };
    // A panic must not reach node; what is dropped here is descriptors.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn length(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

/// The name of what waits, as async_hooks shows it.
pub(crate) fn resource_name(env: Env<'_>, name: &'static CStr) -> Result<sys::napi_value, Raised> {
    let length = length(name.count_bytes());
    call!(sys::napi_value, napi_create_string_utf8, env.0, name.as_ptr(), length)
}

/// Which version of Node-API this library needs: that of Node 12.17 and later.
#[unsafe(no_mangle)]
extern "C" fn node_api_module_get_api_version_v1() -> i32 {
    8
}

/// What node calls when it loads this library, once for each thread that does.
#[unsafe(no_mangle)]
extern "C" fn napi_register_module_v1(
    env: sys::napi_env,
    exports: sys::napi_value,
) -> sys::napi_value {
    let env = Env(env, PhantomData);
    let filled = catch_unwind(AssertUnwindSafe(|| crate::exports(env, Value::of(exports))));
    match filled {
        Ok(Ok(())) => {}
        Ok(Err(raised)) => env.throw(raised),
        Err(_) => env.throw(Failure::argument("mitosis could not be loaded").into()),
    }
    exports
}
