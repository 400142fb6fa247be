# A guest that has not installed it.
bird-too
dpkg --purge bird >/dev/null
userdel birdy
dpkg --audit
if dpkg-query -s bird 2>/dev/null; then exit 1; fi
echo purged
