//! Lines between the two programs: what a fabric's descriptors and agents would carry.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const PORT: u16 = 9099;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct SideChannel {
    lines: BufReader<TcpStream>,
}

impl SideChannel {
    pub fn accept(own: IpAddr) -> Self {
        let listener =
            TcpListener::bind(SocketAddr::new(own, PORT)).expect("the side channel's port");
        Self::over(listener.accept().expect("the reader").0)
    }

    /// The owner may not be there yet.
    pub fn connect(peer: IpAddr) -> Self {
        let began = Instant::now();
        loop {
            match TcpStream::connect(SocketAddr::new(peer, PORT)) {
                Ok(stream) => return Self::over(stream),
                Err(error) if began.elapsed() > PATIENCE => panic!("no owner: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { lines: BufReader::new(stream) }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.lines.get_mut(), "{line}").expect("the side channel");
    }

    /// The next line; none at the end.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        let bytes = self.lines.read_line(&mut line).expect("the side channel");
        (bytes > 0).then(|| line.trim_end().to_owned())
    }

    /// Says a line and returns the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear().unwrap_or_else(|| panic!("the owner ended at '{line}'"))
    }
}

/// The numbers of a line.
pub fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}
