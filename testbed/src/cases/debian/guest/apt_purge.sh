# A guest that has not installed it.
bird-too
apt purge bird
userdel birdy
dpkg --audit
if dpkg-query -s bird 2>/dev/null; then exit 1; fi
echo purged
