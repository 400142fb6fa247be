#!/bin/busybox sh
# The first process of the outer host: sets it up, runs the test bed's program, says its status, powers off.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
stty -F /dev/ttyS1 -opost -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
for module in @MODULES@; do
    insmod "/modules/$module.ko"
done
if [ -b /dev/vda ]; then
    mount -t ext4 /dev/vda /disk
fi
ip link set lo up
export HOME=/root
@COMMAND@
echo "@STATUS_LINE@$?"
poweroff -f
