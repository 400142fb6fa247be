//! Sizes and offsets of the protocol, truncation at every length, round trips.

use std::time::Duration;

use fuse_wire::{
    AccessIn, Attr, AttrOut, CopyFileRangeIn, CreateIn, DirentBuffer, EntryOut, FallocateIn, FlushIn, ForgetIn,
    ForgetOne, FsyncIn, GetattrIn, HeaderIn, HeaderOut, InitFlags, InitIn, InitOut, InitReply, IoctlIn, IoctlOut,
    KStatfs, LkIn, LkOut, LseekIn, LseekOut, MAJOR, MINOR, MkdirIn, MknodIn, NAME_MAX, Offer, Opcode, OpenIn, OpenOut,
    OpenOutFlags, ReadIn, ReleaseIn, RemoveMappingOne, Request, RequestError, SetattrIn, SetupMappingIn, SizeOut,
    StatxIn, StatxOut, WireStatx, WriteIn, XattrSizeOut, negotiate,
};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

/// From the kernel's header, by hand.
#[test]
fn structs_have_the_sizes_of_the_protocol() {
    let sizes = [
        (size_of::<HeaderIn>(), 40),
        (size_of::<HeaderOut>(), 16),
        (size_of::<Attr>(), 88),
        (size_of::<EntryOut>(), 128),
        (size_of::<AttrOut>(), 104),
        (size_of::<InitIn>(), 16),
        (size_of::<InitOut>(), 64),
        (size_of::<ForgetIn>(), 8),
        (size_of::<ForgetOne>(), 16),
        (size_of::<GetattrIn>(), 16),
        (size_of::<SetattrIn>(), 88),
        (size_of::<MknodIn>(), 16),
        (size_of::<MkdirIn>(), 8),
        (size_of::<OpenIn>(), 8),
        (size_of::<CreateIn>(), 16),
        (size_of::<OpenOut>(), 16),
        (size_of::<ReadIn>(), 40),
        (size_of::<WriteIn>(), 40),
        (size_of::<SizeOut>(), 8),
        (size_of::<XattrSizeOut>(), 8),
        (size_of::<KStatfs>(), 80),
        (size_of::<ReleaseIn>(), 24),
        (size_of::<FlushIn>(), 24),
        (size_of::<FsyncIn>(), 16),
        (size_of::<LkIn>(), 48),
        (size_of::<LkOut>(), 24),
        (size_of::<AccessIn>(), 8),
        (size_of::<IoctlIn>(), 32),
        (size_of::<IoctlOut>(), 16),
        (size_of::<FallocateIn>(), 32),
        (size_of::<LseekIn>(), 24),
        (size_of::<LseekOut>(), 8),
        (size_of::<CopyFileRangeIn>(), 56),
        (size_of::<SetupMappingIn>(), 40),
        (size_of::<RemoveMappingOne>(), 16),
        (size_of::<StatxIn>(), 24),
        (size_of::<StatxOut>(), 288),
        (size_of::<WireStatx>(), 256),
    ];
    for (number, (is, should)) in sizes.into_iter().enumerate() {
        assert_eq!(is, should, "struct {number}");
    }
}

/// Arguments that are complete, of every operation that has a name.
fn complete(opcode: Opcode) -> Vec<u8> {
    let zeros = |len: usize| vec![0; len];
    let with = |len: usize, names: &[u8]| [&zeros(len)[..], names].concat();
    match opcode {
        Opcode::LOOKUP | Opcode::UNLINK | Opcode::RMDIR | Opcode::REMOVEXATTR => with(0, b"name\0"),
        Opcode::SYMLINK => with(0, b"name\0target\0"),
        Opcode::MKNOD | Opcode::CREATE => with(16, b"name\0"),
        Opcode::MKDIR | Opcode::LINK | Opcode::GETXATTR => with(8, b"name\0"),
        Opcode::RENAME => with(8, b"name\0new\0"),
        Opcode::RENAME2 => with(16, b"name\0new\0"),
        Opcode::SETXATTR => [&[1, 0, 0, 0, 0, 0, 0, 0][..], b"user.name\0x"].concat(),
        Opcode::FORGET | Opcode::INTERRUPT | Opcode::LISTXATTR | Opcode::OPEN | Opcode::OPENDIR => zeros(8),
        Opcode::ACCESS => zeros(8),
        Opcode::GETATTR | Opcode::INIT | Opcode::FSYNC | Opcode::FSYNCDIR | Opcode::TMPFILE => zeros(16),
        Opcode::SETATTR => zeros(88),
        Opcode::READ | Opcode::WRITE | Opcode::READDIR | Opcode::READDIRPLUS | Opcode::SETUPMAPPING => zeros(40),
        Opcode::RELEASE | Opcode::RELEASEDIR | Opcode::FLUSH | Opcode::LSEEK | Opcode::STATX => zeros(24),
        Opcode::GETLK | Opcode::SETLK | Opcode::SETLKW => zeros(48),
        Opcode::IOCTL => [&zeros(24)[..], &[3, 0, 0, 0, 0, 0, 0, 0], b"abc"].concat(),
        Opcode::BATCH_FORGET => [&[2, 0, 0, 0, 0, 0, 0, 0][..], &zeros(32)].concat(),
        Opcode::FALLOCATE => zeros(32),
        Opcode::COPY_FILE_RANGE => zeros(56),
        Opcode::REMOVEMAPPING => [&[2, 0, 0, 0][..], &zeros(32)].concat(),
        _ => Vec::new(),
    }
}

/// Known by name and served by nobody here.
const LEFT_OUT: [Opcode; 3] = [Opcode::BMAP, Opcode::POLL, Opcode::NOTIFY_REPLY];

#[test]
fn every_operation_parses_when_whole_and_at_no_shorter_length() {
    for opcode in Opcode::ALL.iter().copied().filter(|opcode| !LEFT_OUT.contains(opcode)) {
        let whole = complete(opcode);
        let parsed = Request::parse(opcode, &whole, InitFlags::empty());
        assert!(parsed.is_ok(), "{opcode}: {parsed:?}");
        for len in 0..whole.len() {
            let parsed = Request::parse(opcode, &whole[..len], InitFlags::empty());
            assert!(
                parsed.is_err(),
                "{opcode} with {len} of {} bytes: {parsed:?}",
                whole.len()
            );
        }
    }
}

#[test]
fn operations_without_a_name_are_unknown() {
    for number in [0, 7, 19, 53, 4096, u32::MAX] {
        let parsed = Request::parse(Opcode(number), &[0; 128], InitFlags::empty());
        assert_eq!(parsed, Err(RequestError::UnknownOpcode(number)));
        assert_eq!(Opcode(number).name(), None);
        assert_eq!(format!("{}", Opcode(number)), format!("Opcode({number})"));
    }
    for opcode in LEFT_OUT {
        assert!(Request::parse(opcode, &[0; 128], InitFlags::empty()).is_err());
    }
}

#[test]
fn the_long_form_of_setxattr_is_read_when_negotiated() {
    let body = [&[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], b"user.x\0y"].concat();
    match Request::parse(Opcode::SETXATTR, &body, InitFlags::SETXATTR_EXT) {
        Ok(Request::Setxattr {
            name,
            value,
            flags,
            kill_sgid,
        }) => {
            assert_eq!(
                (name.to_bytes(), value, flags, kill_sgid),
                (&b"user.x"[..], &b"y"[..], 2, true)
            );
        }
        other => panic!("{other:?}"),
    }
    // In the short form the name starts where the flags are.
    let short = Request::parse(Opcode::SETXATTR, &body, InitFlags::empty());
    assert!(matches!(short, Ok(Request::Setxattr { name, .. }) if name.to_bytes() == [1]));
}

#[test]
fn errors_have_the_numbers_of_linux() {
    let lookup = |name: &[u8]| Request::parse(Opcode::LOOKUP, name, InitFlags::empty()).unwrap_err();
    assert_eq!(lookup(b"..\0").errno(), 22);
    assert_eq!(lookup(b"no end").errno(), 22);
    let long = [&[b'n'; NAME_MAX + 1][..], &[0]].concat();
    assert_eq!(lookup(&long), RequestError::TooLong { len: 256, max: 255 });
    assert_eq!(lookup(&long).errno(), 36);
    assert_eq!(RequestError::UnknownOpcode(9).errno(), 38);
}

fn offer(flags: InitFlags) -> Offer {
    Offer {
        flags,
        max_write: 1 << 20,
        max_readahead: 1 << 20,
        max_background: 64,
        time_gran: 1,
    }
}

fn init(major: u32, minor: u32, flags: u32) -> InitIn {
    InitIn {
        major: major.into(),
        minor: minor.into(),
        max_readahead: 4096.into(),
        flags: flags.into(),
    }
}

#[test]
fn negotiation_takes_what_both_have() {
    let wanted = InitFlags::ASYNC_READ | InitFlags::MAX_PAGES | InitFlags::DIRECT_IO_ALLOW_MMAP;
    let flags = InitFlags::ASYNC_READ | InitFlags::MAX_PAGES | InitFlags::INIT_EXT | InitFlags::BIG_WRITES;
    let driver = init(7, 41, u32::try_from(flags.bits()).unwrap());
    let InitReply::Agreed { flags, minor, out } = negotiate(&driver, 1 << 4, &offer(wanted)) else {
        panic!()
    };
    assert_eq!(flags, wanted | InitFlags::INIT_EXT);
    assert_eq!((minor, out.major.get(), out.minor.get()), (41, 7, 41));
    assert_eq!(
        (out.flags2.get(), out.max_pages.get(), out.max_readahead.get()),
        (1 << 4, 256, 4096)
    );
    assert_eq!((out.max_background.get(), out.congestion_threshold.get()), (64, 48));
}

/// Unlike that of BATCH_FORGET, the count is not padded.
#[test]
fn ranges_to_unmap_follow_their_count_at_once() {
    let ranges = [7u64, 8, 9, 10].map(u64::to_le_bytes).concat();
    let body = [&2u32.to_le_bytes()[..], &ranges].concat();
    let Ok(Request::Removemapping(parsed)) = Request::parse(Opcode::REMOVEMAPPING, &body, InitFlags::empty()) else {
        panic!()
    };
    let parsed: Vec<_> = parsed.iter().map(|one| (one.moffset.get(), one.len.get())).collect();
    assert_eq!(parsed, [(7, 8), (9, 10)]);
    let too_many = [&u32::MAX.to_le_bytes()[..], &ranges].concat();
    assert!(Request::parse(Opcode::REMOVEMAPPING, &too_many, InitFlags::empty()).is_err());
}

/// `flags2` of a driver that does not say that it has one is whatever was in memory.
#[test]
fn flags2_counts_only_with_init_ext() {
    let InitReply::Agreed { flags, out, .. } = negotiate(&init(7, 35, 0), u32::MAX, &offer(InitFlags::all())) else {
        panic!()
    };
    assert_eq!(
        (flags, out.flags2.get(), out.max_pages.get()),
        (InitFlags::empty(), 0, 0)
    );
}

#[test]
fn packed_entries_are_padded_and_never_partial() {
    let mut buffer = [0xff; 64];
    let mut entries = DirentBuffer::new(&mut buffer);
    assert!(entries.push(None, 1, 2, 4, b"abc"));
    assert!(entries.fits(8, false) && !entries.fits(9, false) && !entries.fits(0, true));
    assert!(!entries.push(None, 1, 2, 4, b"nine byte"));
    assert!(entries.push(None, 3, 4, 8, b"eight by"));
    assert_eq!((entries.len(), entries.is_empty()), (64, false));
    assert_eq!(buffer[16..20], [3, 0, 0, 0]);
    assert_eq!(buffer[24..32], *b"abc\0\0\0\0\0");
    assert_eq!(buffer[56..64], *b"eight by");
}

proptest! {
    /// Whatever the bytes: a request or an error, and names that hold what they promise.
    #[test]
    fn any_bytes_parse_or_do_not(number in 0u32..60, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let parsed = Request::parse(Opcode(number), &body, InitFlags::all());
        if let Ok(Request::Lookup { name } | Request::Unlink { name } | Request::Rmdir { name }) = parsed {
            let bytes = name.to_bytes();
            prop_assert!(!bytes.is_empty() && bytes.len() <= NAME_MAX);
            prop_assert!(!bytes.contains(&b'/') && bytes != b"." && bytes != b"..");
        }
        prop_assert!(Request::arguments_len(Opcode(number), body.len()) <= body.len());
    }

    #[test]
    fn negotiation_never_grants_what_one_side_lacks(
        major in 0u32..10, minor in 0u32..100, flags: u32, flags2: u32, offered: u64,
    ) {
        let driver = init(major, minor, flags);
        let offered = InitFlags::from_bits_retain(offered);
        match negotiate(&driver, flags2, &offer(offered)) {
            InitReply::Agreed { flags: agreed, minor: spoken, out } => {
                prop_assert!(driver.all_flags(flags2).contains(agreed));
                prop_assert!((offered | InitFlags::INIT_EXT).contains(agreed));
                prop_assert!(spoken <= MINOR && spoken <= minor && major == MAJOR);
                prop_assert_eq!(u64::from(out.flags.get()) | u64::from(out.flags2.get()) << 32, agreed.bits());
            }
            InitReply::TryOurs(_) => prop_assert!(major > MAJOR),
            InitReply::Refused => prop_assert!(major < MAJOR || minor < 31),
        }
    }

    #[test]
    fn replies_read_back_as_they_were_written(unique: u64, errno in -1000i32..1000, node: u64, secs in 0u64..1 << 40) {
        let failure = HeaderOut::failure(unique, errno);
        let back = HeaderOut::read_from_bytes(failure.as_bytes()).unwrap();
        prop_assert_eq!(back, failure);
        prop_assert!((-511..=-1).contains(&back.error.get()));
        let valid = Duration::new(secs, 7);
        let entry = EntryOut::new(node, 9, Attr::default(), valid, valid);
        let back = EntryOut::read_from_bytes(entry.as_bytes()).unwrap();
        prop_assert_eq!((back.nodeid.get(), back.entry_valid.get(), back.attr_valid_nsec.get()), (node, secs, 7));
        let open = OpenOut::new(node, OpenOutFlags::KEEP_CACHE);
        prop_assert_eq!((open.fh.get(), open.open_flags.get()), (node, 2));
    }
}
