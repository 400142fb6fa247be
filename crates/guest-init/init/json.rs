//! A reader of JSON (RFC 8259), as far as a configuration needs it: no fractions, nesting of a few levels.

use std::iter::Peekable;
use std::str::CharIndices;

/// A JSON value. Numbers are unsigned integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Where the text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson {
    pub(crate) offset: usize,
    pub(crate) expected: &'static str,
}

const MAX_DEPTH: usize = 16;

pub(crate) fn parse(text: &str) -> Result<Value, NotJson> {
    let mut reader = Reader {
        chars: text.char_indices().peekable(),
        len: text.len(),
    };
    let value = reader.value(0)?;
    reader.skip_space();
    match reader.chars.next() {
        None => Ok(value),
        Some((offset, _)) => Err(NotJson {
            offset,
            expected: "the end",
        }),
    }
}

struct Reader<'a> {
    chars: Peekable<CharIndices<'a>>,
    len: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, NotJson> {
        if depth > MAX_DEPTH {
            return self.fail("less nesting");
        }
        self.skip_space();
        match self.peek() {
            Some('{') => self.object(depth),
            Some('[') => self.list(depth),
            Some('"') => self.text().map(Value::Text),
            Some('0'..='9') => self.number(),
            Some('t') => self.word("true", Value::Bool(true)),
            Some('f') => self.word("false", Value::Bool(false)),
            Some('n') => self.word("null", Value::Null),
            _ => self.fail("a value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, NotJson> {
        let mut fields = Vec::new();
        self.sequence('{', '}', |reader| {
            reader.skip_space();
            let name = reader.text()?;
            reader.skip_space();
            reader.take(':', "':'")?;
            fields.push((name, reader.value(depth + 1)?));
            Ok(())
        })?;
        Ok(Value::Object(fields))
    }

    fn list(&mut self, depth: usize) -> Result<Value, NotJson> {
        let mut items = Vec::new();
        self.sequence('[', ']', |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Value::List(items))
    }

    fn sequence(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.take(open, "an opening bracket")?;
        self.skip_space();
        if self.peek() == Some(close) {
            self.chars.next();
            return Ok(());
        }
        loop {
            item(self)?;
            self.skip_space();
            match self.chars.next() {
                Some((_, ',')) => {}
                Some((_, c)) if c == close => return Ok(()),
                other => return Err(self.error_at(other, "',' or a closing bracket")),
            }
        }
    }

    fn text(&mut self) -> Result<String, NotJson> {
        self.take('"', "a string")?;
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some((_, '"')) => return Ok(text),
                Some((_, '\\')) => text.push(self.escape()?),
                Some((_, c)) if c >= ' ' => text.push(c),
                other => return Err(self.error_at(other, "'\"'")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let next = self.chars.next();
        Ok(match next {
            Some((_, c @ ('"' | '\\' | '/'))) => c,
            Some((_, 'b')) => '\u{8}',
            Some((_, 'f')) => '\u{c}',
            Some((_, 'n')) => '\n',
            Some((_, 'r')) => '\r',
            Some((_, 't')) => '\t',
            Some((_, 'u')) => self.unicode()?,
            other => return Err(self.error_at(other, "an escape")),
        })
    }

    fn unicode(&mut self) -> Result<char, NotJson> {
        let first = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            self.take('\\', "a second surrogate")?;
            self.take('u', "a second surrogate")?;
            let second = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&second) {
                return self.fail("a second surrogate");
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).map_or_else(|| self.fail("a first surrogate"), Ok)
    }

    fn four_digits(&mut self) -> Result<u32, NotJson> {
        let mut code = 0;
        for _ in 0..4 {
            let next = self.chars.next();
            match next.and_then(|(_, c)| c.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.error_at(next, "four hexadecimal digits")),
            }
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let mut number = 0_u64;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            match number
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(digit)))
            {
                Some(longer) => number = longer,
                None => return self.fail("a number of 64 bits"),
            }
            self.chars.next();
        }
        if matches!(self.peek(), Some('.' | 'e' | 'E')) {
            return self.fail("a whole number");
        }
        Ok(Value::Number(number))
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, NotJson> {
        for c in word.chars() {
            self.take(c, word)?;
        }
        Ok(value)
    }

    fn take(&mut self, wanted: char, expected: &'static str) -> Result<(), NotJson> {
        match self.chars.next() {
            Some((_, c)) if c == wanted => Ok(()),
            other => Err(self.error_at(other, expected)),
        }
    }

    fn skip_space(&mut self) {
        while self
            .chars
            .next_if(|(_, c)| matches!(c, ' ' | '\t' | '\n' | '\r'))
            .is_some()
        {}
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn fail<T>(&mut self, expected: &'static str) -> Result<T, NotJson> {
        let next = self.chars.peek().copied();
        Err(self.error_at(next, expected))
    }

    fn error_at(&self, next: Option<(usize, char)>, expected: &'static str) -> NotJson {
        NotJson {
            offset: next.map_or(self.len, |(offset, _)| offset),
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn as_ours(value: &serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Number(n.as_u64().unwrap()),
            serde_json::Value::String(s) => Value::Text(s.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(as_ours).collect()),
            serde_json::Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), as_ours(value)))
                    .collect(),
            ),
        }
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_another_writer_wrote_is_read(value in any_value(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert_eq!(parse(&text), Ok(as_ours(&value)));
        }

        #[test]
        fn what_another_reader_reads_is_read_alike(text in "[\\[\\],:\"a1\\\\untre fals]{0,12}") {
            if let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(parse(&text), Ok(as_ours(&theirs)));
            }
        }
    }

    #[test]
    fn escapes_of_all_kinds_are_undone() {
        let text = r#""\" \\ \/ \b \f \n \r \t \u00e9 \ud83d\ude00""#;
        assert_eq!(parse(text), Ok(Value::Text("\" \\ / \u{8} \u{c} \n \r \t é 😀".into())));
    }

    #[test]
    fn text_cut_anywhere_is_an_error_at_its_end() {
        let text = r#"{"a":["b\n",1,true,null,{"c":false}]}"#;
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]).unwrap_err().offset, cut, "cut at {cut}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        for (text, offset) in [
            ("[1,]", 3),
            ("{\"a\" 1}", 5),
            ("1 2", 2),
            ("\"\\ud800x\"", 7),
            ("18446744073709551616", 19),
            ("1.5", 1),
            ("\"\n\"", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().offset, offset, "{text}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert_eq!(parse(&"[".repeat(10_000)).unwrap_err().expected, "less nesting");
    }
}
