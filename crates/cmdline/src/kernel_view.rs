//! What a Linux kernel reads from a command line.
//!
//! A model of the parser in Linux 6.12: `next_arg` of `lib/cmdline.c`, `parse_args` of `kernel/params.c`, and what
//! `init/main.c` makes of words that no parameter claims. The rules, in short:
//!
//! - White space parts words, except between double quotes. A quote toggles; nothing escapes it.
//! - A word that begins with a quote loses it, and loses one at its end. Of `name="value"` the value's quotes are dropped.
//!   Quotes elsewhere stay in the word.
//! - The first `=` that is not the word's first byte parts name and value.
//! - A word that reads `--`, quoted or not, ends the kernel's words. What follows are init's arguments, read by the same
//!   rules: a **second `--` ends those too**, and what follows it is lost.
//! - A word that no parameter claims becomes an argument of init without a value, and a variable of its environment with
//!   one, unless its name has a dot. `init=` and `rdinit=` forget the arguments before them.

use std::ops::Range;

/// One word as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Param {
    /// What stands before the `=`, or the whole word.
    pub name: String,
    /// What stands after the `=`, if there is one.
    pub value: Option<String>,
}

impl Param {
    /// The word as init gets it: name and value joined again, without quotes.
    pub fn joined(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether this is the parameter of that name. The kernel takes `-` and `_` for the same.
    pub fn is_named(&self, name: &str) -> bool {
        same_name(&self.name, name)
    }

    /// Whether the kernel ends a list of words here.
    fn is_separator(&self) -> bool {
        self.value.is_none() && self.name == "--"
    }
}

/// A whole line as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The words before `--`, in order.
    pub params: Vec<Param>,
    /// The words after `--`, in order, or `None` when there is no `--`.
    pub after_dashes: Option<Vec<Param>>,
    /// Whether a second `--` hid something.
    pub lost: bool,
}

/// What the kernel hands to init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitView {
    /// The program of the last `init=` or `rdinit=`.
    pub program: Option<String>,
    /// Its arguments after `argv[0]`.
    pub args: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<String>,
}

/// Reads a line. It ends at the first NUL; bytes that are no UTF-8 show as U+FFFD.
pub fn parse(line: impl AsRef<[u8]>) -> View {
    let mut text = Text::new(line.as_ref());
    let mut view = View {
        params: Vec::new(),
        after_dashes: None,
        lost: false,
    };
    let mut rest = Reader { text: &mut text, at: 0 };
    if rest.read_until_separator(&mut view.params) {
        let mut after = Vec::new();
        view.lost = rest.read_until_separator(&mut after) && rest.next().is_some();
        view.after_dashes = Some(after);
    }
    view
}

impl View {
    /// Init's arguments that stand after `--`.
    pub fn init_args(&self) -> Vec<String> {
        self.after_dashes.iter().flatten().map(Param::joined).collect()
    }

    /// The value of the last parameter of that name, which is the one that counts for most parameters.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .rev()
            .find(|param| param.is_named(name))?
            .value
            .as_deref()
    }

    /// Whether a bare word is there, as for `tsi_hijack` or `rw`.
    pub fn has_word(&self, word: &str) -> bool {
        self.params
            .iter()
            .any(|param| param.value.is_none() && param.is_named(word))
    }

    /// What the kernel hands to init if it claims the parameters for which `is_known` is true.
    pub fn init(&self, is_known: impl Fn(&str) -> bool) -> InitView {
        let env = vec!["HOME=/".to_owned(), "TERM=linux".to_owned()];
        let mut init = InitView {
            program: None,
            args: Vec::new(),
            env,
        };
        for param in &self.params {
            if param.value.is_some() && (param.is_named("init") || param.is_named("rdinit")) {
                init.program.clone_from(&param.value);
                init.args.clear();
            } else if !is_known(&param.name) {
                init.take_unclaimed(param);
            }
        }
        init.args.extend(self.init_args());
        init
    }
}

impl InitView {
    fn take_unclaimed(&mut self, param: &Param) {
        match goes_to_init(param) {
            Some(InitPart::Arg) => self.args.push(param.name.clone()),
            Some(InitPart::Env) => {
                let prefix = format!("{}=", param.name);
                match self.env.iter_mut().find(|entry| entry.starts_with(&prefix)) {
                    Some(entry) => *entry = param.joined(),
                    None => self.env.push(param.joined()),
                }
            }
            None => {}
        }
    }
}

/// Where a word that no parameter claims ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitPart {
    Arg,
    Env,
}

/// A name with a dot is taken for a parameter of a module that is not there, and dropped.
pub(crate) fn goes_to_init(param: &Param) -> Option<InitPart> {
    match &param.value {
        _ if param.name.contains('.') => None,
        Some(_) => Some(InitPart::Env),
        None => Some(InitPart::Arg),
    }
}

/// Parameters that every kernel of this kind claims. Not complete: a name that is missing here is counted as init's, which
/// errs on the safe side.
const WELL_KNOWN: &[&str] = &[
    "acpi",
    "apparmor",
    "audit",
    "cgroup_disable",
    "cgroup_no_v1",
    "clocksource",
    "console",
    "debug",
    "default_hugepagesz",
    "earlycon",
    "earlyprintk",
    "hugepages",
    "hugepagesz",
    "ignore_loglevel",
    "init",
    "initcall_blacklist",
    "initcall_debug",
    "isolcpus",
    "log_buf_len",
    "loglevel",
    "lsm",
    "maxcpus",
    "mem",
    "memhp_default_state",
    "memmap",
    "mitigations",
    "no_console_suspend",
    "no_kvmapf",
    "no_timer_check",
    "noapic",
    "nohz",
    "nohz_full",
    "nokaslr",
    "nolapic",
    "nomodule",
    "nosmp",
    "nr_cpus",
    "oops",
    "panic",
    "panic_on_warn",
    "panic_print",
    "pci",
    "quiet",
    "rcu_nocbs",
    "rdinit",
    "reboot",
    "ro",
    "root",
    "rootdelay",
    "rootflags",
    "rootfstype",
    "rootwait",
    "rw",
    "security",
    "selinux",
    "swiotlb",
    "transparent_hugepage",
    "tsc",
    "tsi_hijack",
    "tsi_hijack_unix",
];

/// Whether any ordinary kernel claims this parameter, so that it never reaches init.
pub fn is_well_known(name: &str) -> bool {
    WELL_KNOWN.iter().any(|known| same_name(known, name))
}

fn same_name(a: &str, b: &str) -> bool {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

/// One word where it stands in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) range: Range<usize>,
    pub(crate) param: Param,
    pub(crate) is_separator: bool,
}

/// The words of a line where they stand, the separators among them.
pub(crate) fn place_words(line: &str) -> Vec<Placed> {
    let mut text = Text::new(line.as_bytes());
    let mut reader = Reader { text: &mut text, at: 0 };
    std::iter::from_fn(|| reader.next()).collect()
}

/// The line as the kernel holds it: bytes with a NUL at the end, into which its parser writes further NULs.
struct Text(Vec<u8>);

impl Text {
    fn new(line: &[u8]) -> Self {
        let end = line.iter().position(|&byte| byte == 0).unwrap_or(line.len());
        let mut bytes = line.get(..end).unwrap_or(line).to_vec();
        bytes.push(0);
        Self(bytes)
    }

    fn at(&self, index: usize) -> u8 {
        self.0.get(index).copied().unwrap_or(0)
    }

    fn end_at(&mut self, index: usize) {
        if let Some(byte) = self.0.get_mut(index) {
            *byte = 0;
        }
    }

    fn string_at(&self, index: usize) -> String {
        let tail = self.0.get(index..).unwrap_or_default();
        let end = tail.iter().position(|&byte| byte == 0).unwrap_or(tail.len());
        String::from_utf8_lossy(tail.get(..end).unwrap_or(tail)).into_owned()
    }
}

struct Reader<'a> {
    text: &'a mut Text,
    at: usize,
}

impl Reader<'_> {
    /// Returns whether a separator ended the list, and not the line.
    fn read_until_separator(&mut self, params: &mut Vec<Param>) -> bool {
        while let Some(word) = self.next() {
            if word.is_separator {
                return true;
            }
            params.push(word.param);
        }
        false
    }

    fn next(&mut self) -> Option<Placed> {
        while is_space(self.text.at(self.at)) {
            self.at += 1;
        }
        if self.text.at(self.at) == 0 {
            return None;
        }
        let start = self.at;
        let quoted = self.text.at(start) == b'"';
        let name_at = start + usize::from(quoted);
        let (end, equals) = self.find_end(name_at, quoted);
        let value_at = equals.map(|equals| self.open_value(equals, end));
        if quoted && end > name_at && self.text.at(end - 1) == b'"' {
            self.text.end_at(end - 1);
        }
        self.at = if self.text.at(end) == 0 { end } else { end + 1 };
        self.text.end_at(end);
        let value = value_at.map(|at| self.text.string_at(at));
        let param = Param {
            name: self.text.string_at(name_at),
            value,
        };
        let is_separator = param.is_separator();
        Some(Placed {
            range: start..end,
            param,
            is_separator,
        })
    }

    /// Where the word ends, and where its name does if it has a value.
    fn find_end(&self, name_at: usize, quoted: bool) -> (usize, Option<usize>) {
        let (mut end, mut equals, mut in_quote) = (name_at, None, quoted);
        loop {
            match self.text.at(end) {
                0 => return (end, equals),
                space if is_space(space) && !in_quote => return (end, equals),
                // An `=` as the first byte is not seen: the kernel keeps the place as an index where 0 means none.
                b'=' if equals.is_none() && end > name_at => equals = Some(end),
                b'"' => in_quote = !in_quote,
                _ => {}
            }
            end += 1;
        }
    }

    /// Parts name from value and drops the value's quotes; returns where the value begins.
    fn open_value(&mut self, equals: usize, end: usize) -> usize {
        self.text.end_at(equals);
        let value_at = equals + 1;
        if self.text.at(value_at) != b'"' {
            return value_at;
        }
        if self.text.at(end - 1) == b'"' {
            self.text.end_at(end - 1);
        }
        value_at + 1
    }
}

/// The kernel's `isspace`: its table counts the no-break space of Latin-1, 0xa0, which is also a part of some UTF-8
/// characters.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0xa0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(name: &str) -> Param {
        Param {
            name: name.to_owned(),
            value: None,
        }
    }

    fn pair(name: &str, value: &str) -> Param {
        Param {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        }
    }

    #[track_caller]
    fn reads(line: &str, expected: &[Param]) {
        assert_eq!(parse(line).params, expected, "{line}");
    }

    #[test]
    fn words_any_white_space_is_parted_and_skipped() {
        reads(" \t quiet  rw\n\u{b}\u{c}\rx ", &[bare("quiet"), bare("rw"), bare("x")]);
        reads("", &[]);
        reads("   ", &[]);
    }

    #[test]
    fn words_no_break_space_byte_parts_them() {
        assert_eq!(parse(b"a\xa0b").params, [bare("a"), bare("b")]);
    }

    #[test]
    fn line_with_nul_ends_there() {
        reads("a\0b", &[bare("a")]);
    }

    #[test]
    fn first_equals_sign_parts_name_and_value() {
        reads("a=b=c root=", &[pair("a", "b=c"), pair("root", "")]);
    }

    #[test]
    fn leading_equals_sign_belongs_to_the_name() {
        reads("=a", &[bare("=a")]);
        reads("=a=b", &[pair("=a", "b")]);
        reads("=", &[bare("=")]);
    }

    #[test]
    fn quotes_around_word_or_value_are_dropped() {
        reads(r#""a b""#, &[bare("a b")]);
        reads(r#""a=b c""#, &[pair("a", "b c")]);
        reads(r#"a="b c""#, &[pair("a", "b c")]);
        reads(r#"a="""#, &[pair("a", "")]);
        reads(r#""a=""#, &[pair("a", "")]);
        reads(r#""""#, &[bare("")]);
        reads(r#""=a""#, &[bare("=a")]);
    }

    #[test]
    fn quotes_inside_a_word_stay() {
        reads(r#"a"b c"d"#, &[bare(r#"a"b c"d"#)]);
        reads(r#"a=b"c d""#, &[pair("a", r#"b"c d""#)]);
        reads(r#"a"b="c d""e f""#, &[pair("a\"b", "c"), bare(r#"d""e"#), bare("f\"")]);
    }

    #[test]
    fn value_that_opens_but_does_not_end_with_a_quote_keeps_the_inner_one() {
        reads(r#"a="b"c"#, &[pair("a", r#"b"c"#)]);
    }

    #[test]
    fn unbalanced_quote_swallows_the_rest() {
        reads(r#"a "b c"#, &[bare("a"), bare("b c")]);
        reads(r#"a"b -- c"#, &[bare(r#"a"b -- c"#)]);
        reads("\"", &[bare("")]);
        reads("a=\"", &[pair("a", "")]);
        reads(r#"""a b"#, &[bare("\"a"), bare("b")]);
    }

    #[test]
    fn dashes_part_the_arguments_of_init_even_in_quotes() {
        for line in ["a -- b c=d", r#"a "--" b "c=d""#, r#"a -- b c="d""#] {
            let view = parse(line);
            assert_eq!(
                (view.params.as_slice(), view.init_args()),
                ([bare("a")].as_slice(), vec!["b".into(), "c=d".into()])
            );
        }
        assert_eq!(parse("a --").after_dashes, Some(vec![]));
        assert_eq!(parse("a --x ---").after_dashes, None);
        assert_eq!(parse("--=x").params, [pair("--", "x")]);
    }

    #[test]
    fn second_dashes_lose_what_follows() {
        let view = parse("a -- b -- c");
        assert_eq!((view.init_args(), view.lost), (vec!["b".to_owned()], true));
        assert!(!parse("a -- b --").lost);
    }

    #[test]
    fn init_gets_what_no_parameter_claims() {
        let line = r#"lost init=/bin/x quiet word A="b c" TERM=vt100 mod.x=1 A=2 -- "" "d e""#;
        let init = parse(line).init(is_well_known);
        assert_eq!(init.program.as_deref(), Some("/bin/x"));
        assert_eq!(init.args, ["word", "", "d e"]);
        assert_eq!(init.env, ["HOME=/", "TERM=vt100", "A=2"]);
    }

    #[test]
    fn names_dash_and_underscore_are_the_same() {
        assert!(is_well_known("no-kvmapf") && is_well_known("no_kvmapf"));
        assert!(parse("tsi-hijack").has_word("tsi_hijack"));
        assert_eq!(parse("root=a root=b").value_of("root"), Some("b"));
    }
}
