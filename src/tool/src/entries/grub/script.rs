//! GRUB's script language as a tree (GRUB manual, "Shell-like scripting"; grub-core/script/yylex.l and
//! parser.y): words with their quotes, commands with their blocks, `if`, `function`. Loops are refused, because
//! grub-mkconfig writes none.

use crate::entries::grub::menu::ScriptError;
use crate::words::quoted::shown;

/// Limit for the depth of nested blocks and conditions.
const DEPTH_MAX: usize = 24;

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Characters as they are written.
    Bare(String),
    /// Characters from quotes, or behind a backslash.
    Quoted(String),
    /// A variable, whose value is split into words.
    Variable(String),
    /// A variable in double quotes, whose value is not split.
    QuotedVariable(String),
}

/// A word, before its variables are expanded.
pub type Word = Vec<Part>;

/// A statement, and the line it begins in.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// The line, counted from 1.
    pub line: usize,
    /// The kind, with its parts.
    pub kind: Kind,
}

/// The kind of a statement.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command with its arguments.
    Command {
        /// The name and the arguments; never empty.
        words: Vec<Word>,
        /// The statements in braces behind the words.
        block: Option<Vec<Statement>>,
    },
    /// `if` and every `elif`: the conditions and the statements that they guard.
    If {
        /// The branches, in order: a condition, and the statements that it guards.
        branches: Vec<(Vec<Statement>, Vec<Statement>)>,
        /// The statements behind `else`.
        otherwise: Vec<Statement>,
    },
    /// A function.
    Function {
        /// Its name.
        name: String,
        /// Its statements.
        body: Vec<Statement>,
    },
}

/// Parses a script. Returns its statements, or the line with the error and the reason.
pub fn parse(text: &str) -> Result<Vec<Statement>, (usize, ScriptError)> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), line: 1 };
    let (statements, end) = parser.until(&[], 0)?;
    match end {
        End::Brace => Err((parser.line, ScriptError::Unexpected("'}'".to_owned()))),
        End::File | End::Keyword(_) => Ok(statements),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    Open,
    Close,
    Delimiter,
}

/// The end of a run of statements.
#[derive(Debug, PartialEq, Eq)]
enum End {
    File,
    Brace,
    Keyword(&'static str),
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<(usize, Token)>>,
    line: usize,
}

/// Words that GRUB reserves at the beginning of a command.
const RESERVED: [&str; 14] = [
    "if", "then", "elif", "else", "fi", "function", "for", "while", "until", "do", "done", "case", "esac",
    "select",
];

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let (line, token) = self.tokens.next()?;
        self.line = line;
        Some(token)
    }

    fn wrong<T>(&self, what: &str) -> Result<T, (usize, ScriptError)> {
        Err((self.line, ScriptError::Unexpected(what.to_owned())))
    }

    /// Parses statements up to one of these keywords, a closing brace or the end.
    fn until(
        &mut self,
        keywords: &[&'static str],
        depth: usize,
    ) -> Result<(Vec<Statement>, End), (usize, ScriptError)> {
        if depth > DEPTH_MAX {
            return Err((self.line, ScriptError::TooDeep));
        }
        let mut statements = Vec::new();
        loop {
            let word = match self.next() {
                None => return Ok((statements, End::File)),
                Some(Token::Delimiter) => continue,
                Some(Token::Close) => return Ok((statements, End::Brace)),
                Some(Token::Open) => return self.wrong("'{'"),
                Some(Token::Word(word)) => word,
            };
            let line = self.line;
            let reserved = RESERVED.into_iter().find(|reserved| is_bare(&word, reserved));
            let kind = match reserved {
                None => self.command(word, depth)?,
                Some("if") => self.condition(depth)?,
                Some("function") => self.function(depth)?,
                Some(reserved) if keywords.contains(&reserved) => {
                    return Ok((statements, End::Keyword(reserved)));
                }
                Some(loops @ ("for" | "while" | "until" | "case" | "select")) => {
                    return Err((line, ScriptError::Construct(loops)));
                }
                Some(reserved) => return self.wrong(&shown(reserved)),
            };
            statements.push(Statement { line, kind });
        }
    }

    fn command(&mut self, name: Word, depth: usize) -> Result<Kind, (usize, ScriptError)> {
        let mut words = vec![name];
        loop {
            match self.tokens.peek() {
                Some((_, Token::Word(_))) => {
                    if let Some(Token::Word(word)) = self.next() {
                        words.push(word);
                    }
                }
                Some((_, Token::Open)) => {
                    self.next();
                    let block = self.block(depth)?;
                    return match self.tokens.peek() {
                        None | Some((_, Token::Delimiter | Token::Close)) => {
                            Ok(Kind::Command { words, block: Some(block) })
                        }
                        Some((line, _)) => {
                            Err((*line, ScriptError::Unexpected("what follows '}'".to_owned())))
                        }
                    };
                }
                // A closing brace is left to the block that it closes.
                _ => return Ok(Kind::Command { words, block: None }),
            }
        }
    }

    fn block(&mut self, depth: usize) -> Result<Vec<Statement>, (usize, ScriptError)> {
        let opened = self.line;
        match self.until(&[], depth + 1)? {
            (statements, End::Brace) if !statements.is_empty() => Ok(statements),
            (_, End::Brace) => self.wrong("an empty block"),
            _ => Err((opened, ScriptError::Unclosed("'{'"))),
        }
    }

    fn function(&mut self, depth: usize) -> Result<Kind, (usize, ScriptError)> {
        let name = match self.next() {
            Some(Token::Word(word)) => match word.as_slice() {
                [Part::Bare(name)] => name.clone(),
                _ => return self.wrong("what is no name of a function"),
            },
            _ => return self.wrong("a function without a name"),
        };
        loop {
            match self.next() {
                Some(Token::Delimiter) => {}
                Some(Token::Open) => return Ok(Kind::Function { name, body: self.block(depth)? }),
                _ => return self.wrong("a function without a block"),
            }
        }
    }

    fn condition(&mut self, depth: usize) -> Result<Kind, (usize, ScriptError)> {
        let opened = self.line;
        let mut branches = Vec::new();
        loop {
            let (test, end) = self.until(&["then"], depth + 1)?;
            if end != End::Keyword("then") || test.is_empty() {
                return Err((opened, ScriptError::Unclosed("'if'")));
            }
            let (body, end) = self.until(&["elif", "else", "fi"], depth + 1)?;
            branches.push((test, body));
            match end {
                End::Keyword("elif") => {}
                End::Keyword("fi") => return Ok(Kind::If { branches, otherwise: Vec::new() }),
                End::Keyword("else") => {
                    return match self.until(&["fi"], depth + 1)? {
                        (otherwise, End::Keyword(_)) => Ok(Kind::If { branches, otherwise }),
                        _ => Err((opened, ScriptError::Unclosed("'if'"))),
                    };
                }
                _ => return Err((opened, ScriptError::Unclosed("'if'"))),
            }
        }
    }
}

fn is_bare(word: &Word, text: &str) -> bool {
    matches!(word.as_slice(), [Part::Bare(bare)] if bare == text)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, (usize, ScriptError)> {
    let mut lexer = Lexer { chars: text.chars().peekable(), line: 1 };
    let mut tokens = Vec::new();
    loop {
        let line = lexer.line;
        let Some(&c) = lexer.chars.peek() else { return Ok(tokens) };
        let token = match c {
            ' ' | '\t' => {
                lexer.take();
                continue;
            }
            // A comment begins only where a word would begin: "a#b" is a word.
            '#' => {
                while lexer.chars.next_if(|c| *c != '\n').is_some() {}
                continue;
            }
            '\n' | ';' => {
                lexer.take();
                Token::Delimiter
            }
            '{' => {
                lexer.take();
                Token::Open
            }
            '}' => {
                lexer.take();
                Token::Close
            }
            '|' | '&' | '<' | '>' => return Err((line, ScriptError::Unexpected(shown(&c.to_string())))),
            _ => match lexer.word()? {
                word if word.is_empty() => continue,
                word => Token::Word(word),
            },
        };
        tokens.push((line, token));
    }
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Reads a word. It is empty if there was only a continued line.
    fn word(&mut self) -> Result<Word, (usize, ScriptError)> {
        let mut word = Word::new();
        while let Some(&c) = self.chars.peek() {
            let line = self.line;
            match c {
                '{' | '}' | '|' | '&' | ';' | '<' | '>' | ' ' | '\t' | '\n' => break,
                '\'' => {
                    self.take();
                    let mut text = String::new();
                    loop {
                        match self.take() {
                            None => return Err((line, ScriptError::Unclosed("a single quote"))),
                            Some('\'') => break,
                            Some(c) => text.push(c),
                        }
                    }
                    word.push(Part::Quoted(text));
                }
                '"' => {
                    self.take();
                    self.double_quoted(&mut word, line)?;
                }
                '\\' => {
                    self.take();
                    match self.take() {
                        None => {
                            return Err((line, ScriptError::Unexpected("a backslash at the end".to_owned())));
                        }
                        // The line continues.
                        Some('\n') => {}
                        Some(c) => word.push(Part::Quoted(c.to_string())),
                    }
                }
                '$' => {
                    self.take();
                    let name = self.variable()?;
                    word.push(Part::Variable(name));
                }
                _ => {
                    self.take();
                    match word.last_mut() {
                        Some(Part::Bare(text)) => text.push(c),
                        _ => word.push(Part::Bare(c.to_string())),
                    }
                }
            }
        }
        Ok(word)
    }

    /// Reads up to the closing quote. In double quotes a backslash escapes only '$', '"', itself and the line's
    /// end.
    fn double_quoted(&mut self, word: &mut Word, opened: usize) -> Result<(), (usize, ScriptError)> {
        let mut text = String::new();
        loop {
            match self.take() {
                None => return Err((opened, ScriptError::Unclosed("a double quote"))),
                Some('"') => break,
                Some('\\') => match self.chars.peek() {
                    Some('\n') => {
                        self.take();
                    }
                    Some(&c @ ('$' | '"' | '\\')) => {
                        self.take();
                        text.push(c);
                    }
                    _ => text.push('\\'),
                },
                Some('$') => {
                    word.push(Part::Quoted(std::mem::take(&mut text)));
                    let name = self.variable()?;
                    word.push(Part::QuotedVariable(name));
                }
                Some(c) => text.push(c),
            }
        }
        word.push(Part::Quoted(text));
        Ok(())
    }

    /// Reads the name behind a '$'.
    fn variable(&mut self) -> Result<String, (usize, ScriptError)> {
        let line = self.line;
        let braced = self.chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        match self.chars.peek() {
            Some(&c @ ('?' | '#' | '*' | '@')) => {
                self.take();
                name.push(c);
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        let closed = !braced || self.chars.next_if_eq(&'}').is_some();
        if name.is_empty() || !closed {
            return Err((line, ScriptError::Unexpected("'$' without the name of a variable".to_owned())));
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use crate::entries::grub::script::*;

    fn bare(text: &str) -> Part {
        Part::Bare(text.to_owned())
    }

    fn quoted(text: &str) -> Part {
        Part::Quoted(text.to_owned())
    }

    fn words(text: &str) -> Vec<Word> {
        let tokens = tokens(text).unwrap().into_iter();
        tokens
            .filter_map(|(_, token)| if let Token::Word(word) = token { Some(word) } else { None })
            .collect()
    }

    #[test]
    fn quotes_mean_what_they_mean_to_grub() {
        for (text, word) in [
            ("a#b", vec![bare("a#b")]),
            ("'$a \"b\\'", vec![quoted("$a \"b\\")]),
            ("'it'\\''s'", vec![quoted("it"), quoted("'"), quoted("s")]),
            ("\"\\$a \\\" \\\\ \\n\"", vec![quoted("$a \" \\ \\n")]),
            ("a\\ b", vec![bare("a"), quoted(" "), bare("b")]),
            ("x$a", vec![bare("x"), Part::Variable("a".into())]),
            ("\"${a}b\"", vec![quoted(""), Part::QuotedVariable("a".into()), quoted("b")]),
            ("a\\\nb", vec![bare("ab")]),
            ("\"a\\\nb\"", vec![quoted("ab")]),
            ("(hd0,gpt2)/x", vec![bare("(hd0,gpt2)/x")]),
            ("${10}", vec![Part::Variable("10".into())]),
        ] {
            assert_eq!(words(text), [word], "{text:?}");
        }
    }

    #[test]
    fn statements_end_at_lines_and_semicolons_and_comments_are_nothing() {
        let script = parse("# a\na b; c # d ; e\n\\\nf\n").unwrap();
        let lines: Vec<_> = script.iter().map(|statement| statement.line).collect();
        assert_eq!(lines, [2, 2, 3]);
    }

    #[test]
    fn reserved_words_are_reserved_only_where_a_command_begins() {
        let script = parse("if a if fi; then b then else fi; elif c; then d; else e; fi; fi2 done").unwrap();
        assert_eq!(script.len(), 2);
        let Kind::If { branches, otherwise } = &script[0].kind else { panic!() };
        assert_eq!((branches.len(), otherwise.len()), (2, 1));
        assert!(parse("'if' a").is_ok_and(|script| script.len() == 1));
    }

    #[test]
    fn blocks_lie_in_each_other_and_braces_need_no_spaces() {
        let script = parse("submenu 'x'{\nmenuentry y { a;b }\n}\nfunction f\n{ c\n}").unwrap();
        let Kind::Command { block: Some(block), .. } = &script[0].kind else { panic!() };
        assert!(matches!(&block[0].kind, Kind::Command { block: Some(inner), .. } if inner.len() == 2));
        assert!(matches!(&script[1].kind, Kind::Function { name, body } if name == "f" && body.len() == 1));
    }

    #[test]
    fn what_is_no_script_or_no_shape_of_mkconfig_is_named_with_its_line() {
        for (text, line, says) in [
            ("a\nfor i in 1; do b; done", 2, "'for'"),
            ("while a; do b; done", 1, "'while'"),
            ("a 'b\nc", 1, "single quote"),
            ("\na \"b\nc", 2, "double quote"),
            ("if a; then b", 1, "'if'"),
            ("if a; b; fi", 1, "'fi'"),
            ("menuentry x {\na\n", 1, "'{'"),
            ("a\n}\n", 2, "'}'"),
            ("a { }", 1, "empty block"),
            ("a { b } c", 1, "follows"),
            ("a | b", 1, "'|'"),
            ("a ${b", 1, "'$'"),
            ("a $", 1, "'$'"),
            ("function {\n}", 1, "without a name"),
            ("else", 1, "'else'"),
            (&"a { ".repeat(40), 1, "deep"),
        ] {
            let (at, why) = parse(text).unwrap_err();
            assert!(at == line && why.to_string().contains(says), "{text:?}: line {at}: {why}");
        }
    }
}
