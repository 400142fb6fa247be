export DEBIAN_FRONTEND=noninteractive
# What apt says is shown when it fails, or complains and goes on.
apt() {
    apt-get -y "$@" </dev/null >apt.log 2>&1 || { cat apt.log >&2; exit 1; }
    if grep -E '^(E|W|dpkg): ?' apt.log >&2; then exit 1; fi
}
