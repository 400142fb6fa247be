//! What Linux 6.12.113 really made of two lines, as `/proc/1/cmdline` and `/proc/1/environ` showed it in a guest.

use cmdline::kernel_view::{self, InitView};

fn init(line: &str) -> InitView {
    kernel_view::parse(line).init(kernel_view::is_well_known)
}

const BEFORE: &str = "console=hvc0 quiet reboot=k panic=-1 panic_print=0 no-kvmapf nomodule \
                      initcall_blacklist=jent_mod_init krun.poweroff=i8042 root=/dev/root rootfstype=virtiofs rw \
                      init=/.tessera/init";
const DEVICES: &str = "virtio_mmio.device=4K@0xd0000000:5 tsi_hijack tsi_hijack_unix";

#[test]
fn quotes_in_all_places_are_read_as_the_kernel_read_them() {
    let words = r#"bare a"b c"d K="v w" "L=x y" M=q"r s"t =lead "" E= "--x" mod.x=1 N="a"b"c" "=z y""#;
    let after = r#""a b" "" p=q "r=s t" a"b c" "x "y" z" last"#;
    let init = init(&format!("{BEFORE} {words} {DEVICES} -- {after}"));
    assert_eq!(init.program.as_deref(), Some("/.tessera/init"));
    let bare = ["bare", "a\"b c\"d", "=lead", "", "--x", "=z y"];
    let args = ["a b", "", "p=q", "r=s t", "a\"b c\"", "x \"y\" z", "last"];
    assert_eq!(init.args, [bare.as_slice(), &args].concat());
    let env = [
        "HOME=/",
        "TERM=linux",
        "K=v w",
        "L=x y",
        "M=q\"r s\"t",
        "E=",
        "N=a\"b\"c",
    ];
    assert_eq!(init.env, env);
}

#[test]
fn quotes_beside_quotes_are_read_as_the_kernel_read_them() {
    let words = r#""a="b"" O="" ""a"" "a "b" c" P=""x"" TERM=vt9 TERM-X=1 Q==  "R S=t u""#;
    let after = r#"--x ""q"" k= "=v w" =u= v=w"#;
    let init = init(&format!("{BEFORE} {words} {DEVICES} -- {after}"));
    let args = ["\"a\"", "a \"b\" c", "--x", "\"q\"", "k=", "=v w", "=u=", "v=w"];
    assert_eq!(init.args, args);
    let env = [
        "HOME=/", "TERM=vt9", "a=b\"", "O=", "P=\"x\"", "TERM-X=1", "Q==", "R S=t u",
    ];
    assert_eq!(init.env, env);
}
