//! The stub: where patched system-call sites of a child jump to. This one passes every call on.

use core::arch::global_asm;

// Entered with the call's registers as the site had them.
global_asm!(".text", ".globl stub_entry", "stub_entry:", "syscall", "ret");
