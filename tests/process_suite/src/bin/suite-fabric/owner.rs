//! The side that is read from.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mitosis::descriptor::SeedRange;
use mitosis::export::arena::{Arena, ArenaLimits, SLAB_BYTES};
use mitosis::export::rc::RcService;
use mitosis::export::{Exports, PageService, ProcessExport};
use mitosis::id::{ReadKey, SeedId};
use mitosis::verbs::Pd;
use mitosis_process_suite::{PAGE, say};

use crate::control::{CONTROL_PORT, Described, PAGES_PORT, hex};
use crate::{OUTSTANDING, open_card, owned_word};

const WORDS_OF_PAGE: usize = PAGE / 8;
/// How often the arena is looked at while it is filled.
const LOOK: Duration = Duration::from_millis(5);

struct Owner {
    exports: Arc<Exports>,
    pages: Arc<PageService>,
    described: Described,
}

/// `arena_mib`: what the arena may take; without it, all of the memory.
pub fn run(own: IpAddr, mib: usize, arena_mib: Option<u64>) {
    let words = (mib << 20) / 8;
    let mut memory = vec![0u64; words + WORDS_OF_PAGE];
    let ahead = memory.as_ptr().align_offset(PAGE);
    let memory = &mut memory[ahead..ahead + words];
    for (index, word) in memory.iter_mut().enumerate() {
        *word = owned_word(own, index);
    }
    // Frozen: nothing is written there any more.
    let memory = &*memory;
    let start = memory.as_ptr().expose_provenance() as u64;
    let range = SeedRange::new(start, start + 8 * words as u64);

    let context = open_card();
    let pd = Pd::new(&context).expect("a protection domain");
    let whole = (8 * words as u64).next_multiple_of(SLAB_BYTES);
    let most = arena_mib.map_or(whole, |mib| mib << 20);
    let limits = ArenaLimits { ready: 0, most };
    let arena = Arena::start(Arc::new(pd.clone()), limits).expect("an arena");
    let exports = Exports::new();
    let (seed, key) = (SeedId::random(), ReadKey::random());
    let pages = PageService::new(exports.clone());
    let caps = context.caps().expect("its capabilities");
    let answered = OUTSTANDING.min(caps.max_qp_rd_atom);
    let service = RcService::start(pd, SocketAddr::new(own, 0), answered, pages.clone());
    let service = service.expect("a listener");
    let export = ProcessExport {
        mem: File::open("/proc/self/mem").expect("its own memory"),
        readable: vec![range],
        read_key: key.clone(),
        arena: Some(arena.lay(vec![range])),
    };
    exports.add(seed, export);
    let slabs = loop {
        let state = exports.arena_news(seed, 0, 0);
        if state.is_done {
            break state.news.map_or(Vec::new(), |news| news.slabs);
        }
        std::thread::sleep(LOOK);
    };
    let described = Described { seed, key, listener: service.address(), range, slabs };
    let owner = Arc::new(Owner { exports, pages, described });
    let streams = TcpListener::bind(SocketAddr::new(own, PAGES_PORT)).expect("the pages' port");
    let control = TcpListener::bind(SocketAddr::new(own, CONTROL_PORT)).expect("control's port");
    let pages = owner.pages.clone();
    each_on_a_thread(streams, move |stream| pages.serve(stream));
    say(&format!("owns {mib} MiB, {} slabs", owner.described.slabs.len()));
    each_on_a_thread(control, move |stream| owner.answer(&stream)).join().expect("for ever");
}

fn each_on_a_thread(
    listener: TcpListener,
    serve: impl Fn(TcpStream) + Clone + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    })
}

impl Owner {
    fn answer(&self, mut stream: &TcpStream) {
        let mut line = String::new();
        if BufReader::new(stream).read_line(&mut line).is_err() {
            return;
        }
        let answer = match line.trim_end() {
            "token" => hex(&self.pages.issue_token().0),
            "seed" => self.described.text(),
            "revoke" => {
                self.exports.revoke(self.described.seed);
                "revoked".to_owned()
            }
            other => format!("'{other}' is not known here"),
        };
        let _ = writeln!(stream, "{answer}");
    }
}
