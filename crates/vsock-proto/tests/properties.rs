//! What holds whatever guest and host do.

mod model;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn muxer_keeps_its_laws_under_any_list_of_operations(choices in proptest::collection::vec(any::<u8>(), 0..2000)) {
        model::run(&choices);
    }
}
