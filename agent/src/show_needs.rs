//! What a seed needs of the hosts of its children, for people: what is refused without it, and what is done without.

use mitosis::descriptor::{CarriedFiles, Descriptor, FileKind, HostNeeds, VmaFlags};
use serde_json::{Value, json};

/// Places in a descriptor's words of CPUID: leaf 1 ecx, leaf 7 ebx, leaf 0x80000001 ecx.
const LEAF_1_ECX: usize = 0;
const LEAF_7_EBX: usize = 2;
const EXTENDED_ECX: usize = 6;

/// The levels of the x86-64 psABI, each beyond the one before: (place, bits).
const LEVELS: [(&str, [(usize, u32); 3]); 3] = [
    ("x86-64-v2", [(LEAF_1_ECX, 0x0098_2201), (LEAF_7_EBX, 0), (EXTENDED_ECX, 0x1)]),
    ("x86-64-v3", [(LEAF_1_ECX, 0x3840_1000), (LEAF_7_EBX, 0x128), (EXTENDED_ECX, 0x20)]),
    ("x86-64-v4", [(LEAF_1_ECX, 0), (LEAF_7_EBX, 0xd003_0000), (EXTENDED_ECX, 0)]),
];

/// Bits of XCR0.
const VECTOR_STATES: [(u64, &str); 7] = [
    (1, "x87"),
    (1 << 1, "SSE"),
    (1 << 2, "AVX"),
    (0b111 << 5, "AVX-512"),
    (1 << 9, "PKRU"),
    (0b11 << 17, "AMX"),
    (1 << 19, "APX"),
];

/// Something of a host's, and what comes of a resume without it.
#[derive(Debug)]
struct Need {
    what: String,
    without: &'static str,
}

const REFUSED: &str = "the resume is refused, and names it";

/// Files, directories and rights.
fn things(descriptor: &Descriptor) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut add = |what: &str, without| needs.push(Need { what: what.to_owned(), without });
    add("/dev/fuse, and CAP_SYS_ADMIN to mount", "there are no children on that host");
    if let Some(root) = &descriptor.root {
        add(&format!("the directory {root}, its root"), REFUSED);
    }
    for file in descriptor.shared_files.iter().filter(|file| file.is_needed) {
        add(&format!("the file {}, with the same bytes", file.path), REFUSED);
    }
    for file in descriptor.shared_files.iter().filter(|file| !file.is_needed) {
        let what = format!("the file {}, with the same bytes", file.path);
        add(&what, "each child has a copy of its own");
    }
    let carried = descriptor.carried.as_ref().map_or(&[][..], CarriedFiles::files);
    for file in carried {
        if let FileKind::Path { path, .. } = &file.kind {
            add(&format!("the file {path}, which is open"), "its number answers EBADF");
        }
    }
    if descriptor.whole.is_some() {
        let what = "CAP_SYS_ADMIN for a pid namespace, as all its threads are carried";
        add(what, "children have new process and thread ids");
    }
    let credentials = &descriptor.credentials;
    if credentials.users.is_some() || credentials.groups.is_some() || credentials.rights.is_some() {
        let what = "CAP_SETUID, CAP_SETGID and CAP_SETPCAP, as far as its users, groups and rights differ from the agent's";
        add(what, REFUSED);
    }
    let is_locked = descriptor.vmas.iter().any(|vma| vma.flags.has(VmaFlags::LOCKED));
    if is_locked || descriptor.marks.locks_future != 0 {
        let what = "CAP_IPC_LOCK, or room under RLIMIT_MEMLOCK, for locked memory";
        add(what, "the child's start fails at mlock2 or mlockall");
    }
    needs
}

fn architecture(needs: &HostNeeds) -> String {
    match needs.machine {
        62 => "x86-64".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

/// The highest level all of which the seed's CPU had.
fn level(needs: &HostNeeds) -> Option<&'static str> {
    let has = |&(place, bits): &(usize, u32)| {
        needs.cpu_features.get(place).is_some_and(|word| word & bits == bits)
    };
    let had = LEVELS.iter().take_while(|(_, words)| words.iter().all(has));
    had.last().map(|(name, _)| *name)
}

fn vector_states(needs: &HostNeeds) -> Vec<&'static str> {
    let own = VECTOR_STATES.iter().filter(|(bits, _)| needs.xcr0 & bits == *bits);
    own.map(|(_, name)| *name).collect()
}

fn words(needs: &HostNeeds) -> Vec<String> {
    needs.cpu_features.iter().map(|word| format!("{word:#010x}")).collect()
}

fn digest(needs: &HostNeeds) -> String {
    needs.vdso.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The needs, a line each.
pub fn print(descriptor: &Descriptor) {
    let needs = &descriptor.needs;
    println!("\n{:14} WHAT A HOST MUST HAVE", "NEEDS");
    println!("architecture   {}, pages of {} bytes", architecture(needs), descriptor.page_size());
    let beyond = level(needs).map_or(String::new(), |level| format!("{level} and "));
    println!(
        "CPU            {beyond}each feature of CPUID that the seed's had: {}",
        words(needs).join(" ")
    );
    println!(
        "vector state   {} (XCR0 {:#x}), {} bytes or more",
        vector_states(needs).join(", "),
        needs.xcr0,
        needs.xsave_size
    );
    let short = &digest(needs)[..16];
    println!("vDSO           BLAKE3 {short}...; another one is led to that host's own");
    for need in things(descriptor) {
        println!("{:14} {}; without: {}", "-", need.what, need.without);
    }
}

/// The same, for programs.
pub fn as_value(descriptor: &Descriptor) -> Value {
    let needs = &descriptor.needs;
    let things = things(descriptor);
    let things = things.iter().map(|need| json!({ "what": need.what, "without": need.without }));
    json!({
        "architecture": architecture(needs), "cpuid": words(needs), "level": level(needs),
        "vector_states": vector_states(needs), "xcr0": format!("{:#x}", needs.xcr0),
        "xsave_bytes": needs.xsave_size, "vdso": digest(needs),
        "things": things.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use mitosis::descriptor::codec;

    use super::*;

    fn needs(words: [u32; 8], xcr0: u64) -> HostNeeds {
        HostNeeds { machine: 62, cpu_features: words.to_vec(), xcr0, ..HostNeeds::default() }
    }

    #[test]
    fn a_cpu_is_told_by_its_level() {
        assert_eq!(level(&needs([0; 8], 3)), None);
        let mut all = [u32::MAX; 8];
        assert_eq!(level(&needs(all, 7)), Some("x86-64-v4"));
        all[LEAF_7_EBX] &= !(1 << 31);
        assert_eq!(level(&needs(all, 7)), Some("x86-64-v3"), "without AVX512VL");
        all[LEAF_1_ECX] &= !(1 << 12);
        assert_eq!(level(&needs(all, 7)), Some("x86-64-v2"), "without FMA");
        assert_eq!(vector_states(&needs(all, 0b1110_0111)), ["x87", "SSE", "AVX", "AVX-512"]);
        assert_eq!(vector_states(&needs(all, 0b0110_0111)), ["x87", "SSE", "AVX"]);
    }

    #[test]
    fn what_a_seed_has_is_what_it_needs() {
        let bytes = include_bytes!("../../tests/wire/descriptor-1.0-whole.bin");
        let mut descriptor = codec::decode(bytes).unwrap();
        descriptor.root = Some("/jail".to_owned());
        descriptor.marks.locks_future = 1;
        let text = as_value(&descriptor).to_string();
        for word in ["/dev/fuse", "/jail", "a pid namespace", "CAP_IPC_LOCK"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        (descriptor.root, descriptor.whole, descriptor.marks.locks_future) = (None, None, 0);
        let text = as_value(&descriptor).to_string();
        for word in ["/jail", "a pid namespace"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
}
