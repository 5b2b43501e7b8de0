//! `nu-sso squid`: Squid's external ACL helper protocol (`external_acl_type`), with and without channel ids.
//!
//! Lines in, lines out. Whatever comes, each line gets one answer, and no line can hold up another for longer than an
//! answer may take.

use crate::ask::{AskError, parse_protocol, parse_tuple};
use crate::finder::Finder;
use nufw_proto::Tuple;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};

/// Bytes of a question; a longer line is read to its end and answered with an error.
const MAX_LINE: usize = 8 * 1024;

/// A line that is not a question.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BadLine {
    #[error("expected: [channel] source port destination port [protocol]")]
    Words,
    #[error("a word has a broken percent-encoding")]
    Encoding,
    #[error("the line is longer than {MAX_LINE} bytes")]
    Long,
    #[error(transparent)]
    Tuple(#[from] AskError),
}

/// Answers Squid's questions.
#[derive(Debug, Clone)]
pub struct Helper {
    finder: Arc<Finder>,
    in_flight: usize,
}

impl Helper {
    /// A helper that answers at most `in_flight` questions at a time.
    pub fn new(finder: Arc<Finder>, in_flight: u32) -> Self {
        Self {
            finder,
            in_flight: in_flight as usize,
        }
    }

    /// Answers until the input ends, and then what is still being looked for.
    ///
    /// Lines with a channel id are answered as soon as their answer is known, others in their order.
    pub async fn run(
        &self,
        mut input: impl AsyncBufRead + Unpin,
        mut output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> std::io::Result<()> {
        let (answers, mut ready) = mpsc::channel::<String>(self.in_flight);
        let writer = tokio::spawn(async move {
            let mut batch = Vec::new();
            while ready.recv_many(&mut batch, 256).await > 0 {
                output.write_all(batch.concat().as_bytes()).await?;
                output.flush().await?;
                batch.clear();
            }
            Ok::<_, std::io::Error>(())
        });
        let room = Arc::new(Semaphore::new(self.in_flight));
        let mut line = Vec::new();
        let read = loop {
            let whole = match read_line(&mut input, &mut line).await {
                Ok(Some(whole)) => whole,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let (channel, question) = split_channel(&line);
            let question = if whole {
                parse(question)
            } else {
                Err(BadLine::Long)
            };
            let Some(channel) = channel else {
                let answer = answer("", question, &self.finder).await;
                if answers.send(answer).await.is_err() {
                    break Ok(());
                }
                continue;
            };
            let prefix = format!("{channel} ");
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                break Ok(());
            };
            let (finder, answers) = (Arc::clone(&self.finder), answers.clone());
            tokio::spawn(async move {
                // Nobody is left to tell when the writer is gone.
                let _ = answers.send(answer(&prefix, question, &finder).await).await;
                drop(permit);
            });
        };
        drop(answers);
        let written = writer.await.map_err(std::io::Error::other)?;
        read.and(written)
    }
}

/// Reads to the end of a line, keeping no more than [`MAX_LINE`] of it: whether that is all of it, or `None` at the end of
/// the input.
async fn read_line(
    input: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<Option<bool>> {
    line.clear();
    let mut whole = true;
    let mut any = false;
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any.then_some(whole));
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = MAX_LINE.saturating_sub(line.len()).min(part.len());
        whole &= room == part.len();
        line.extend_from_slice(&part[..room]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

/// The channel id, if the line begins with one: a bare number, which no address is.
fn split_channel(line: &[u8]) -> (Option<&str>, &[u8]) {
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (first, rest) = line.split_at(end);
    let is_channel = (1..=20).contains(&first.len()) && first.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(first) {
        Ok(channel) if is_channel => (Some(channel), rest),
        _ => (None, line),
    }
}

fn parse(question: &[u8]) -> Result<Tuple, BadLine> {
    let mut words = question
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(decode);
    let mut next = || words.next().transpose();
    let (Some(src), Some(sport), Some(dst), Some(dport)) = (next()?, next()?, next()?, next()?) else {
        return Err(BadLine::Words);
    };
    // Squid writes "-" for what is not there, and may add it after the last word.
    let protocol = next()?.filter(|word| word != "-");
    if next()?.is_some_and(|word| word != "-") {
        return Err(BadLine::Words);
    }
    let protocol = parse_protocol(protocol.as_deref().unwrap_or("tcp"))?;
    Ok(parse_tuple(&src, &sport, &dst, &dport, protocol)?)
}

fn decode(word: &[u8]) -> Result<String, BadLine> {
    let hex = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(word.len());
    let mut bytes = word.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
            high.zip(low)
                .map(|(high, low)| high << 4 | low)
                .ok_or(BadLine::Encoding)?
        } else {
            byte
        });
    }
    String::from_utf8(out).map_err(|_| BadLine::Encoding)
}

/// Everything that is not a letter, a digit or one of `-._~` as `%XX`, which Squid undoes.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

async fn answer(prefix: &str, question: Result<Tuple, BadLine>, finder: &Finder) -> String {
    let broken =
        |message: &dyn std::fmt::Display| format!("{prefix}BH message={}\n", encode(&message.to_string()));
    match question {
        Err(error) => {
            tracing::debug!(%error, "a line that is no question");
            broken(&error)
        }
        Ok(tuple) => match finder.find(&tuple).await {
            Ok(Some(found)) => format!("{prefix}OK user={}\n", encode(&found.user)),
            Ok(None) => format!("{prefix}ERR\n"),
            Err(error) => {
                tracing::warn!(%error, "the log cannot be asked");
                broken(&"the log cannot be asked")
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple() -> Tuple {
        parse_tuple("10.0.0.7", "40312", "10.1.1.1", "443", 6).unwrap()
    }

    #[test]
    fn a_question_is_read_with_and_without_channel() {
        for (line, channel) in [
            ("10.0.0.7 40312 10.1.1.1 443", None),
            ("10.0.0.7 40312 10.1.1.1 443 -", None),
            ("0 10.0.0.7 40312 10.1.1.1 443", Some("0")),
            ("17 10%2e0.0.7 40312 10.1.1.1 443 tcp -\r", Some("17")),
        ] {
            let (found, question) = split_channel(line.as_bytes());
            assert_eq!(found, channel, "{line}");
            assert_eq!(parse(question), Ok(tuple()), "{line}");
        }
        let v6 = parse(b"fd00%3A%3A7 1 fd00::1 2 udp").unwrap();
        assert_eq!(v6, parse_tuple("fd00::7", "1", "fd00::1", "2", 17).unwrap());
    }

    #[test]
    fn what_is_no_question_is_an_error() {
        for line in [
            "",
            "10.0.0.7 40312 10.1.1.1",
            "10.0.0.7 40312 10.1.1.1 443 tcp more",
            "10.0.0.7 40312 - -",
            "10.0.0.% 40312 10.1.1.1 443",
            "10.0.0.%f 40312 10.1.1.1 443",
            "10.0.0.%+7 40312 10.1.1.1 443",
            "10.0.0.7%ff 40312 10.1.1.1 443",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(&[0xff, 0x00, 0x20]).is_err());
    }

    #[test]
    fn names_survive_the_way_to_squid() {
        for name in [
            "alice",
            "al ice",
            "a%20b",
            "jürgen",
            "\"quoted\"\n=x",
            "a+b@example.org",
        ] {
            let encoded = encode(name);
            assert!(
                encoded
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'=')
            );
            assert_eq!(decode(encoded.as_bytes()).unwrap(), name);
        }
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let text = format!("{}\nnext\nlast", "x".repeat(5 * MAX_LINE));
        let mut input = tokio::io::BufReader::with_capacity(100, text.as_bytes());
        let mut line = Vec::new();
        assert_eq!(read_line(&mut input, &mut line).await.unwrap(), Some(false));
        assert_eq!(line.len(), MAX_LINE);
        assert_eq!(read_line(&mut input, &mut line).await.unwrap(), Some(true));
        assert_eq!(line, b"next");
        assert_eq!(read_line(&mut input, &mut line).await.unwrap(), Some(true));
        assert_eq!(line, b"last");
        assert_eq!(read_line(&mut input, &mut line).await.unwrap(), None);
    }
}
