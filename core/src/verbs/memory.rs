//! Protection domains, memory, and its registrations.
//!
//! What a device writes into, or reads beside us, is a [`Region`]: memory that no `&[u8]` is ever made
//! of while a device may write to it. Two ways lead to its bytes: copies ([`Region::read`],
//! [`Region::write`], [`Region::fill_from`]), and [`super::DmaBuffer`], which is a slice as long as it
//! is not lent to a READ.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;

use super::device::Context;
use super::error::{Error, check};
use super::limits::Memlock;

/// A protection domain: what is registered in it can be used by its QPs alone.
pub struct Pd {
    pub(super) context: Arc<Context>,
    pub(super) raw: NonNull<sys::ibv_pd>,
}

// SAFETY: libibverbs is thread-safe (see Context).
unsafe impl Send for Pd {}
// SAFETY: as above.
unsafe impl Sync for Pd {}

impl Pd {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Call`]: ENOMEM if the device has no more.
    pub fn new(context: &Arc<Context>) -> Result<Arc<Self>, Error> {
        // SAFETY: the context is open.
        let raw = unsafe { (context.ibv.alloc_pd)(context.raw.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_alloc_pd", &context.name))?;
        Ok(Arc::new(Self { context: context.clone(), raw }))
    }

    /// The device that it is on.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl fmt::Debug for Pd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pd({})", self.context.name)
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: all that is in it holds it, so nothing is left.
        unsafe { (self.context.ibv.dealloc_pd)(self.raw.as_ptr()) };
    }
}

/// Anonymous memory, page-aligned, that devices may be given. Forked processes do not get it: pinned
/// pages would be copied at the fork.
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: bytes without an owner, only copied in and out.
unsafe impl Send for Region {}
// SAFETY: as above; a copy may see a part of another, as it may of a device's.
unsafe impl Sync for Region {}

impl Region {
    /// Zeros; nothing is touched yet.
    ///
    /// # Errors
    /// mmap(2)'s and madvise(2)'s.
    pub fn new(bytes: usize) -> io::Result<Arc<Self>> {
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap gives no null");
        let region = Self { start, bytes };
        // SAFETY: the mapping just made.
        if unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTFORK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Arc::new(region))
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it starts, as a device is told.
    pub fn address(&self) -> u64 {
        u64::try_from(self.start.as_ptr().expose_provenance()).expect("addresses have 64 bits")
    }

    pub(super) fn at(&self, range: &Range<usize>) -> NonNull<u8> {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "a range outside of the region"
        );
        // SAFETY: within the mapping.
        unsafe { self.start.add(range.start) }
    }

    /// Copies out of it, from byte `from` on.
    ///
    /// # Panics
    /// If that goes beyond its end.
    pub fn read(&self, from: usize, into: &mut [u8]) {
        let source = self.at(&(from..from + into.len()));
        // SAFETY: within the mapping; `into` is ordinary memory elsewhere.
        unsafe { source.as_ptr().copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
    }

    /// Copies into it, from byte `to` on.
    ///
    /// # Panics
    /// If that goes beyond its end.
    pub fn write(&self, to: usize, bytes: &[u8]) {
        let target = self.at(&(to..to + bytes.len()));
        // SAFETY: within the mapping; `bytes` is ordinary memory elsewhere.
        unsafe { target.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Sends bytes of `range` from its start on to a socket, and gives how many.
    ///
    /// # Errors
    /// send(2)'s.
    ///
    /// # Panics
    /// If the range goes beyond its end.
    pub fn send(&self, range: Range<usize>, socket: &TcpStream) -> io::Result<usize> {
        let source = self.at(&range).as_ptr().cast_const().cast();
        // SAFETY: the kernel reads within the mapping, during the call alone.
        let sent =
            unsafe { libc::send(socket.as_raw_fd(), source, range.len(), libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Fills `range` with the bytes of `file` from `offset` on, with no copy between.
    ///
    /// # Errors
    /// pread(2)'s; UnexpectedEof if the file ends before.
    ///
    /// # Panics
    /// If the range goes beyond its end.
    pub fn fill_from(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        range: Range<usize>,
    ) -> io::Result<()> {
        let target = self.at(&range);
        let mut done = 0;
        while done < range.len() {
            let offset = offset
                .checked_add(done as u64)
                .and_then(|offset| i64::try_from(offset).ok())
                .ok_or(io::ErrorKind::InvalidInput)?;
            // SAFETY: the rest of the range lies within the mapping.
            let read = unsafe {
                libc::pread(
                    file.as_raw_fd(),
                    target.as_ptr().add(done).cast(),
                    range.len() - done,
                    offset,
                )
            };
            match usize::try_from(read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Region({} bytes at {:#x})", self.bytes, self.address())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and registrations of it hold the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A registration: pinned memory with keys. Dropped, it is taken back: READs of it fail with status 10
/// from then on.
pub struct Mr {
    pd: Arc<Pd>,
    raw: NonNull<sys::ibv_mr>,
    region: Arc<Region>,
    range: Range<usize>,
    iova: u64,
}

// SAFETY: libibverbs is thread-safe (see Context).
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

impl Mr {
    /// Memory that READs of this host land in. No other host gets at it.
    ///
    /// # Errors
    /// [`Error::Pin`] where the limit on pinned memory is too low.
    pub fn local(pd: &Arc<Pd>, region: &Arc<Region>) -> Result<Self, Error> {
        let access = sys::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE;
        Self::register(pd, region, 0..region.bytes, region.address(), access.0)
    }

    /// Memory that other hosts may READ, and no more, under addresses from `iova` on: the seed's own, say.
    /// `iova` and the range's start must lie alike in their pages.
    ///
    /// # Errors
    /// [`Error::Pin`] where the limit on pinned memory is too low.
    ///
    /// # Panics
    /// If the range goes beyond the region's end.
    pub fn readable(
        pd: &Arc<Pd>,
        region: &Arc<Region>,
        range: Range<usize>,
        iova: u64,
    ) -> Result<Self, Error> {
        let access = sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ;
        Self::register(pd, region, range, iova, access.0)
    }

    fn register(
        pd: &Arc<Pd>,
        region: &Arc<Region>,
        range: Range<usize>,
        iova: u64,
        access: u32,
    ) -> Result<Self, Error> {
        let (context, start) = (&pd.context, region.at(&range));
        // SAFETY: the memory lives as long as the registration, which holds it.
        let raw = unsafe {
            (context.ibv.reg_mr_iova2)(
                pd.raw.as_ptr(),
                start.as_ptr().cast(),
                range.len(),
                iova,
                access,
            )
        };
        let Some(raw) = NonNull::new(raw) else {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let bytes = range.len() as u64;
            return Err(match errno {
                libc::ENOMEM | libc::EPERM => Error::Pin {
                    on: context.name.clone(),
                    bytes,
                    memlock: Memlock::of_this_process(bytes),
                    errno,
                },
                _ => Error::returned("ibv_reg_mr_iova2", &context.name, errno),
            });
        };
        Ok(Self { pd: pd.clone(), raw, region: region.clone(), range, iova })
    }

    /// The key for this host's own work requests.
    pub fn lkey(&self) -> u32 {
        // SAFETY: a live registration's plain field.
        unsafe { self.raw.as_ref().lkey }
    }

    /// The key for other hosts' READs.
    pub fn rkey(&self) -> u32 {
        // SAFETY: a live registration's plain field.
        unsafe { self.raw.as_ref().rkey }
    }

    /// The address that its first byte has for READs.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// What is registered.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Takes it back, at once: what READs find from now on is status 10.
    ///
    /// # Errors
    /// [`Error::Call`]: EBUSY, EIO.
    pub fn deregister(self) -> Result<(), Error> {
        let registration = std::mem::ManuallyDrop::new(self);
        // SAFETY: `registration` is not dropped any more, so this is the only one to take it back; its
        // fields are moved out once each.
        let (pd, region, result) = unsafe {
            let pd = std::ptr::read(&raw const registration.pd);
            let region = std::ptr::read(&raw const registration.region);
            let result = (pd.context.ibv.dereg_mr)(registration.raw.as_ptr());
            (pd, region, result)
        };
        if result != 0 {
            // Still registered: the memory must stay.
            std::mem::forget(region);
        }
        check("ibv_dereg_mr", &pd.context.name, result)
    }
}

impl fmt::Debug for Mr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Mr({} bytes at iova {:#x} on {})",
            self.bytes(),
            self.iova,
            self.pd.context.name
        )
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        // SAFETY: this value's own registration, taken back once.
        let result = unsafe { (self.pd.context.ibv.dereg_mr)(self.raw.as_ptr()) };
        if result != 0 {
            // The device may still use the memory: it is never unmapped then.
            std::mem::forget(self.region.clone());
            tracing::warn!(
                device = self.pd.context.name,
                result,
                "a registration could not be taken back"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_go_in_and_come_out() {
        let region = Region::new(8192).unwrap();
        region.write(4090, b"across pages");
        let mut read = [0; 12];
        region.read(4090, &mut read);
        assert_eq!(&read, b"across pages");
    }

    #[test]
    fn a_file_fills_a_range_exactly_or_not_at_all() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        file.rewind().unwrap();
        let region = Region::new(8192).unwrap();
        region.fill_from(file.as_fd(), 1000, 100..4100).unwrap();
        let mut read = vec![0; 4102];
        region.read(99, &mut read);
        assert_eq!((read[0], read[1], read[4000], read[4001]), (0, 7, 7, 0));
        let short = region.fill_from(file.as_fd(), 4999, 0..2).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    #[should_panic(expected = "a range outside of the region")]
    fn nothing_is_read_beyond_the_end() {
        Region::new(4096).unwrap().read(4090, &mut [0; 7]);
    }
}
