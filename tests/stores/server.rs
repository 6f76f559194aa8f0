//! An HTTP server that answers by a script, for what real servers do not do on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with one request, which it has read to its end.
pub enum Step {
    /// Sends these bytes, then closes.
    Send(String),
    /// Closes without a word: a lost answer, or none.
    Close,
    /// Says nothing for so long, then closes.
    Stall(Duration),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// Runs until the process ends.
pub struct Server {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// An answer with a length that is right.
pub fn answer(status: &str, headers: &str, body: &str) -> Step {
    let length = body.len();
    Step::Send(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"))
}

/// An error as S3 words it.
pub fn fault(status: &str, code: &str) -> Step {
    let body = format!("<Error><Code>{code}</Code><Message>the words of the store</Message></Error>");
    answer(status, "Content-Type: application/xml\r\n", &body)
}

/// 200 with an ETag and a body.
pub fn ok(body: &str) -> Step {
    answer("200 OK", "ETag: \"e\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", body)
}

impl Server {
    /// Answers the n-th request by the n-th step, and all after the last by closing.
    pub fn run(steps: impl IntoIterator<Item = Step>) -> Self {
        let mut steps = steps.into_iter().collect::<Vec<_>>().into_iter();
        Self::answering(move |_| steps.next().unwrap_or(Step::Close))
    }

    /// Answers each request as `step` says, one after another.
    pub fn answering(step: impl FnMut(&Seen) -> Step + Send + 'static) -> Self {
        let step = Mutex::new(step);
        Self::at_once(move |seen| (step.lock().unwrap())(seen))
    }

    /// Answers each request as `step` says, all at once. It heeds conditions: the question for that is not of the script.
    pub fn at_once(step: impl Fn(&Seen) -> Step + Send + Sync + 'static) -> Self {
        Self::asked_for_conditions(step, || fault("412 Precondition Failed", "PreconditionFailed"))
    }

    /// The same; `probe` answers the second creation of the object by which a store is known that ignores conditions.
    pub fn asked_for_conditions(
        step: impl Fn(&Seen) -> Step + Send + Sync + 'static,
        probe: impl Fn() -> Step + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, step) = (Arc::clone(&seen), Arc::new((step, probe)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, step) = (Arc::clone(&log), Arc::clone(&step));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    let is_probe = request.target.ends_with("/liblitestream-probe");
                    if !is_probe {
                        log.lock().unwrap().push(request.clone());
                    }
                    match if is_probe { step.1() } else { step.0(&request) } {
                        Step::Send(bytes) => drop((&stream).write_all(bytes.as_bytes())),
                        // The client has given this connection up meanwhile.
                        Step::Stall(time) => std::thread::sleep(time),
                        Step::Close => {}
                    }
                });
            }
        });
        Self { endpoint, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD target` of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, target, headers, body })
}
