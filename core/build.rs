//! Builds the freestanding restorer (`restorer/main.rs`) with the compiler that builds this crate, and
//! checks that it is what a process without libc can run: one image that needs no relocation, no
//! thread-local storage and no writable data, and that cannot panic.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The space that `abi::TEXT_LEN` gives to the blob.
const IMAGE_CAP: usize = 64 << 10;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_TLS: u32 = 7;
const PF_W: u32 = 2;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
const SHT_REL: u32 = 9;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=restorer");
    if env::var_os("CARGO_FEATURE_AGENT").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let elf_path = out.join("restorer.elf");
    compile(&elf_path)?;
    let elf = Elf(fs::read(&elf_path)?);
    let image = elf.flatten()?;
    elf.check_sections()?;
    fs::write(out.join("restorer.bin"), image)?;
    let offsets = format!(
        "const ENTRY: u64 = {:#x};\nconst STUB_ENTRY: u64 = {:#x};\n",
        elf.u64_at(24),
        elf.symbol("stub_entry")?
    );
    fs::write(out.join("restorer.rs"), offsets)?;
    Ok(())
}

fn compile(to: &Path) -> Result<(), Box<dyn Error>> {
    let variable = |name| env::var_os(name).ok_or(format!("cargo sets {name}"));
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-name", "restorer", "--crate-type", "bin"]);
    rustc.arg("--target").arg(variable("TARGET")?);
    for option in ["panic=abort", "opt-level=2", "relocation-model=pie", "codegen-units=1"] {
        rustc.args(["-C", option]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(
            [&std::ffi::OsString::from("linker="), &*linker]
                .into_iter()
                .collect::<std::ffi::OsString>(),
        );
    }
    // A child's registers are not yet its own while this runs, but its FPU state is the frame's anyway;
    // what matters is that the blob runs on every x86-64.
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        rustc.args(["-C", "target-feature=-avx,-avx2"]);
    }
    let link = "-nostartfiles -nodefaultlibs -static-pie -Wl,--build-id=none,-z,norelro,-z,noseparate-code,\
                --no-eh-frame-hdr,--no-dynamic-linker,-u,stub_entry";
    for argument in link.split_whitespace() {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    rustc.arg("-o").arg(to).arg("restorer/main.rs");
    match rustc.status()?.success() {
        true => Ok(()),
        false => Err("the restorer does not compile".into()),
    }
}

/// An ELF64 file of this machine's byte order; the linker that wrote it is trusted to be consistent.
struct Elf(Vec<u8>);

impl Elf {
    fn u16_at(&self, at: usize) -> usize {
        u16::from_le_bytes(self.0[at..at + 2].try_into().expect("two bytes")).into()
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn offset_at(&self, at: usize) -> usize {
        usize::try_from(self.u64_at(at)).expect("offsets fit")
    }

    /// Offsets of the table's entries: where it begins, the size of one and their number stand there.
    fn table(&self, begins: usize, size: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, size, count) =
            (self.offset_at(begins), self.u16_at(size), self.u16_at(size + 2));
        (0..count).map(move |i| first + i * size)
    }

    fn sections(&self) -> impl Iterator<Item = usize> + use<> {
        self.table(40, 58)
    }

    /// The loaded segments as one image from address 0 on.
    fn flatten(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut image = Vec::new();
        let mut writable = 0;
        for header in self.table(32, 54) {
            let (kind, flags) = (self.u32_at(header), self.u32_at(header + 4));
            let (offset, addr) = (self.offset_at(header + 8), self.offset_at(header + 16));
            let (in_file, in_memory) = (self.offset_at(header + 32), self.offset_at(header + 40));
            match kind {
                PT_TLS => return Err("the restorer must have no thread-local storage".into()),
                PT_DYNAMIC => writable -= i64::try_from(in_memory)?,
                PT_LOAD => {
                    if flags & PF_W != 0 {
                        writable += i64::try_from(in_memory)?;
                    }
                    image.resize(image.len().max(addr + in_memory), 0);
                    image[addr..addr + in_file].copy_from_slice(&self.0[offset..offset + in_file]);
                }
                _ => {}
            }
        }
        if writable > 0 {
            return Err(format!(
                "the restorer must have no writable data, it has {writable} bytes"
            )
            .into());
        }
        if image.len() > IMAGE_CAP {
            return Err(
                format!("the restorer has {} bytes, more than {IMAGE_CAP}", image.len()).into()
            );
        }
        Ok(image)
    }

    fn check_sections(&self) -> Result<(), Box<dyn Error>> {
        for header in self.sections() {
            let (kind, bytes) = (self.u32_at(header + 4), self.u64_at(header + 32));
            if matches!(kind, SHT_REL | SHT_RELA) && bytes > 0 {
                return Err(
                    "the restorer must need no relocation: a static holds an address".into()
                );
            }
        }
        match self.symbols().find(|(name, _)| name.contains("panicking")) {
            Some((name, _)) => {
                Err(format!("the restorer must not be able to panic: {name}").into())
            }
            None => Ok(()),
        }
    }

    fn symbols(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let table = self.sections().find(|header| self.u32_at(header + 4) == SHT_SYMTAB);
        table.into_iter().flat_map(move |header| {
            let (first, bytes) = (self.offset_at(header + 24), self.offset_at(header + 32));
            let link = usize::try_from(self.u32_at(header + 40)).expect("an index");
            let names = self.sections().nth(link).map_or(0, |names| self.offset_at(names + 24));
            (first..first + bytes).step_by(24).map(move |symbol| {
                let name =
                    &self.0[names + usize::try_from(self.u32_at(symbol)).expect("an offset")..];
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
                (String::from_utf8_lossy(&name[..end]).into_owned(), self.u64_at(symbol + 8))
            })
        })
    }

    fn symbol(&self, wanted: &str) -> Result<u64, Box<dyn Error>> {
        let found = self.symbols().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value).ok_or_else(|| format!("the restorer has no {wanted}").into())
    }
}
