//! Markdown tables and text from data that was not written for markdown.

/// A table in GitHub's dialect. Cells are escaped; a row shorter than the header is padded.
pub(crate) fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.iter().map(|cell| inline(cell)).collect());
    text.push_str(&format!("|{}\n", " --- |".repeat(header.len())));
    for row in rows {
        let cells =
            (0..header.len()).map(|i| row.get(i).map_or(String::new(), |cell| inline(cell)));
        text.push_str(&line(cells.collect()));
    }
    text
}

/// Text for within a line or cell: nothing in it is taken for markup.
pub(crate) fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' => escaped.push_str("<br>"),
            '\r' => {}
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '[' | ']' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            // Within a word an underscore is no markup, and escaping it would spoil names to copy.
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A fenced block whose fence is longer than any run of backticks inside.
pub(crate) fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_the_table() {
        let header = ["a".to_owned(), "b".to_owned()];
        let text = table(
            &header,
            &[vec!["x|y\nz".into()], vec!["<b>".into(), "`c`".into()]],
        );
        let expected = "| a | b |\n| --- | --- |\n| x\\|y<br>z |  |\n| &lt;b&gt; | \\`c\\` |\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_fence_outgrows_its_content() {
        assert_eq!(fenced("toml", "a = 1\n"), "```toml\na = 1\n```\n");
        assert!(fenced("", "```` x").starts_with("`````\n"));
    }
}
