//! HTTP/1.1 messages in their one canonical form, and nothing else: what the proxy writes must be read by this, whatever
//! came in. It shares no code with the engine, so that the two do not make the same mistake.

/// The head of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The three parts of the first line.
    pub start: [Vec<u8>; 3],
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How far bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Not to the end of a head.
    Nothing,
    /// A head, and not all of its body.
    Part(Head),
    /// A message, and how many bytes it takes.
    Whole(Head, Vec<u8>, usize),
}

/// What is wrong, and what it is about.
pub type Wrong = String;

impl Head {
    pub fn method(&self) -> &[u8] {
        &self.start[0]
    }

    pub fn target(&self) -> &[u8] {
        &self.start[1]
    }

    pub fn status(&self) -> u16 {
        std::str::from_utf8(&self.start[1]).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn values(&self, name: &[u8]) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// RFC 9112 §6.3, with what it leaves open shut: one length, or chunks alone, or neither.
    fn length(&self) -> Result<Length, Wrong> {
        let (lengths, codings) = (self.values(b"content-length"), self.values(b"transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(Length::Unsaid),
            ([length], []) => {
                let digits = length.iter().all(u8::is_ascii_digit);
                let value = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                value.filter(|_| digits).map(Length::Exact).ok_or_else(|| wrong("a length", length))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
            _ => Err(format!("framed twice or not at all: {self:?}")),
        }
    }
}

enum Length {
    Unsaid,
    Exact(usize),
    Chunked,
}

/// Reads the request that these bytes begin with.
pub fn request(bytes: &[u8]) -> Result<Read, Wrong> {
    let Some((head, at)) = head(bytes)? else { return Ok(Read::Nothing) };
    let [method, target, version] = &head.start;
    if !is_token(method) || target.is_empty() || !target.iter().all(|byte| is_visible(*byte)) || version != b"HTTP/1.1"
    {
        return Err(format!("a request line: {head:?}"));
    }
    if head.values(b"host").len() != 1 {
        return Err(format!("not one host: {head:?}"));
    }
    let length = match head.length()? {
        Length::Unsaid => Length::Exact(0),
        said => said,
    };
    body(bytes, head, at, length)
}

/// Reads the answer to a request of this method; `closed` when no byte can follow.
pub fn response(bytes: &[u8], method: &[u8], closed: bool) -> Result<Read, Wrong> {
    let Some((head, at)) = head(bytes)? else { return Ok(Read::Nothing) };
    let [version, status, _] = &head.start;
    if !matches!(version.as_slice(), b"HTTP/1.1" | b"HTTP/1.0") || status.len() != 3 || head.status() < 100 {
        return Err(format!("a status line: {head:?}"));
    }
    let length = head.length()?;
    let status = head.status();
    if method == b"HEAD" || matches!(status, 100..200 | 204 | 304) {
        if matches!(length, Length::Chunked) && status != 304 && method != b"HEAD" {
            return Err(format!("chunks where no body may be: {head:?}"));
        }
        return Ok(Read::Whole(head, Vec::new(), at));
    }
    match length {
        Length::Unsaid if closed => Ok(Read::Whole(head, bytes.get(at..).unwrap_or_default().to_vec(), bytes.len())),
        Length::Unsaid => Ok(Read::Part(head)),
        said => body(bytes, head, at, said),
    }
}

fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Wrong> {
    let mut cursor = Cursor { bytes, at: 0 };
    let Some(line) = cursor.line()? else { return Ok(None) };
    let mut parts = line.splitn(3, |byte| *byte == b' ').map(<[u8]>::to_vec);
    let (Some(first), Some(second), Some(third)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong("a first line", line));
    };
    let mut fields = Vec::new();
    loop {
        let Some(line) = cursor.line()? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some((Head { start: [first, second, third], fields }, cursor.at)));
        }
        fields.push(field(line)?);
    }
}

fn field(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Wrong> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| wrong("a line without a colon", line))?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if !is_token(name) || !value.iter().all(|byte| *byte == b'\t' || *byte == b' ' || is_visible(*byte)) {
        return Err(wrong("a field", line));
    }
    Ok((name.to_vec(), value.to_vec()))
}

fn body(bytes: &[u8], head: Head, at: usize, length: Length) -> Result<Read, Wrong> {
    let mut cursor = Cursor { bytes, at };
    if let Length::Exact(length) = length {
        return Ok(match cursor.take(length) {
            Some(body) => Read::Whole(head, body.to_vec(), cursor.at),
            None => Read::Part(head),
        });
    }
    let mut body = Vec::new();
    loop {
        let Some(line) = cursor.line()? else { return Ok(Read::Part(head)) };
        // Sixteen digits of them would be more than any message.
        let size = std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = size.filter(|text| text.len() < 16).and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| wrong("the size of a chunk", line))?;
        if size == 0 {
            break;
        }
        let Some(chunk) = cursor.take(size) else { return Ok(Read::Part(head)) };
        body.extend_from_slice(chunk);
        match cursor.line()? {
            None => return Ok(Read::Part(head)),
            Some([]) => {}
            Some(more) => return Err(wrong("the end of a chunk", more)),
        }
    }
    loop {
        let Some(line) = cursor.line()? else { return Ok(Read::Part(head)) };
        if line.is_empty() {
            return Ok(Read::Whole(head, body, cursor.at));
        }
        let (name, _) = field(line)?;
        if NEVER_BEHIND.iter().any(|never| name.eq_ignore_ascii_case(never)) {
            return Err(wrong("a trailer", line));
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next line without its end, which is CR and LF: none of them stands alone.
    fn line(&mut self) -> Result<Option<&'a [u8]>, Wrong> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) else { return Ok(None) };
        match rest.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return Ok(None),
            _ => return Err(wrong("a line's end", rest.get(..=end).unwrap_or_default())),
        }
        self.at += end + 2;
        Ok(rest.get(..end))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }
}

fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn wrong(what: &str, bytes: &[u8]) -> Wrong {
    format!("{what}: {:?}", String::from_utf8_lossy(bytes))
}

const NEVER_BEHIND: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"host", b"connection"];

/// Whatever is read whole takes no more bytes than there are, and is read the same when more follow.
pub fn fuzz_strict(data: &[u8]) {
    if let Ok(Read::Whole(head, body, used)) = request(data) {
        assert!(used <= data.len());
        let more = [data, b"GET"].concat();
        assert_eq!(request(&more), Ok(Read::Whole(head, body, used)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_one_length_says() {
        let two = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET ";
        let Ok(Read::Whole(head, body, used)) = request(two) else { panic!() };
        assert_eq!(
            (head.method(), head.target(), &body[..], used),
            (&b"POST"[..], &b"/a"[..], &b"abc"[..], two.len() - 4)
        );
        let chunks = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n";
        assert!(matches!(request(chunks), Ok(Read::Whole(_, body, used)) if body == b"ab" && used == chunks.len()));
        for end in 0..chunks.len() {
            assert!(matches!(request(&chunks[..end]), Ok(Read::Nothing | Read::Part(_))), "{end}");
        }
    }

    #[test]
    fn what_two_may_read_differently_is_wrong() {
        for fields in [
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: +1\r\n",
            "content-length: 1, 1\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding : chunked\r\n",
            "a: b\n",
            "a: b\rc\r\n",
            " a: b\r\n",
            "a\0: b\r\n",
            "host: b\r\n",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            assert!(request(bytes.as_bytes()).is_err(), "{fields:?}");
        }
        for chunks in ["1;x\r\na\r\n0\r\n\r\n", "0x1\r\na\r\n", "1\r\nab\r\n", "1\na\n0\n\n", "0\r\nhost: b\r\n\r\n"] {
            let bytes = format!("GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
            assert!(request(bytes.as_bytes()).is_err(), "{chunks:?}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert!(matches!(response(answer, b"HEAD", false), Ok(Read::Whole(_, _, used)) if used == answer.len()));
        assert!(matches!(response(answer, b"GET", true), Ok(Read::Part(_))));
        let unsaid = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert!(matches!(response(unsaid, b"GET", true), Ok(Read::Whole(_, body, _)) if body == b"abc"));
    }
}
