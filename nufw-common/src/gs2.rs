//! What `GS2-KRB5-PLUS` (RFC 5801) puts around a Kerberos token: a header, and what binds the token to its TLS connection.
//!
//! Pure. Makes and believes no token: that is a Kerberos library's part, in whichever process may run it.

/// The SASL name of the mechanism.
pub const MECHANISM: &str = "GS2-KRB5-PLUS";
/// The service of the server's principal: `nuauth/HOST@REALM`.
pub const SERVICE: &str = "nuauth";

/// The only kind of binding that is taken (RFC 9266), as the header begins with it.
const BOUND: &str = "p=tls-exporter,";
/// The object identifier of Kerberos V5 (RFC 4121, 1), with its tag and length.
const KERBEROS: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02];
/// The tag that begins the first token of a context (RFC 2743, 3.1).
const FIRST_TOKEN: u8 = 0x60;

/// A first message, or a first token, is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gs2Error {
    /// It is bound to no connection, or by another kind of binding.
    #[error("it is not bound to its TLS connection by tls-exporter")]
    Unbound,
    /// The header has another form.
    #[error("its header is malformed")]
    Header,
    /// The token is none of Kerberos V5.
    #[error("its token is not one of Kerberos V5")]
    Token,
}

/// A client's first message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initial {
    /// Whom the client wants to act as, if it says so.
    pub acts_as: Option<String>,
    /// The token as a Kerberos library wants it.
    pub token: Vec<u8>,
    header: Vec<u8>,
}

impl Initial {
    /// Takes a message apart. Nothing that it says is true yet.
    pub fn parse(message: &[u8]) -> Result<Self, Gs2Error> {
        let rest = message.strip_prefix(BOUND.as_bytes()).ok_or(Gs2Error::Unbound)?;
        let end = rest
            .iter()
            .position(|byte| *byte == b',')
            .ok_or(Gs2Error::Header)?;
        let (name, token) = (&rest[..end], &rest[end + 1..]);
        let acts_as = match name {
            [] => None,
            [b'a', b'=', name @ ..] => Some(unescaped(name).ok_or(Gs2Error::Header)?),
            _ => return Err(Gs2Error::Header),
        };
        let header = message[..message.len() - token.len()].to_vec();
        Ok(Self {
            acts_as,
            token: framed(token),
            header,
        })
    }

    /// What the token must be bound to: this header, and what TLS exports of the connection.
    pub fn binding(&self, exported: &[u8]) -> Vec<u8> {
        binding(&self.header, exported)
    }
}

/// What a token that goes behind this header must be bound to: both sides say the same, or no login comes of it.
pub fn binding(header: &[u8], exported: &[u8]) -> Vec<u8> {
    [header, exported].concat()
}

/// The header of a first message.
pub fn header(acts_as: Option<&str>) -> Vec<u8> {
    let name = acts_as.map_or_else(String::new, |name| format!("a={}", escaped(name)));
    format!("{BOUND}{name},").into_bytes()
}

/// The first message, with the token that a Kerberos library made for it.
pub fn first_message(header: &[u8], token: &[u8]) -> Result<Vec<u8>, Gs2Error> {
    Ok([header, unframed(token)?].concat())
}

/// What a GSS-API library says of an error: in brackets what Kerberos says of it, if that says anything.
pub fn words(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.trim();
    let Some((general, own)) = text.strip_suffix(')').and_then(|text| text.split_once(" (")) else {
        return text.to_owned();
    };
    let says_nothing = own == "Success" || own.starts_with("Unknown error");
    if says_nothing { general } else { own }.to_owned()
}

/// A token with its frame (RFC 2743, 3.1), which the mechanism leaves out on the wire.
fn framed(inner: &[u8]) -> Vec<u8> {
    let length = KERBEROS.len() + inner.len();
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let mut token = vec![FIRST_TOKEN];
    // DER: one byte below 128, else how many bytes the length has, and these.
    if length >= 128 {
        token.extend(u8::try_from(significant.len()).map(|count| 0x80 | count));
    }
    token.extend_from_slice(significant);
    token.extend_from_slice(&KERBEROS);
    token.extend_from_slice(inner);
    token
}

fn unframed(token: &[u8]) -> Result<&[u8], Gs2Error> {
    let inner = match token {
        [FIRST_TOKEN, length, rest @ ..] if *length < 128 => rest,
        [FIRST_TOKEN, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..).ok_or(Gs2Error::Token)?,
        _ => return Err(Gs2Error::Token),
    };
    let inner = inner.strip_prefix(&KERBEROS).ok_or(Gs2Error::Token)?;
    // A length that says something else would make another token of it on the other side.
    if framed(inner) == token {
        Ok(inner)
    } else {
        Err(Gs2Error::Token)
    }
}

/// A name as the header writes it: without commas and equal signs.
fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn unescaped(name: &[u8]) -> Option<String> {
    let mut parts = std::str::from_utf8(name).ok()?.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match part.get(..2)? {
            "2C" => (',', &part[2..]),
            "3D" => ('=', &part[2..]),
            _ => return None,
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The token of a real client began so; its length and what follows are made up.
    fn token(inner: &[u8]) -> Vec<u8> {
        framed(inner)
    }

    #[test]
    fn a_frame_is_what_a_kerberos_library_makes() {
        let inner = [&[0x01, 0x00, 0x6e, 0x82][..], &[7; 691]].concat();
        let framed = token(&inner);
        assert_eq!(framed[..6], [0x60, 0x82, 0x02, 0xc2, 0x06, 0x09]);
        assert_eq!(token(&[1; 10])[..4], [0x60, 21, 0x06, 0x09]);
        assert_eq!(token(&[1; 150])[..5], [0x60, 0x81, 161, 0x06, 0x09]);
    }

    #[test]
    fn what_is_bound_to_nothing_or_malformed_is_refused() {
        for (message, error) in [
            (&b""[..], Gs2Error::Unbound),
            (b"n,,x", Gs2Error::Unbound),
            (b"y,,x", Gs2Error::Unbound),
            (b"F,p=tls-exporter,,x", Gs2Error::Unbound),
            (b"p=tls-unique,,x", Gs2Error::Unbound),
            (b"p=tls-exporter", Gs2Error::Unbound),
            (b"p=tls-exporter,", Gs2Error::Header),
            (b"p=tls-exporter,a=,x", Gs2Error::Header),
            (b"p=tls-exporter,n=x,x", Gs2Error::Header),
            (b"p=tls-exporter,a=x=,x", Gs2Error::Header),
            (b"p=tls-exporter,a==2c,x", Gs2Error::Header),
            ("p=tls-exporter,a==é,x".as_bytes(), Gs2Error::Header),
            (b"p=tls-exporter,a=\xff,x", Gs2Error::Header),
        ] {
            assert_eq!(Initial::parse(message), Err(error), "{message:?}");
        }
        for wrong in [
            &b""[..],
            &[0x60],
            &[0x60, 0x82, 1],
            &[0x60, 0xff, 1, 2],
            &[
                0x60, 12, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02,
            ],
            &[
                0x60, 11, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x03,
            ],
        ] {
            assert_eq!(first_message(b"", wrong), Err(Gs2Error::Token), "{wrong:?}");
        }
    }

    #[test]
    fn an_error_is_told_by_what_it_says() {
        for (text, words_of_it) in [
            (
                "Unspecified GSS failure.  Minor code may provide more information (Clock skew too great)",
                "Clock skew too great",
            ),
            (
                "No credentials were supplied (No Kerberos credentials available (default cache: FILE:/x))",
                "No Kerberos credentials available (default cache: FILE:/x)",
            ),
            (
                "Incorrect channel bindings were supplied (Success)",
                "Incorrect channel bindings were supplied",
            ),
            ("Something (Unknown error)", "Something"),
            ("Nothing", "Nothing"),
            ("", ""),
        ] {
            assert_eq!(words(&text), words_of_it);
        }
    }

    #[test]
    fn the_binding_covers_the_header() {
        let parsed = |name| {
            let message = first_message(&header(name), &token(b"inner")).unwrap();
            Initial::parse(&message).unwrap()
        };
        let (plain, named) = (parsed(None), parsed(Some("alice")));
        assert_eq!(plain.binding(b"XY"), b"p=tls-exporter,,XY");
        assert_eq!(named.binding(b"XY"), b"p=tls-exporter,a=alice,XY");
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart_the_same(
            name in proptest::option::of("[^\\x00]{1,40}"),
            inner in proptest::collection::vec(any::<u8>(), 0..70_000),
        ) {
            let header = header(name.as_deref());
            let message = first_message(&header, &token(&inner)).unwrap();
            let initial = Initial::parse(&message).unwrap();
            prop_assert_eq!(&initial.acts_as, &name);
            prop_assert_eq!(&initial.token, &token(&inner));
            prop_assert_eq!(initial.binding(b"e"), [&header[..], b"e"].concat());
        }

        #[test]
        fn anything_is_taken_apart_or_refused(message in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Initial::parse(&message);
            let _ = first_message(b"", &message);
            let _ = Initial::parse(&[BOUND.as_bytes(), &message].concat());
        }
    }
}
