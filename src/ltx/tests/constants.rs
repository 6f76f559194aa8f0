//! Values that Litestream's format library has in its own tests.

use super::pgno;
use crate::ltx::{PageSize, Rolling, page_checksum};

#[test]
fn page_checksum_of_a_page_of_ones() {
    let mut rolling = Rolling::EMPTY;
    rolling.add(page_checksum(pgno(1), &[b'1'; 512]));
    assert_eq!(rolling.get(), 0xeb1a_9992_3104_4ddd);
}

#[test]
fn rolling_checksum_of_three_pages_in_any_order() {
    let pages = [1u8, 2, 3].map(|n| page_checksum(pgno(u32::from(n)), &[n; 512]));
    let mut forward = Rolling::EMPTY;
    pages.iter().for_each(|&c| forward.add(c));
    let mut backward = Rolling::EMPTY;
    pages.iter().rev().for_each(|&c| backward.add(c));
    assert_eq!(forward.get(), 0xefff_ffff_ecd9_9000);
    assert_eq!(forward, backward);
    pages.iter().for_each(|&c| forward.remove(c));
    assert_eq!(forward, Rolling::EMPTY);
}

#[test]
fn rolling_checksum_leaves_the_lock_page_out() {
    let lock_page = PageSize::new(4096).unwrap().lock_page();
    let mut rolling = Rolling::EMPTY;
    for n in (1..=262_155).map(pgno).filter(|&n| n != lock_page) {
        rolling.add(page_checksum(n, &[b'x'; 4096]));
    }
    assert_eq!(rolling.get(), 0xc19b_668c_3766_62c7);
}
