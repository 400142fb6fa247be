set -f
keep="--xattrs --xattrs-include=* --numeric-owner --format=posix"
sums() {
    (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}
before=$(sums tree)
tar $keep -C tree -cf - . | tar $keep -C /there -xpf -
tar $keep -C /there -cf back.tar .
tar $keep -C back -xpf back.tar
tar $keep -C back --compare -f back.tar
for copy in /there back; do
    [ "$(sums $copy)" = "$before" ] && echo equal
done
