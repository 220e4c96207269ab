//! Stop strings in streamed text.
//!
//! A stop string need not fall on token boundaries: `"\n### Input"` may arrive as `"\n#"`, `"##"`,
//! `" In"`, `"put"`. The matcher therefore holds back just the end of the text that could still become
//! a stop string, lets everything before it out at once, and never lets any part of a stop string
//! out. The result is that of looking after every character, however the text was cut into pieces.
//!
//! Pieces are `&str`, so whoever decodes tokens must wait for whole characters (a token may hold
//! part of one).

/// Watches a stream of text for the first stop string.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher for `stops`; empty strings are ignored, no strings at all lets everything through.
    pub fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
            stopped: false,
        }
    }

    /// Takes the next piece of text. Returns the text that is now certain to come before any stop
    /// string (it may be empty), and whether a stop string was completed. After that, and the stop
    /// string itself, nothing comes out any more.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        self.held.push_str(text);
        if let Some(start) = self.first_match() {
            self.stopped = true;
            let mut emit = std::mem::take(&mut self.held);
            emit.truncate(start);
            return (emit, true);
        }
        let rest = self.held.split_off(self.held.len() - self.undecided());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text still held back, for when the sequence ended otherwise (end-of-sequence token,
    /// length). Empty after a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// True once a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Where the match that is complete first begins. Of several complete at the same character,
    /// the one that begins first, so that no part of it comes out.
    fn first_match(&self) -> Option<usize> {
        self.stops
            .iter()
            .filter_map(|stop| {
                let start = self.held.find(stop.as_str())?;
                Some((start + stop.len(), start))
            })
            .min()
            .map(|(_, start)| start)
    }

    /// Length in bytes of the longest end of the held text that begins some stop string.
    fn undecided(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| {
                stop.char_indices()
                    .map(|(end, _)| &stop[..end])
                    .filter(|begin| self.held.ends_with(begin))
                    .map(str::len)
            })
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut m = matcher(stops);
        let mut out = String::new();
        for piece in pieces {
            out += &m.push(piece).0;
        }
        out += &m.finish();
        (out, m.stopped())
    }

    #[test]
    fn holds_back_what_may_become_a_stop_string() {
        let mut m = matcher(&["\n### Input"]);
        assert_eq!(m.push("Yes.\n#"), ("Yes.".into(), false));
        assert_eq!(m.push("##"), (String::new(), false));
        assert_eq!(m.push(" In"), (String::new(), false));
        assert_eq!(m.push("put: more"), (String::new(), true));
        assert_eq!(m.push("even more"), (String::new(), true));
        assert_eq!(m.finish(), "");
    }

    #[test]
    fn lets_out_what_turned_out_otherwise() {
        let mut m = matcher(&["\n### Input"]);
        assert_eq!(m.push("a\n##"), ("a".into(), false));
        assert_eq!(m.push("\n##"), ("\n##".into(), false));
        assert_eq!(m.push("x"), ("\n##x".into(), false));
        assert_eq!(m.push("\n"), (String::new(), false));
        assert_eq!(m.finish(), "\n");
    }

    #[test]
    fn overlapping_beginnings_are_not_lost() {
        assert_eq!(
            run(&["aab"], &["a", "a", "a", "b", "c"]),
            ("a".into(), true)
        );
        assert_eq!(run(&["abab"], &["ab", "aab", "ab!"]), ("aba".into(), true));
    }

    #[test]
    fn cutting_the_text_differently_changes_nothing() {
        let text = "Grüße 🙂🙃 — «fin» </s> naïve END of 日本語 text";
        for stops in [
            &["🙃 —", "END"][..],
            &["</s>"],
            &["fin» </", "n» <", "in"],
            &["日本語x", "本"],
            &["never"],
            &["🙂🙂"],
            &[],
        ] {
            let whole = run(stops, &[text]);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            for size in 1..9 {
                let pieces: Vec<String> = chars.chunks(size).map(|c| c.concat()).collect();
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                assert_eq!(run(stops, &pieces), whole, "{stops:?} by {size}");
            }
            for stop in stops {
                assert!(!whole.0.contains(stop));
            }
        }
    }

    #[test]
    fn the_first_to_be_complete_wins_and_the_longest_of_those() {
        assert_eq!(run(&["abc", "b"], &["xabc"]), ("xa".into(), true));
        assert_eq!(run(&["c", "abc"], &["xabc"]), ("x".into(), true));
        assert_eq!(run(&["STOP"], &["STOP"]), (String::new(), true));
    }

    #[test]
    fn empty_stop_strings_and_empty_pieces_do_nothing() {
        assert_eq!(run(&[""], &["a", "", "b"]), ("ab".into(), false));
        let mut m = matcher(&["zz"]);
        assert_eq!(m.push(""), (String::new(), false));
        assert_eq!(m.push("z"), (String::new(), false));
        assert_eq!(m.push(""), (String::new(), false));
        assert_eq!(m.push("z"), (String::new(), true));
    }
}
