//! The four functions that the compiler takes for granted. Each is one string instruction: a loop here
//! would be recognised and turned into a call of itself.

use core::arch::asm;

use crate::arch;

/// memcpy(3).
///
/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { arch::copy(to, from, len) };
    to
}

/// memmove(3).
///
/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: ascending is right where `to` does not lie inside the source.
        unsafe { arch::copy(to, from, len) };
        return to;
    }
    // SAFETY: `to` lies inside the source, so len > 0 and descending is right; the flag is cleared again.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") len => _,
            inout("rdi") to.wrapping_add(len - 1) => _,
            inout("rsi") from.wrapping_add(len - 1) => _,
            options(nostack),
        );
    }
    to
}

/// memset(3).
///
/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// memcmp(3).
///
/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let (a_end, b_end): (*const u8, *const u8);
    // SAFETY: the caller's promise. `cmp rcx, rcx` sets ZF, so that no bytes are equal bytes.
    unsafe {
        asm!(
            "cmp rcx, rcx", "repe cmpsb",
            inout("rcx") len => _, inout("rsi") a => a_end, inout("rdi") b => b_end,
            options(nostack, readonly),
        );
    }
    if len == 0 {
        return 0;
    }
    // SAFETY: both ends lie one behind the last byte compared.
    unsafe { i32::from(*a_end.wrapping_sub(1)) - i32::from(*b_end.wrapping_sub(1)) }
}
