git config --global user.name Nobody
git config --global user.email nobody@localhost
cd repository
git init -q -b main
git add .
git commit -q -m 'All of it'
echo "$(git ls-files | wc -l) files"
git status --porcelain
git commit -q -m Nothing >/dev/null || echo nothing to commit
