# A guest that has not made the repository.
git -C repository fsck --strict 2>&1
echo sound
git -C repository gc -q
git clone -q --no-hardlinks repository clone
echo changed >>repository/0/0
git -C repository status --porcelain
git -C clone status --porcelain
git -C clone fsck --strict 2>&1
echo sound
