//! Messages of /dev/fuse, as the kernel writes them.

use super::*;

fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; IN_HEADER];
    put(&mut bytes, 4, &opcode.to_ne_bytes());
    put(&mut bytes, 8, &42u64.to_ne_bytes());
    put(&mut bytes, 32, &77u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_read_is_parsed_and_each_cut_is_refused() {
    let mut body = vec![0; 40];
    put(&mut body, 8, &0x1234_5000u64.to_ne_bytes());
    put(&mut body, 16, &8192u32.to_ne_bytes());
    let whole = message(opcode::READ, &body);
    let read = ReadRequest { unique: 42, offset: 0x1234_5000, size: 8192, pid: 77 };
    assert_eq!(Request::parse(&whole), Ok(Request::Read(read)));
    for cut in 0..IN_HEADER + 20 {
        assert_eq!(Request::parse(&whole[..cut]), Err(Malformed { len: cut }), "{cut}");
    }
}

#[test]
fn what_is_not_served_is_other() {
    for opcode in [1, 16, 25, 4711] {
        assert_eq!(Request::parse(&message(opcode, &[])), Ok(Request::Other { unique: 42 }));
    }
    for opcode in [opcode::FORGET, opcode::DESTROY] {
        assert_eq!(Request::parse(&message(opcode, &[])), Ok(Request::Silent));
    }
    let open = Request::parse(&message(opcode::OPEN, &[]));
    assert_eq!(open, Ok(Request::Open { unique: 42 }));
}

#[test]
fn init_takes_only_what_is_offered() {
    let limits = InitLimits { readahead: 16384, max_pages: 32, max_background: 64 };
    let out = init_answer(31, 4096, init::ASYNC_READ | 1 << 2, limits);
    assert_eq!(u32_at(&out, 4), Some(31));
    assert_eq!(u32_at(&out, 8), Some(4096));
    assert_eq!(u32_at(&out, 12), Some(1));
    assert_eq!(u32_at(&out, 32), Some(0));
}
