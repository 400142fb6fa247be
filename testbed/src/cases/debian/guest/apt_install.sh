export DEBIAN_FRONTEND=noninteractive
# The second version has fewer files and another configuration.
build() {
    rm -rf bird
    mkdir -p bird/DEBIAN bird/usr/bin bird/usr/share/bird bird/etc bird/var/lib/bird
    cat >bird/DEBIAN/control <<END
Package: bird
Version: $1
Architecture: all
Maintainer: Nobody <nobody@localhost>
Depends: python3
Description: sings
END
    echo /etc/bird.conf >bird/DEBIAN/conffiles
    echo "song=$1" >bird/etc/bird.conf
    printf '#!/bin/sh\necho chirp %s\n' "$1" >bird/usr/bin/bird
    chmod 4755 bird/usr/bin/bird
    ln bird/usr/bin/bird bird/usr/bin/bird-too
    ln -s bird bird/usr/bin/bird-link
    for number in $(seq "$2"); do
        echo "$1 $number" >bird/usr/share/bird/$number
    done
    cat >bird/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
getent passwd birdy >/dev/null || useradd --system --no-create-home birdy
chown birdy:birdy /var/lib/bird
chmod 2775 /var/lib/bird
END
    chmod 755 bird/DEBIAN/postinst
    dpkg-deb --build --root-owner-group -Zgzip bird "bird_$1.deb" >/dev/null
}
# What it says is shown when it fails, or complains and goes on.
run() {
    "$@" </dev/null >log 2>&1 || { cat log >&2; exit 1; }
    if grep -E '^(E|W|dpkg): ?' log >&2; then exit 1; fi
}
check() {
    dpkg-query -W -f '${Version}: ${Status}\n' bird
    dpkg --verify bird
    dpkg --audit
    bird-link
    echo "$(ls /usr/share/bird | wc -l) files"
}
build 1 60
run apt-get install -y ./bird_1.deb
check
build 2 30
run dpkg --install bird_2.deb
check
