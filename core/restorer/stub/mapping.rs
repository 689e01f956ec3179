//! What is mapped where, as the kernel tells it: PROCMAP_QUERY (Linux 6.11), else the text of maps.

use core::sync::atomic::Ordering;

use super::kernel::{self, EINTR, EINVAL, ENOTTY};
use super::table::{Origin, Table};

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u64 = 0xc068_6611;
/// The VMA that covers the address, else the next one.
const COVERING_OR_NEXT: u64 = 0x10;
const SHARED: u64 = 8;

/// One VMA; as struct procmap_query up to the device, so that the kernel can fill it. (It takes as much of
/// the structure as `size` tells.)
#[repr(C)]
pub struct Mapping {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    pub start: u64,
    pub end: u64,
    flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
}

/// What the stub must know of a VMA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Image-backed where the seed had private anonymous memory.
    Image,
    /// Image-backed where the seed had shared memory.
    ImageShared,
    /// Image-backed where the seed had a file mapped privately, and had written pages of it.
    ImageFile,
    /// Image-backed, and shows a file's own bytes.
    ImageBeneath,
    /// Private anonymous.
    Anonymous,
    /// Anything else.
    Foreign,
}

impl Mapping {
    pub fn protection(&self) -> u64 {
        self.flags & 7
    }

    pub fn backing(&self, table: Table) -> Backing {
        if self.inode == 0 && self.dev_major == 0 && self.dev_minor == 0 {
            return if self.flags & SHARED == 0 { Backing::Anonymous } else { Backing::Foreign };
        }
        if !table.is_image(self.dev_major, self.dev_minor, self.inode) {
            return Backing::Foreign;
        }
        match table.origin(self.offset) {
            Origin::Anonymous => Backing::Image,
            Origin::Shared => Backing::ImageShared,
            Origin::File => Backing::ImageFile,
            Origin::Other => Backing::ImageBeneath,
        }
    }

    /// What the image's file has for `addr`, which lies in this VMA.
    pub fn offset_of(&self, addr: u64) -> u64 {
        self.offset + (addr - self.start)
    }

    /// Whether the page at `addr` of this VMA is locked, which no query tells: MADV_COLD refuses locked
    /// memory and changes no content.
    pub fn is_locked(addr: u64) -> bool {
        const COLD: u32 = 20;
        kernel::madvise(addr, kernel::PAGE, COLD) == EINVAL
    }
}

/// Bytes of text read at once: little, for they lie on the program's stack.
const TEXT_LEN: usize = 32;

/// The mappings of this process, walked upwards.
pub struct Mappings {
    table: Table,
    fd: u64,
    pub at: Mapping,
    /// Unread text.
    next: u32,
    read: u32,
    text: [u8; TEXT_LEN],
}

impl Mappings {
    /// # Errors
    /// `-errno`: no /proc, no free descriptor.
    pub fn open(table: Table) -> Result<Self, i64> {
        let fd = kernel::open_maps()?;
        let at = Mapping {
            size: size_of::<Mapping>() as u64,
            query_flags: COVERING_OR_NEXT,
            query_addr: 0,
            start: 0,
            end: 0,
            flags: 0,
            page_size: 0,
            offset: 0,
            inode: 0,
            dev_major: 0,
            dev_minor: 0,
        };
        Ok(Mappings { table, fd, at, next: 0, read: 0, text: [0; TEXT_LEN] })
    }

    /// From here on, ask about addresses below the last one again.
    pub fn rewind(&mut self) {
        kernel::lseek_to_start(self.fd);
        self.at.end = 0;
        self.next = 0;
        self.read = 0;
    }

    /// Goes to the first VMA that ends behind `addr`; whether it begins before `end`. Until [`rewind`] is
    /// called, `addr` must not become less, and VMAs that changed since may be told as they were.
    ///
    /// [`rewind`]: Mappings::rewind
    #[inline(never)]
    pub fn find(&mut self, addr: u64, end: u64) -> bool {
        if self.table.maps_as_text().load(Ordering::Relaxed) == 0 {
            self.at.query_addr = addr;
            let query = (&raw mut self.at) as u64;
            match kernel::ioctl(self.fd, PROCMAP_QUERY, query) {
                ENOTTY | EINVAL => self.table.maps_as_text().store(1, Ordering::Relaxed),
                result => return result >= 0 && self.at.start < end,
            }
        }
        while self.at.end <= addr {
            if !self.parse_line() {
                return false;
            }
        }
        self.at.start < end
    }

    /// `start-end rwxp offset major:minor inode      name`, all but the inode in hex.
    fn parse_line(&mut self) -> bool {
        let mut value = 0;
        let mut field = 0;
        self.at.flags = 0;
        while let Some(byte) = self.next_byte() {
            if byte == b'\n' {
                if field == INODE {
                    self.at.inode = value;
                }
                return true;
            }
            if field == FLAGS && byte != b' ' {
                self.at.flags |= match byte {
                    b'r' => 1,
                    b'w' => 2,
                    b'x' => 4,
                    b's' => SHARED,
                    _ => 0,
                };
            } else if field < NAME && matches!(byte, b'-' | b' ' | b':') {
                self.set(field, value);
                field += 1;
                value = 0;
            } else if field < NAME {
                let digit = if byte <= b'9' { byte - b'0' } else { byte - b'a' + 10 };
                value = value * if field == INODE { 10 } else { 16 } + u64::from(digit);
            }
        }
        false
    }

    fn set(&mut self, field: u32, value: u64) {
        match field {
            0 => self.at.start = value,
            1 => self.at.end = value,
            3 => self.at.offset = value,
            4 => self.at.dev_major = value as u32,
            5 => self.at.dev_minor = value as u32,
            INODE => self.at.inode = value,
            _ => {}
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        if self.next >= self.read {
            let read = loop {
                match kernel::read(self.fd, (&raw mut self.text) as u64, TEXT_LEN as u64) {
                    EINTR => {}
                    read => break read,
                }
            };
            if read <= 0 {
                return None;
            }
            self.read = read as u32;
            self.next = 0;
        }
        let byte = self.text.get(self.next as usize).copied();
        self.next += 1;
        byte
    }
}

/// Fields of a line of maps.
const FLAGS: u32 = 2;
const INODE: u32 = 6;
const NAME: u32 = 7;

impl Drop for Mappings {
    fn drop(&mut self) {
        kernel::close(self.fd);
    }
}
