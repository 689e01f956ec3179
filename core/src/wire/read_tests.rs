//! READ streams: golden bytes, limits, bytes that nobody meant to send.

use proptest::prelude::*;

use super::*;

const KEY: ReadKey = ReadKey([0xab; 16]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(ranges: &[(SeedAddr, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_read(&mut out, 7, SeedId(0x0123), &KEY, ranges);
    out
}

#[test]
fn golden_bytes() {
    let greeting = encode_greeting(&StreamToken([0x11; 32]));
    assert_eq!(hex(&greeting), format!("4d49544f5245414401000000{}", "11".repeat(32)));
    assert_eq!(hex(&encode_welcome(Status::Revoked)), "02000000");
    let key = "ab".repeat(16);
    assert_eq!(
        hex(&read(&[(SeedAddr(0x7f00_0000_1000), 0x2000)])),
        format!(
            "01000100070000002301000000000000{key}\
             00100000007f00000020000000000000"
        )
    );
    let mut push = Vec::new();
    encode_push(&mut push, 9, SeedId(0x0123), &KEY, &[]);
    assert_eq!(hex(&push), format!("02000000090000002301000000000000{key}"));
    push.clear();
    encode_push(&mut push, 9, SeedId(1), &KEY, &[SeedRange::new(0x1000, 0x3000)]);
    assert_eq!(
        hex(&push),
        format!(
            "02000100090000000100000000000000{key}\
             00100000000000000020000000000000"
        )
    );
    assert_eq!(hex(&encode_answer(7, Status::Ok, 0x2000)), "07000000000000000020000000000000");
}

#[test]
fn limits_of_a_read() {
    let most = vec![(SeedAddr(0x1000), 0x4000); MAX_RANGES];
    let (request, used) = parse_request(&read(&most)).unwrap().unwrap();
    assert_eq!(used, MAX_REQUEST_LEN);
    let Ask::Read(ranges) = request.ask else { panic!("not a READ") };
    assert_eq!((ranges.list(), ranges.bytes()), (&most[..], MAX_READ_BYTES));

    let more = vec![(SeedAddr(0x1000), 1); MAX_RANGES + 1];
    assert_eq!(bytes_of(&more), Err(Malformed::RangeCount(MAX_RANGES + 1)));
    assert_eq!(bytes_of(&[]), Err(Malformed::RangeCount(0)));
    let whole = u32::try_from(MAX_READ_BYTES).unwrap();
    assert_eq!(bytes_of(&[(SeedAddr(0), whole)]), Ok(MAX_READ_BYTES));
    assert_eq!(bytes_of(&[(SeedAddr(0), whole + 1)]), Err(Malformed::TooLong));
    assert_eq!(bytes_of(&[(SeedAddr(0), whole), (SeedAddr(0), 1)]), Err(Malformed::TooLong));
    for (addr, len) in [(0, 0), (u64::MAX, 1)] {
        let addr = SeedAddr(addr);
        assert_eq!(bytes_of(&[(addr, len)]), Err(Malformed::Range { addr, len }));
    }
}

#[test]
fn a_push_names_what_need_not_be_sent() {
    let holes = [SeedRange::new(0x1000, 0x3000), SeedRange::new(0x9000, 0xa000)];
    let mut bytes = Vec::new();
    encode_push(&mut bytes, 9, SeedId(1), &KEY, &holes);
    let (request, used) = parse_request(&bytes).unwrap().unwrap();
    assert_eq!((request.ask, used), (Ask::Push(holes.to_vec()), bytes.len()));
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[REQUEST_LEN + at..][..new.len()].copy_from_slice(new);
        parse_request(&bytes)
    };
    let (addr, len) = (SeedAddr(u64::MAX), 0x2000);
    assert_eq!(with(0, &[0xff; 8]), Err(Malformed::Range { addr, len }));
    let (addr, len) = (SeedAddr(0x1000), 0);
    assert_eq!(with(8, &[0; 4]), Err(Malformed::Range { addr, len }));
    assert_eq!(with(12, &[1]), Err(Malformed::Reserved));
    assert_eq!(with(RANGE_LEN + 15, &[1]), Err(Malformed::Reserved));
    let more = vec![holes[0]; MAX_RANGES + 1];
    let mut most = Vec::new();
    encode_push(&mut most, 9, SeedId(1), &KEY, &more);
    let (request, _) = parse_request(&most).unwrap().unwrap();
    assert_eq!(request.ask, Ask::Push(more[1..].to_vec()), "one past the limit is not told");
    most[2] += 1;
    let past = MAX_RANGES + 1;
    assert_eq!(parse_request(&most), Err(Malformed::RangeCount(past)));
}

#[test]
fn broken_requests_are_refused_before_their_end() {
    let good = read(&[(SeedAddr(0x1000), 0x1000)]);
    for (at, byte, error) in [
        (0, 3, Malformed::Op(3)),
        (1, 1, Malformed::Reserved),
        (2, 0, Malformed::RangeCount(0)),
        (3, 0xff, Malformed::RangeCount(0xff01)),
        (44, 1, Malformed::Reserved),
        (42, 0xff, Malformed::TooLong),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(parse_request(&bad), Err(error), "byte {at}");
    }
}

#[test]
fn broken_greetings_and_answers_are_refused() {
    let good = encode_greeting(&StreamToken([1; 32]));
    assert_eq!(parse_greeting(&good), Ok(StreamToken([1; 32])));
    let mut newer = good;
    newer[10] = 1;
    assert_eq!(parse_greeting(&newer), Ok(StreamToken([1; 32])), "a newer minor version");
    let mut bad = good;
    bad[0] = b'X';
    assert_eq!(parse_greeting(&bad), Err(Malformed::Magic));
    bad = good;
    bad[8] = 2;
    assert_eq!(parse_greeting(&bad), Err(Malformed::Version(2, 0)));
    assert_eq!(parse_welcome([9, 0, 0, 0]), Err(Malformed::Status(9)));

    for (status, len, fits) in [
        (Status::Ok, MAX_READ_BYTES, true),
        (Status::Ok, MAX_READ_BYTES + 1, false),
        (Status::Pushed, PUSH_ADDR_LEN + MAX_PUSH_BYTES, true),
        (Status::Pushed, PUSH_ADDR_LEN + MAX_PUSH_BYTES + 1, false),
        (Status::Pushed, PUSH_ADDR_LEN, false),
        (Status::Revoked, 0, true),
        (Status::Revoked, 1, false),
    ] {
        let parsed = parse_answer(&encode_answer(1, status, len));
        assert_eq!(parsed.is_ok(), fits, "{status:?} {len}");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        if let Ok(Some((_, used))) = parse_request(&bytes) {
            prop_assert!(used <= bytes.len() && used <= MAX_REQUEST_LEN);
        }
    }

    #[test]
    fn a_request_comes_back_and_each_cut_waits(
        list in prop::collection::vec((0u64..1 << 47, 1u32..=16384), 1..=MAX_RANGES),
    ) {
        let list: Vec<_> = list.into_iter().map(|(addr, len)| (SeedAddr(addr), len)).collect();
        let bytes = read(&list);
        let (request, used) = parse_request(&bytes).unwrap().unwrap();
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!((request.tag, request.seed, &request.key), (7, SeedId(0x0123), &KEY));
        let Ask::Read(ranges) = request.ask else { panic!("not a READ") };
        prop_assert_eq!(ranges.list(), &list[..]);
        for cut in 0..bytes.len() {
            prop_assert_eq!(parse_request(&bytes[..cut]), Ok(None));
        }
    }
}
