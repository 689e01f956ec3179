//! As much of HTTP/1.x (RFC 9112) as an endpoint of one page needs: a request's head is read, its body never, and each
//! connection carries one request.

/// A longer head is refused: what scrapers and browsers send has some hundred bytes.
pub const MAX_HEAD_BYTES: usize = 8 << 10;
/// Where the counters are.
const PATH: &str = "/metrics";
/// Prometheus's text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The counters are what it asks for.
    Ok,
    /// It is no request of HTTP/1.x.
    BadRequest,
    /// It asks for another page.
    NotFound,
    /// It asks for something else than to read.
    MethodNotAllowed,
    /// Its head did not come in time.
    Timeout,
    /// Its head has more than [`MAX_HEAD_BYTES`].
    HeadTooLarge,
    /// It is of another version of HTTP.
    VersionNotSupported,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::Timeout => "408 Request Timeout",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What it comes to.
    pub status: Status,
    /// It is a HEAD: the answer has no body.
    pub is_head: bool,
}

impl From<Status> for Asked {
    fn from(status: Status) -> Self {
        Asked { status, is_head: false }
    }
}

/// The head, if all of it has come: up to the empty line, without empty lines before it.
pub fn head(bytes: &[u8]) -> Option<&[u8]> {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let bytes = &bytes[begin..];
    let is_end =
        |at: &usize| bytes[*at..].starts_with(b"\n\r\n") || bytes[*at..].starts_with(b"\n\n");
    let end = (0..bytes.len()).find(is_end)?;
    Some(&bytes[..end])
}

/// What a head asks for.
pub fn asked(head: &[u8]) -> Asked {
    let Ok(head) = std::str::from_utf8(head) else { return Status::BadRequest.into() };
    let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = first[..] else { return Status::BadRequest.into() };
    let mut hosts = 0;
    for line in lines {
        let Some((name, _)) = line.split_once(':').filter(|(name, _)| is_token(name)) else {
            return Status::BadRequest.into();
        };
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
    }
    let status = match version {
        "HTTP/1.1" if hosts == 1 => of(method, target),
        "HTTP/1.0" if hosts <= 1 => of(method, target),
        "HTTP/1.1" | "HTTP/1.0" => Status::BadRequest,
        other if other.starts_with("HTTP/") => Status::VersionNotSupported,
        _ => Status::BadRequest,
    };
    Asked { status, is_head: method == "HEAD" }
}

fn of(method: &str, target: &str) -> Status {
    // The absolute form, which a server must take though only proxies are sent it.
    let behind_host =
        target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    let path = behind_host.unwrap_or(target).split('?').next();
    match method {
        _ if !is_token(method) => Status::BadRequest,
        _ if path != Some(PATH) => Status::NotFound,
        "GET" | "HEAD" => Status::Ok,
        _ => Status::MethodNotAllowed,
    }
}

/// RFC 9110's token: what methods and names of fields are made of.
fn is_token(text: &str) -> bool {
    let is_mark = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// The answer, with the counters where they are asked for.
pub fn answer(asked: Asked, counters: impl FnOnce() -> String) -> Vec<u8> {
    let (kind, body) = match asked.status {
        Status::Ok => (CONTENT_TYPE, counters()),
        other => {
            ("text/plain; charset=utf-8", format!("{}: the counters are at {PATH}\n", other.line()))
        }
    };
    let allow = if asked.status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    let (line, len) = (asked.status.line(), body.len());
    let head = format!(
        "HTTP/1.1 {line}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{allow}Connection: close\r\n\r\n"
    );
    let body = if asked.is_head { "" } else { &body };
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Status {
        asked(head(text.as_bytes()).unwrap()).status
    }

    #[test]
    fn a_head_comes_to_one_status() {
        let host = "Host: a:9464\r\n";
        for (line, fields, status) in [
            ("GET /metrics HTTP/1.1", host, Status::Ok),
            ("HEAD /metrics HTTP/1.1", host, Status::Ok),
            ("GET /metrics?name[]=up HTTP/1.1", "hOST:\r\nX-Y: 1\r\n", Status::Ok),
            ("GET http://a:9464/metrics HTTP/1.1", host, Status::Ok),
            ("GET /metrics HTTP/1.0", "", Status::Ok),
            ("GET / HTTP/1.1", host, Status::NotFound),
            ("POST /other HTTP/1.1", host, Status::NotFound),
            ("GET /metrics/ HTTP/1.1", host, Status::NotFound),
            ("GET http://a HTTP/1.1", host, Status::NotFound),
            ("POST /metrics HTTP/1.1", host, Status::MethodNotAllowed),
            ("get /metrics HTTP/1.1", host, Status::MethodNotAllowed),
            ("GET /metrics HTTP/2.0", host, Status::VersionNotSupported),
            ("GET /metrics HTTP/1.1", "", Status::BadRequest),
            ("GET /metrics HTTP/1.1", "Host: a\r\nHost: b\r\n", Status::BadRequest),
            ("GET /metrics HTTP/1.1", "Host: a\r\nno field\r\n", Status::BadRequest),
            ("GET /metrics HTTP/1.1", "Host: a\r\n folded: b\r\n", Status::BadRequest),
            ("GET  /metrics HTTP/1.1", host, Status::BadRequest),
            ("GET /metrics", host, Status::BadRequest),
            ("GET /metrics SSH-2.0", host, Status::BadRequest),
            ("G(T /metrics HTTP/1.1", host, Status::BadRequest),
        ] {
            assert_eq!(of_text(&format!("{line}\r\n{fields}\r\n")), status, "{line} {fields}");
            let bare = format!("\r\n{line}\r\n{fields}\r\n").replace('\r', "");
            assert_eq!(of_text(&bare), status, "{line} {fields}, without CR");
        }
        assert_eq!(asked(b"GET /\xff HTTP/1.1\r\nHost: a").status, Status::BadRequest);
    }

    #[test]
    fn a_head_is_whole_or_not_there() {
        let whole = b"\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let len = whole.len() - "body".len();
        for cut in 0..len {
            assert_eq!(head(&whole[..cut]), None, "{cut}");
        }
        let expected = &b"GET /metrics HTTP/1.1\r\nHost: a\r"[..];
        assert_eq!((head(&whole[..len]), head(whole)), (Some(expected), Some(expected)));
    }

    #[test]
    fn any_bytes_are_answered() {
        let good = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let asked = head(&bytes).map_or(Status::Timeout.into(), asked);
                let answer = answer(asked, || "x 1\n".to_owned());
                assert!(answer.starts_with(b"HTTP/1.1 "));
            }
        }
    }

    #[test]
    fn an_answer_tells_its_length_and_what_is_allowed() {
        let text = |asked| String::from_utf8(answer(asked, || "x 1\n".to_owned())).unwrap();
        let got = text(Status::Ok.into());
        assert!(
            got.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
            "{got}"
        );
        assert!(
            got.contains("\r\nContent-Length: 4\r\n") && got.ends_with("\r\n\r\nx 1\n"),
            "{got}"
        );
        let head = text(Asked { status: Status::Ok, is_head: true });
        assert_eq!(head, got.strip_suffix("x 1\n").unwrap());
        let refused = text(Status::MethodNotAllowed.into());
        assert!(
            refused.contains("\r\nAllow: GET, HEAD\r\n") && !refused.contains("x 1"),
            "{refused}"
        );
    }
}
