//! x86-64: CPUID and XCR0.

use std::arch::x86_64::__cpuid_count;

use crate::descriptor::HostNeeds;

/// ELF machine number (EM_X86_64).
pub const MACHINE: u16 = 62;
/// End of user space with four-level page tables; addresses above it are handed out on request only.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// CPUID words by which libc's ifuncs and programs choose code: (leaf, subleaf, register), register 0 to 3
/// for eax, ebx, ecx, edx (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
const FEATURE_WORDS: [(u32, u32, usize); 8] = [
    (1, 0, 2),
    (1, 0, 3),
    (7, 0, 1),
    (7, 0, 2),
    (7, 0, 3),
    (7, 1, 0),
    (0x8000_0001, 0, 2),
    (0x8000_0001, 0, 3),
];

/// This CPU's side of [`HostNeeds`]; `vdso` and `kernel` are left empty.
pub fn cpu() -> HostNeeds {
    let word = |(leaf, subleaf, register): (u32, u32, usize)| {
        let r = __cpuid_count(leaf, subleaf);
        [r.eax, r.ebx, r.ecx, r.edx][register]
    };
    let highest = __cpuid_count(0, 0).eax;
    let cpu_features =
        FEATURE_WORDS.iter().map(|w| if w.0 < 0x8000_0000 && w.0 > highest { 0 } else { word(*w) });
    let has_xsave = word((1, 0, 2)) & (1 << 27) != 0;
    let (xcr0, xsave_size) = if has_xsave { (xcr0(), __cpuid_count(0xd, 0).ebx) } else { (0, 0) };
    HostNeeds {
        machine: MACHINE,
        cpu_features: cpu_features.collect(),
        xcr0,
        xsave_size,
        ..HostNeeds::default()
    }
}

/// The register of enabled state components.
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller saw OSXSAVE, so XGETBV of register 0 is allowed in user space; it only reads.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_cpu_has_what_x86_64_means() {
        let cpu = cpu();
        let sse2 = 1 << 26;
        assert_eq!(cpu.cpu_features[1] & sse2, sse2);
        assert!(cpu.xcr0 == 0 || cpu.xcr0 & 3 == 3);
        assert!(cpu.xcr0 == 0 || cpu.xsave_size >= 576);
    }
}
