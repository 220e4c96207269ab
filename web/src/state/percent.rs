//! Percent-encoding for the values of a link: everything but RFC 3986's unreserved characters is encoded, so that no value
//! can be taken for structure, whatever a messenger does to the link.

/// Encodes `text`.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Decodes `text`; `None` where an escape is broken or the bytes are no UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_and_structure_is_hidden() {
        for text in ["", "a b", "50 % & more=1,2#x", "ü 猫\n\t\"<script>", "~-._"] {
            let encoded = encode(text);
            assert!(
                !encoded.contains([' ', '&', '=', ',', '#', '<', '"']),
                "{encoded}"
            );
            assert_eq!(decode(&encoded).as_deref(), Some(text));
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%2", "%zz", "%ff", "a%C3"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
