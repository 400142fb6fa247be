# Run in the outer host: pjdfstest on its own tmpfs, then both suites in guests that have a folder of that tmpfs. Lines
# that begin with `suite: ` and `status: ` are read by results.rs. A suite writes to a file, as terminals get colours.
suite() {
    echo "suite: $1"
    shift
    "$@" </dev/null >/tmp/said 2>&1
    status=$?
    cat /tmp/said
    echo "status: $status"
}
guest() {
    cache="$1"
    shift
    /bed/tessera run -m 512 --kernel /bed/kernel -v "/tmp/share:/share:cache=$cache" /bed/root -- "$@"
}
mkdir -p /tmp/plain /tmp/share
suite "pjdfstest on tmpfs" /bed/pjdfstest -c /etc/pjdfstest.toml -p /tmp/plain
for cache in none auto always; do
    suite "fsx, cache=$cache" guest $cache /bin/fsx -q -N 2000 -S 7 -f /etc/fsx.toml -P /tmp /share/fsx.bin
done
suite "pjdfstest, cache=auto" guest auto /bin/pjdfstest -c /etc/pjdfstest.toml -p /share
