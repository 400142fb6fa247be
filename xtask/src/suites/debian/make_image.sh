# Run as root on the developer's machine: make_image.sh RELEASE IMAGE. The image is an ext4 file system with the Debian in
# its folder `root`, and room for what guests write.
set -eu
release="$1"
image="$2"
tree="$image.tree"
root="$tree/root"
PATH="$PATH:/usr/sbin:/sbin"
# One that was interrupted may have left mounts behind.
remove() {
    for folder in proc sys dev; do
        umount -q -R "$root/$folder" || true
    done
    rm -rf --one-file-system "$tree"
}
trap remove EXIT
remove
mkdir -p "$tree"
mirror=$(apt-get indextargets --format '$(SITE)' "Release: $release" 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase --include=python3,git "$release" "$root" $mirror
# The guest brings its own device nodes; a share would not hand these out.
find "$root/dev" -xdev -mindepth 1 -delete
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
    "$root"/usr/share/locale/*
rm -f "$image" "$image.unfinished"
mke2fs -q -t ext4 -m 0 -E root_owner=0:0 -d "$tree" "$image.unfinished" 1G
mv "$image.unfinished" "$image"
