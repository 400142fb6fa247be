//! Any list of operations comes out as on a folder of the host.

mod common;

use common::mounted;
use common::tree::{OP_LEN, Tree};
use proptest::prelude::*;
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};

/// Two descriptors to go round, so that almost every node is found again by handle or by name.
fn config() -> PassthroughConfig {
    PassthroughConfig {
        cached_descriptors: 2,
        ..PassthroughConfig::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::default() })]

    #[test]
    fn passthrough_does_what_the_host_does(bytes in prop::collection::vec(any::<u8>(), 0..OP_LEN * 120)) {
        let (shared, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut driver = mounted(Passthrough::new(shared.path(), config()).unwrap());
        Tree::new(&mut driver, model.path(), false).run(&bytes);
    }

    #[test]
    fn passthrough_without_file_handles_does_so_too(bytes in prop::collection::vec(any::<u8>(), 0..OP_LEN * 120)) {
        let (shared, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let back_end = Passthrough::new(shared.path(), config()).unwrap().without_file_handles();
        let mut driver = mounted(back_end);
        Tree::new(&mut driver, model.path(), true).run(&bytes);
    }
}
