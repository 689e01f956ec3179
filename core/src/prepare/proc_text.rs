//! What /proc's text says, parsed without allocation: the seed reads these of itself.

/// Fields of proc_pid_stat(5) that prctl(2) PR_SET_MM_MAP wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StatLayout {
    pub(super) code: (u64, u64),
    pub(super) data: (u64, u64),
    pub(super) start_brk: u64,
    pub(super) stack: u64,
    pub(super) args: (u64, u64),
    pub(super) env: (u64, u64),
}

/// Parses /proc/self/stat; `None` if it is cut off.
pub(super) fn stat_layout(text: &[u8]) -> Option<StatLayout> {
    // The name may hold blanks and brackets; the numbered fields start behind the last bracket.
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = text.get(name_end + 2..)?;
    // Field 3 is the first behind the name.
    let field = |wanted: usize| {
        let mut fields = rest.split(|byte| *byte == b' ' || *byte == b'\n');
        decimal(fields.nth(wanted - 3)?)
    };
    Some(StatLayout {
        code: (field(26)?, field(27)?),
        stack: field(28)?,
        data: (field(45)?, field(46)?),
        start_brk: field(47)?,
        args: (field(48)?, field(49)?),
        env: (field(50)?, field(51)?),
    })
}

/// `pos:` and `flags:` of proc_pid_fdinfo(5).
pub(super) fn fdinfo(text: &[u8]) -> (u64, u64) {
    let mut position = 0;
    let mut flags = 0;
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"pos:") {
            position = decimal(value.trim_ascii()).unwrap_or(0);
        } else if let Some(value) = line.strip_prefix(b"flags:") {
            flags = number(value.trim_ascii(), 8).unwrap_or(0);
        }
    }
    (position, flags)
}

/// State (`R`, `S`, ...) and blocked signals of proc_pid_status(5).
pub(super) fn status(text: &[u8]) -> Option<(u8, u64)> {
    let mut state = None;
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"State:") {
            state = value.trim_ascii().first().copied();
        } else if let Some(value) = line.strip_prefix(b"SigBlk:") {
            return Some((state?, hex(value.trim_ascii())?));
        }
    }
    None
}

/// The number of a thread in its own pid namespace, of proc_pid_status(5).
pub(crate) fn own_number(text: &[u8]) -> Option<u64> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let numbers = lines.find_map(|line| line.strip_prefix(b"NSpid:"))?;
    decimal(numbers.split(u8::is_ascii_whitespace).next_back()?)
}

/// A number in lower hex digits.
pub(super) fn hex(text: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        value = value.checked_mul(16)? + u64::from(digit);
    }
    (!text.is_empty()).then_some(value)
}

/// A decimal number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    number(text, 10)
}

fn number(text: &[u8], base: u64) -> Option<u64> {
    let mut value = 0u64;
    for byte in text {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        if digit >= base {
            return None;
        }
        value = value.checked_mul(base)?.checked_add(digit)?;
    }
    (!text.is_empty()).then_some(value)
}

/// A short path put together in place, for system calls.
#[derive(Debug)]
pub(super) struct Path {
    bytes: [u8; 64],
    len: usize,
}

impl Path {
    /// `prefix`, then `number` in decimal, then `suffix`.
    pub(super) fn new(prefix: &[u8], number: u64, suffix: &[u8]) -> Self {
        let mut path = Path { bytes: [0; 64], len: 0 };
        path.push(prefix);
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut left = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        path.push(&digits[at..]);
        path.push(suffix);
        path
    }

    /// Ends with a zero byte.
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    /// Without the zero byte.
    pub(super) fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, part: &[u8]) {
        // One byte stays zero.
        if let Some(place) = self.bytes[..63].get_mut(self.len..self.len + part.len()) {
            place.copy_from_slice(part);
            self.len += part.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_name() {
        let text = std::fs::read("/proc/self/stat").unwrap();
        let layout = stat_layout(&text).unwrap();
        let here = stat_is_read_behind_the_name as *const () as usize as u64;
        assert!(layout.code.0 <= here && here < layout.code.1, "{layout:x?}");
        let mut evil = b"1 (a) b (c)".to_vec();
        evil.extend_from_slice(&text[text.iter().rposition(|b| *b == b')').unwrap() + 1..]);
        assert_eq!(stat_layout(&evil), Some(layout));
        assert_eq!(stat_layout(&text[..40]), None);
    }

    #[test]
    fn fdinfo_flags_are_octal() {
        assert_eq!(fdinfo(b"pos:\t17\nflags:\t02100002\nmnt_id:\t1\n"), (17, 0o2_100_002));
    }

    #[test]
    fn status_tells_state_and_mask() {
        let text = b"Name:\tx\nState:\tS (sleeping)\nSigPnd:\t0\nSigBlk:\tfffffffe7ffbfeff\n";
        assert_eq!(status(text), Some((b'S', 0xffff_fffe_7ffb_feff)));
        assert_eq!(status(&text[..20]), None);
        let own = std::fs::read("/proc/thread-self/status").unwrap();
        // SAFETY: takes nothing.
        assert_eq!(own_number(&own), u64::try_from(unsafe { libc::gettid() }).ok());
        assert_eq!(own_number(b"Name:\tx\nNSpid:\t4711\t17\t3\nUid:\t0\n"), Some(3));
        assert_eq!(own_number(b"Name:\tx\n"), None);
        assert_eq!(status(&own).unwrap().0, b'R');
        assert_eq!(
            (hex(b"7f00"), hex(b""), hex(b"7F"), hex(&[b'f'; 17])),
            (Some(0x7f00), None, None, None)
        );
    }

    #[test]
    fn paths_end_with_zero() {
        let path = Path::new(b"/proc/self/fd/", 120, b"/x");
        assert_eq!(&path.bytes[..19], b"/proc/self/fd/120/x\0"[..19].as_ref());
        assert_eq!(path.bytes[19], 0);
        assert_eq!(&Path::new(b"", 0, b"").bytes[..2], b"0\0");
    }
}
