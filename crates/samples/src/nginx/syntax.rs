//! The syntax of nginx's configuration: directives, their words and their blocks.

use super::ConfigError;

/// How deeply blocks may lie in each other; nginx's own contexts need four.
const DEPTH: usize = 8;

/// A directive: `NAME WORD... ;` or `NAME WORD... { ... }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    /// Where it begins, from 1.
    pub(super) line: usize,
}

/// Reads a file's directives.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, ConfigError> {
    let mut reader = Reader { tokens: tokens(text)?.into_iter(), line: 1 };
    reader.block(0)
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Reader {
    tokens: std::vec::IntoIter<(usize, Token)>,
    line: usize,
}

impl Reader {
    fn next(&mut self) -> Option<Token> {
        let (line, token) = self.tokens.next()?;
        self.line = line;
        Some(token)
    }

    /// The directives up to the end of the block, or of the file at depth 0.
    fn block(&mut self, depth: usize) -> Result<Vec<Directive>, ConfigError> {
        if depth > DEPTH {
            return Err(self.error("blocks are nested too deeply"));
        }
        let mut out = Vec::new();
        loop {
            match self.next() {
                None if depth == 0 => return Ok(out),
                None => return Err(self.error("unexpected end of file, expecting \"}\"")),
                Some(Token::Close) if depth > 0 => return Ok(out),
                Some(Token::Close) => return Err(self.error("unexpected \"}\"")),
                Some(Token::Open) => return Err(self.error("unexpected \"{\"")),
                Some(Token::End) => return Err(self.error("unexpected \";\"")),
                Some(Token::Word(name)) => out.push(self.directive(name, depth)?),
            }
        }
    }

    fn directive(&mut self, name: String, depth: usize) -> Result<Directive, ConfigError> {
        let line = self.line;
        let mut words = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(word)) => words.push(word),
                Some(Token::End) => return Ok(Directive { name, words, block: None, line }),
                Some(Token::Open) => {
                    let block = Some(self.block(depth + 1)?);
                    return Ok(Directive { name, words, block, line });
                }
                Some(Token::Close) => return Err(self.error("unexpected \"}\"")),
                None => return Err(self.error("unexpected end of file, expecting \";\" or \"}\"")),
            }
        }
    }

    fn error(&self, what: &str) -> ConfigError {
        ConfigError { line: self.line, what: what.to_owned() }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ConfigError> {
    let mut out = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' => out.push((line, Token::End)),
            '{' => out.push((line, Token::Open)),
            '}' => out.push((line, Token::Close)),
            '"' | '\'' => {
                let begun = line;
                let mut word = String::new();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') => word.extend(chars.next()),
                        Some(other) => {
                            line += usize::from(other == '\n');
                            word.push(other);
                        }
                        None => {
                            let what = "unexpected end of file in a quoted word".to_owned();
                            return Err(ConfigError { line: begun, what });
                        }
                    }
                }
                out.push((begun, Token::Word(word)));
            }
            first => {
                let mut word = String::from(first);
                while let Some(next) = chars.next_if(|c| !c.is_whitespace() && !";{}".contains(*c)) {
                    word.push(next);
                }
                out.push((line, Token::Word(word)));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_comments_and_blocks() {
        let text = "events {\n}\n# no\nhttp { log_format main '$a \"b' \"c\\\"\"; # x\n server { listen 443 ssl; } }";
        let read = parse(text).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].block.as_deref()), ("events", Some(&[][..])));
        let http = read[1].block.as_ref().unwrap();
        assert_eq!((http[0].words.join("|"), http[0].line), ("main|$a \"b|c\"".to_owned(), 4));
        assert_eq!(http[1].block.as_ref().unwrap()[0].words, ["443", "ssl"]);
    }

    #[test]
    fn mistakes_are_placed() {
        let of = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(of("a {\n b"), "unexpected end of file, expecting \";\" or \"}\" in line 2");
        assert_eq!(of("\n}"), "unexpected \"}\" in line 2");
        assert_eq!(of("a 'b"), "unexpected end of file in a quoted word in line 1");
        assert_eq!(of(&"a {".repeat(100_000)), "blocks are nested too deeply in line 1");
    }

    #[test]
    fn any_text_is_read_or_refused() {
        let pieces = ["{", "}", ";", "'", "\"", "\\", "a", "\n", "#", " ", "é"];
        for seed in 0..20_000_usize {
            let text: String = (0..8)
                .map(|at| pieces[seed.wrapping_mul(31).wrapping_add(at * at * 7 + seed / 11) % 11])
                .collect();
            let _ = parse(&text);
        }
    }
}
