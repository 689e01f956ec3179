//! The page service, whole: a stream is opened by a token, the input are a client's bytes behind it, and what comes back
//! is compared with what a plain reading of the protocol says. The seed's memory is a file.
//!
//! Other inputs are what a pager parses: welcomes, answers, greetings.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use mitosis::descriptor::{SeedAddr, SeedRange};
use mitosis::export::{Exports, PageService, ProcessExport};
use mitosis::id::{ReadKey, SeedId};
use mitosis::wire::read::{self, Answer, Ask, Request, Status};

/// What is exported of the file.
const FIRST: SeedRange = range(0x1_0000, 0x1_8000);
const SECOND: SeedRange = range(0x2_0000, 0x2_1000);
/// What is pushed of that.
const HOT: [SeedRange; 2] = [range(0x1_2000, 0x1_5000), SECOND];
const SEED: SeedId = SeedId(1);
const KEY: ReadKey = ReadKey([1; 16]);
/// Requests are short, their answers up to a megabyte each.
const MAX_STREAM_BYTES: usize = 2 << 10;

const fn range(start: u64, end: u64) -> SeedRange {
    SeedRange { start: SeedAddr(start), end: SeedAddr(end) }
}

pub(crate) fn run(input: &[u8]) -> bool {
    let Some((&what, bytes)) = input.split_first() else { return false };
    match what % 2 {
        0 => stream(&bytes[..bytes.len().min(MAX_STREAM_BYTES)]),
        _ => fixed(bytes),
    }
}

fn stream(bytes: &[u8]) -> bool {
    let service = service();
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let theirs = TcpStream::from(OwnedFd::from(theirs));
    let token = service.issue_token();
    let greeting = read::encode_greeting(&token);
    (&ours).write_all(&[&greeting[..], bytes].concat()).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    let answers = std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let mut answers = Vec::new();
            // A service that hangs up on unread bytes resets the connection behind its last answer.
            let _ = (&ours).read_to_end(&mut answers);
            answers
        });
        service.serve(theirs);
        answers.join().expect("a reader")
    });
    let mut answers = &answers[..];
    let mut welcome = [0u8; read::WELCOME_LEN];
    answers.read_exact(&mut welcome).expect("a welcome");
    assert_eq!(read::parse_welcome(welcome), Ok(Status::Ok));

    let (mut rest, mut any) = (bytes, false);
    loop {
        match read::parse_request(rest) {
            Ok(Some((request, used))) => {
                check(&request, &mut answers);
                rest = &rest[used..];
                any = true;
            }
            Ok(None) => break,
            Err(_) => {
                let (answer, _) = take(&mut answers);
                assert_eq!((answer.tag, answer.status), (0, Status::Protocol));
                break;
            }
        }
    }
    assert!(answers.is_empty(), "{} bytes behind the last answer", answers.len());
    any
}

/// The answer is what the request asks for, to the byte.
fn check(request: &Request, answers: &mut &[u8]) {
    let is_ours = request.seed == SEED && request.key == KEY;
    match &request.ask {
        Ask::Read(ranges) => {
            let (answer, body) = take(answers);
            assert_eq!(answer.tag, request.tag);
            let is_inside = |&(addr, len): &(SeedAddr, u32)| {
                let end = addr.0 + u64::from(len);
                [FIRST, SECOND].iter().any(|part| part.start <= addr && end <= part.end.0)
            };
            let status = match (is_ours, ranges.list().iter().all(is_inside)) {
                (false, _) => Status::Revoked,
                (true, false) => Status::BadRange,
                (true, true) => Status::Ok,
            };
            assert_eq!(answer.status, status);
            if status == Status::Ok {
                let bytes = |&(addr, len): &(SeedAddr, u32)| memory(addr.0, len as usize);
                let expected: Vec<u8> = ranges.list().iter().flat_map(bytes).collect();
                assert!(body == expected, "other bytes than the seed's");
            }
        }
        Ask::Push(holes) => {
            let mut pushed = Vec::new();
            let end = loop {
                let (answer, body) = take(answers);
                assert_eq!(answer.tag, request.tag);
                if answer.status != Status::Pushed {
                    break answer.status;
                }
                let (addr, pages) = body.split_at(read::PUSH_ADDR_LEN);
                let addr = u64::from_le_bytes(addr.try_into().expect("8 bytes"));
                assert!(pages == memory(addr, pages.len()), "other bytes than the seed's");
                pushed.extend(addr..addr + pages.len() as u64);
            };
            assert_eq!(end, if is_ours { Status::Ok } else { Status::Revoked });
            let is_hole = |at: &u64| holes.iter().any(|hole| hole.contains(SeedAddr(*at)));
            let hot = HOT.iter().flat_map(|part| part.start.0..part.end.0);
            let expected: Vec<u64> = hot.filter(|at| is_ours && !is_hole(at)).collect();
            assert!(pushed == expected, "another part of the seed is pushed");
        }
    }
}

/// One answer with its bytes.
fn take<'a>(answers: &mut &'a [u8]) -> (Answer, &'a [u8]) {
    let (head, rest) = answers.split_first_chunk().expect("an answer");
    let answer = read::parse_answer(head).expect("the service's own answers parse");
    let (body, rest) = rest.split_at(answer.len);
    *answers = rest;
    (answer, body)
}

/// Messages of fixed length, both ways.
fn fixed(bytes: &[u8]) -> bool {
    let mut any = false;
    if let Some(greeting) = bytes.first_chunk::<{ read::GREETING_LEN }>()
        && let Ok(token) = read::parse_greeting(greeting)
    {
        let written = read::encode_greeting(&token);
        assert_eq!((&written[..10], &written[12..]), (&greeting[..10], &greeting[12..]));
        any = true;
    }
    if let Some(answer) = bytes.first_chunk::<{ read::ANSWER_LEN }>()
        && let Ok(Answer { tag, status, len }) = read::parse_answer(answer)
    {
        assert_eq!(read::encode_answer(tag, status, len), *answer);
        any = true;
    }
    if let Some(welcome) = bytes.first_chunk::<{ read::WELCOME_LEN }>()
        && let Ok(status) = read::parse_welcome(*welcome)
    {
        assert_eq!(read::encode_welcome(status), *welcome);
        any = true;
    }
    any
}

/// What the seed has at `addr`: no two pages alike.
fn memory(addr: u64, len: usize) -> Vec<u8> {
    (addr..addr + len as u64).map(|at| (at ^ (at >> 8)).to_le_bytes()[0]).collect()
}

fn service() -> &'static Arc<PageService> {
    static SERVICE: OnceLock<Arc<PageService>> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let mem: File = tempfile::tempfile().expect("a file");
        for part in [FIRST, SECOND] {
            let bytes = memory(part.start.0, usize::try_from(part.len()).expect("it is small"));
            mem.write_all_at(&bytes, part.start.0).expect("room");
        }
        let exports = Exports::new();
        let readable = vec![FIRST, SECOND];
        exports.add(SEED, ProcessExport { mem, readable, read_key: KEY, arena: None });
        exports.set_hot(SEED, HOT.to_vec());
        PageService::new(exports)
    })
}
