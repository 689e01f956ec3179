use super::*;

const RUN: Ahead =
    Ahead { end: 64 << 20, owner: 2, source: SeedAddr(0x5000_0000), addr: SeedAddr(0x7000_0000) };

fn wanted(offset: u64, size: u32) -> Wanted {
    let request = ReadRequest { unique: offset + 1, offset, size, pid: 9 };
    Wanted { request, arrived: Instant::now() }
}

/// A run that begins at offset 0.
fn ahead(offset: u64) -> Option<Ahead> {
    let further = |addr: SeedAddr| SeedAddr(addr.0 + offset);
    (offset < RUN.end).then(|| Ahead {
        source: further(RUN.source),
        addr: further(RUN.addr),
        ..RUN
    })
}

fn miss(streams: &mut Streams, offset: u64, size: u32) -> (Verdict, bool) {
    streams.miss(wanted(offset, size), ahead)
}

/// Everything that is wanted, fetched at once.
fn fetch_all(streams: &mut Streams) -> Vec<(Piece, Arrival)> {
    let mut all = Vec::new();
    while let Some(piece) = streams.next_piece() {
        let mut bytes = vec![0u8; PIECE];
        bytes[0] = 1;
        let buffer = Arc::new(Buffer::unregistered(bytes.into()));
        all.push((piece, streams.arrived(piece.id, &buffer)));
        assert!(streams.done(piece.id).is_empty());
    }
    all
}

#[test]
fn scattered_misses_begin_nothing() {
    let mut streams = Streams::new();
    for i in 0..1000u64 {
        let (verdict, work) = miss(&mut streams, (i * 7919 % 1000) << 15, 16384);
        assert!(matches!(verdict, Verdict::Fetch) && !work, "{i}");
    }
    assert!(streams.next_piece().is_none());
}

#[test]
fn two_misses_in_a_row_begin_a_stream_and_its_bytes_are_named() {
    let mut streams = Streams::new();
    assert!(!miss(&mut streams, 0x4000, 0x4000).1);
    assert!(miss(&mut streams, 0x8000, 0x4000).1);
    let piece = streams.next_piece().unwrap();
    assert_eq!((piece.offset, piece.len as u64, piece.owner), (0xc000, FIRST_WINDOW, 2));
    assert_eq!(piece.source, SeedAddr(0x5000_c000));
    assert_eq!(piece.addr, SeedAddr(0x7000_c000));
    assert!(streams.next_piece().is_none());
}

#[test]
fn a_reader_that_only_touches_wires_is_fed_to_the_end_of_the_run_and_no_further() {
    let mut streams = Streams::new();
    miss(&mut streams, 0, 0x4000);
    miss(&mut streams, 0x4000, 0x4000);
    let (mut at, mut misses, mut largest) = (0x8000u64, 0, 0);
    let mut stored = 0x8000u64;
    let mut wires: Vec<u64> = Vec::new();
    while at < RUN.end {
        for (piece, arrival) in fetch_all(&mut streams) {
            assert_eq!(piece.offset, stored, "pieces follow one another");
            stored += piece.len as u64;
            wires.extend(arrival.wires);
        }
        assert!(stored <= RUN.end && stored - at <= MAX_WINDOW + MAX_WINDOW / 2);
        largest = largest.max(stored - at);
        if at == stored || wires.contains(&at) {
            misses += 1;
            let (verdict, _) = miss(&mut streams, at, 4096);
            assert_eq!(matches!(verdict, Verdict::Here { .. }), wires.contains(&at), "{at:#x}");
            if at == stored {
                stored += 4096;
            }
        }
        at += 4096;
    }
    assert_eq!(stored, RUN.end);
    assert!(largest > MAX_WINDOW / 2, "{largest}");
    assert!(misses < 40, "{misses}");
}

#[test]
fn a_read_inside_a_piece_is_parked_and_one_over_its_border_is_not() {
    let mut streams = Streams::new();
    miss(&mut streams, 0, 0x4000);
    miss(&mut streams, 0x4000, 0x4000);
    let piece = streams.next_piece().unwrap();
    let end = piece.offset + piece.len as u64;
    assert!(matches!(miss(&mut streams, end - 0x1000, 0x2000).0, Verdict::Fetch));
    assert!(matches!(miss(&mut streams, end - 0x1000, 0x1000).0, Verdict::Parked));
    assert_eq!(streams.parked_pid(end - 0x1000 + 1), Some(9));
    let buffer = Arc::new(Buffer::unregistered(vec![0; PIECE].into()));
    assert_eq!(streams.arrived(piece.id, &buffer).parked.len(), 1);
    // From now until it is stored it is answered from the buffer, never parked.
    let verdict = miss(&mut streams, piece.offset + 0x1000, 0x1000).0;
    assert!(matches!(verdict, Verdict::Here { at: 0x1000, .. }), "{verdict:?}");
    assert!(streams.done(piece.id).is_empty());
}

#[test]
fn parked_reads_come_back_when_their_piece_fails_and_when_all_ends() {
    let mut streams = Streams::new();
    miss(&mut streams, 0, 0x4000);
    miss(&mut streams, 0x4000, 0x4000);
    let piece = streams.next_piece().unwrap();
    miss(&mut streams, piece.offset, 0x1000);
    assert_eq!(streams.failed(piece.id).len(), 1);
    assert!(streams.next_piece().is_none());
    miss(&mut streams, 1 << 20, 0x4000);
    miss(&mut streams, (1 << 20) + 0x4000, 0x4000);
    let piece = streams.next_piece().unwrap();
    for i in 0..MAX_PARKED as u64 + 1 {
        let (verdict, _) = miss(&mut streams, piece.offset + (i % 8) * 0x1000, 0x1000);
        let is_parked = matches!(verdict, Verdict::Parked);
        assert_eq!(is_parked, i < MAX_PARKED as u64, "{i}");
    }
    assert_eq!(streams.close().len(), MAX_PARKED);
    assert!(matches!(miss(&mut streams, piece.offset, 0x1000), (Verdict::Fetch, false)));
}

#[test]
fn more_readers_than_streams_share_them() {
    let mut streams = Streams::new();
    for reader in 0..2 * MAX_STREAMS as u64 {
        miss(&mut streams, reader << 22, 0x4000);
        miss(&mut streams, (reader << 22) + 0x4000, 0x4000);
        assert!(streams.streams.len() <= MAX_STREAMS);
        assert!(!fetch_all(&mut streams).is_empty());
    }
}

/// Two streams whose pieces overlap: what is stored must never wait for a READ that waits for the
/// streamer.
#[test]
fn what_is_being_stored_overlaps_no_parked_read() {
    let mut streams = Streams::new();
    let start = 0x8000u64;
    miss(&mut streams, 0, 0x4000);
    miss(&mut streams, 0x4000, 0x4000);
    let first = streams.next_piece().unwrap();
    let shifted = start + 0x6000;
    streams.begin(shifted, ahead(shifted).unwrap());
    let second = streams.next_piece().unwrap();
    assert!(first.offset < second.offset && second.offset < first.end());
    // The second piece has room behind the first one's end: this READ is inside the second alone.
    assert!(matches!(miss(&mut streams, first.end() - 0x1000, 0x2000).0, Verdict::Parked));
    assert!(matches!(miss(&mut streams, second.offset, 0x1000).0, Verdict::Parked));
    let buffer = Arc::new(Buffer::unregistered(vec![0; PIECE].into()));
    let arrival = streams.arrived(first.id, &buffer);
    assert_eq!(arrival.parked.len(), 1, "what is inside is answered, whoever it waits for");
    assert_eq!(arrival.locked, [(first.end() - 0x1000, first.end() + 0x1000)]);
    // While the first is stored, nothing that overlaps it may be parked on the second.
    assert!(matches!(miss(&mut streams, first.end() - 0x2000, 0x3000).0, Verdict::Fetch));
    assert!(matches!(miss(&mut streams, second.offset, 0x1000).0, Verdict::Here { .. }));
}
