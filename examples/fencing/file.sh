#!/bin/sh
# Replaces a file by what comes in, unless a later leader has replaced it:
#
#     leaderrun --lock default/report -- sh -c 'make-report | ./file.sh /srv/report'
#
# FILE.token remembers the greatest token. Everybody who writes the file has to do it like this, and on a file system where flock works
# between all of them. A writer that is stopped at any line does no harm: up to the lock it has changed nothing, and behind it the others wait.
set -eu

file=$1 token=$LEADERRUN_FENCING_TOKEN
cat >"$file.$token.new"
exec 9>"$file.lock"
flock 9
greatest=0
[ ! -e "$file.token" ] || greatest=$(cat "$file.token")
# Said this way round, what is no number stops the script, too.
if ! [ "$token" -ge "$greatest" ]; then
    rm "$file.$token.new"
    echo "a later leader has been here, or $file.token is broken" >&2
    exit 1
fi
# The token first, and on the disk: when the machine stops in between, nobody older may come after it.
echo "$token" >"$file.token.new"
sync "$file.token.new"
mv "$file.token.new" "$file.token"
sync "$(dirname "$file")"
mv "$file.$token.new" "$file"
